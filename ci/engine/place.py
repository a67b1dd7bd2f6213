"""Where everything lies, and which versions are locked."""

from __future__ import annotations

import functools
import hashlib
import os
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv"
LOCK = ROOT / "uv.lock"
HERE = Path(__file__).parent


def cache_home() -> Path:
    """Return the user's cache folder, by the XDG rules that the Dagger SDK follows too."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def home() -> Path:
    """Return the folder of all that this tool makes."""
    return cache_home() / "penstock"


@functools.cache
def _locked() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in tomllib.loads(LOCK.read_text())["package"]}


def locked(name: str) -> dict[str, Any]:
    """Return a package's entry of the lock file."""
    return _locked()[name]


def dagger_version() -> str:
    """Return the version of the engine: that of the locked SDK."""
    version: str = locked("dagger-io")["version"]
    return version


def cli() -> Path:
    """Return where the SDK looks for the CLI before it downloads one."""
    return cache_home() / "dagger" / f"dagger-{dagger_version()}"


def digest(*parts: bytes | str | Path) -> str:
    """Return one hash over texts and files (folders with all that is in them)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            for file in files:
                total.update(str(file.relative_to(part.parent)).encode() + file.read_bytes())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)
