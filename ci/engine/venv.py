"""The venv with the locked dependencies, made by uv."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from engine import place, wheels
from engine.steps import Step

if TYPE_CHECKING:
    from pathlib import Path

    from engine.steps import Log

PYTHON = place.VENV / "bin" / "python"
IMPORTED = "dagger, jinja2, rich.live"  # by every run


def step() -> Step:
    """Return the step that brings the venv up to date with the lock file."""
    return Step("venv", "Python environment", _sync, _is_current, usual_s=10)


def _wanted() -> str:
    return place.digest(place.LOCK, place.ROOT / "pyproject.toml", platform.python_version())


def _is_current() -> bool:
    stamp = place.VENV / ".penstock"
    return PYTHON.exists() and stamp.exists() and stamp.read_text() == _wanted()


def _sync(log: Log) -> None:
    uv = next(wheels.unpacked("uv").glob("uv-*.data/scripts/uv"))
    uv.chmod(0o755)
    env = {
        "UV_PROJECT_ENVIRONMENT": str(place.VENV),
        "UV_CACHE_DIR": str(place.home() / "uv"),
        "UV_SYSTEM_CERTS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "TMPDIR": str(place.scratch()),  # uv leaves lock files there
    }
    if index := wheels.own_index():
        _install_from(index, uv, env, log)
    else:
        sync = ["sync", "--frozen", "--no-install-project", "--python", sys.executable]
        log.run([uv, *sync], cwd=place.ROOT, env=env)
    # Python compiles what it imports first; told not to keep that, it would for ever: 0.8 s a run.
    log.run([PYTHON, "-c", f"import {IMPORTED}"], env={"PYTHONDONTWRITEBYTECODE": ""})
    place.write_whole(place.VENV / ".penstock", _wanted())


def _install_from(index: str, uv: Path, env: dict[str, str], log: Log) -> None:
    """Install what is locked, by its hashes, from the user's own index.

    `uv sync --frozen` takes the addresses from the lock file, whatever index is named.
    """
    env |= {"UV_DEFAULT_INDEX": index, "VIRTUAL_ENV": str(place.VENV)}
    locked = place.scratch() / "locked.txt"
    export = ["export", "--quiet", "--frozen", "--no-emit-project", "--output-file", str(locked)]
    log.run([uv, "venv", "--clear", "--python", sys.executable, place.VENV], env=env)
    log.run([uv, *export], cwd=place.ROOT, env=env)
    log.run([uv, "pip", "sync", "--require-hashes", locked], cwd=place.ROOT, env=env)


def link_cli() -> None:
    """Put the CLI that the SDK uses on the venv's path, for `dagger run`."""
    link = place.VENV / "bin" / "dagger"
    if place.cli().exists() and (not link.is_symlink() or link.readlink() != place.cli()):
        link.unlink(missing_ok=True)
        link.symlink_to(place.cli())
