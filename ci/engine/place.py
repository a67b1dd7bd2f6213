"""Where everything lies, and which versions are locked."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import screen
from engine.errors import MachineError

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv"
LOCK = ROOT / "uv.lock"
HERE = Path(__file__).parent
MOUNTS = Path("/proc/self/mounts")


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


def beside(path: Path) -> Path:
    """Return where something is made before it takes its place.

    Always the same: whoever writes holds the lock, and what a crash leaves is overwritten.
    """
    return path.with_name(f".{path.name}.new")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside(path).write_text(text)
    beside(path).replace(path)


def scratch() -> Path:
    """Return the folder of what no call needs after its end."""
    folder = home() / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def logs() -> Path:
    """Return the folder of the logs: what programs print is for nobody else to read."""
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def sweep() -> None:
    """End what a call that was killed left at work, and empty the scratch folder after it.

    The kernel ends the commands of such a call, and not those which they had started themselves.
    """
    ours = os.fsencode(scratch())
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if ours in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    for mount in _mounts():
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    if not _mounts():  # else what is mounted there would be deleted with it
        shutil.rmtree(scratch(), ignore_errors=True)


def _mounts() -> list[str]:
    """Return what is mounted within the scratch folder, the innermost first."""
    lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    # The kernel writes a blank as `\040`.
    points = [re.sub(r"\\([0-7]{3})", lambda c: chr(int(c[1], 8)), li.split()[1]) for li in lines]
    inside = [point for point in points if Path(point).is_relative_to(scratch().resolve())]
    return inside[::-1]


def free_disk() -> tuple[Path, int, int]:
    """Return the folder that is or will hold our home, and its disk's free and whole size."""
    folder = next(p for p in (home(), *home().parents) if p.exists())
    usage = shutil.disk_usage(folder)
    return folder, usage.free, usage.total


def check_disk(needed_bytes: int) -> None:
    """Raise when there is no room for what will be made."""
    folder, free, _ = free_disk()
    if free < needed_bytes:
        message = f"building what is missing needs {screen.size(needed_bytes)} and {folder} has "
        advice = "free some space there, or set XDG_CACHE_HOME to a folder on another disk"
        raise MachineError(message + screen.size(free), advice)
