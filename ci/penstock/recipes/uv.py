"""Python containers whose dependencies come from a uv lock file."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from penstock.cache import prepared

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dagger

    from penstock.source import Source

VENV = "/opt/venv"
WORKDIR = "/src"
CACHE = "/var/cache/uv"


def uv_project(
    image: str,
    source: Source,
    *,
    groups: Sequence[str] = (),
    compiled: bool = False,
    caches: Sequence[str] = (),
) -> dagger.Container:
    """Return a Python container with the locked dependencies and the sources.

    The dependencies are a layer of their own, made from `pyproject.toml` and `uv.lock` only: an
    edit of any other file keeps it.

    Args:
        image: Python's image, by name.
        source: The project's files; `pyproject.toml` and `uv.lock` must be among them.
        groups: Dependency groups to install and nothing else; by default the project's own
            dependencies and its default groups.
        compiled: Compile to bytecode, for images that start often.
        caches: Folders of the working directory that tools keep between runs, `.mypy_cache` say;
            no result may depend on them.
    """
    from dagger import dag

    files = source.directory()
    chosen = [word for group in groups for word in ("--only-group", group)]
    locked = (
        dag.container()
        .from_(image)
        .with_exec(["pip", "install", "--no-cache-dir", "--root-user-action=ignore", _uv(source)])
        .with_workdir(WORKDIR)
        .with_env_variable("UV_PROJECT_ENVIRONMENT", VENV)
        .with_env_variable("UV_CACHE_DIR", CACHE)
        .with_env_variable("UV_LINK_MODE", "copy")  # a cache volume is another file system
        .with_env_variable("UV_SYSTEM_CERTS", "1")  # the company's own certificates, as pip does
        .with_file("pyproject.toml", files.file("pyproject.toml"))
        .with_file("uv.lock", files.file("uv.lock"))
        .with_mounted_cache(CACHE, dag.cache_volume("penstock-uv"))
        .with_exec(
            ["uv", "sync", "--frozen", "--no-install-project", *chosen]
            + (["--compile-bytecode"] if compiled else [])
        )
        .without_mount(CACHE)
        .with_env_variable("PATH", f"{VENV}/bin:$PATH", expand=True)
        .with_env_variable("PYTHONDONTWRITEBYTECODE", "1")
    )
    container = prepared(locked).with_directory(WORKDIR, files)
    for folder in caches:
        volume = dag.cache_volume(f"penstock-{_project(source)}-{folder}")
        container = container.with_mounted_cache(f"{WORKDIR}/{folder}", volume)
    return container


def _project(source: Source) -> str:
    """Return the project's name: the folder's would differ in each clone."""
    table = tomllib.loads((source.root / "pyproject.toml").read_text(encoding="utf-8"))
    return str(table.get("project", {}).get("name", source.root.name))


def _uv(source: Source) -> str:
    """Return the requirement for uv itself: the version in the lock file, if it is locked."""
    lock = (source.root / "uv.lock").read_text(encoding="utf-8")
    # Not read as TOML, which takes tenths of a second; uv itself writes each package so.
    locked = re.search(r'^name = "uv"\nversion = "([^"]+)"$', lock, re.MULTILINE)
    return f"uv=={locked[1]}" if locked else "uv"
