"""The disk below the engine's cache: warned of before it is full."""

from __future__ import annotations

import http.client
import shutil
from pathlib import Path

from engine import docker, screen

CACHE = "/var/lib/dagger"
LEAST_FREE = 0.2  # of the disk; an engine that is left to itself keeps no cache on a fuller one
AMPLE_BYTES = 20_000_000_000  # as much as our own engine's cache may ever take
ADVICE = {
    "built": "its cache is kept; free some space there, or `python3 -m ci engine prune` empties it",
    "official": "it drops its cache when less than a fifth is free: free some space there, or write "
    '`{"gc": {"minFreeSpace": "2GB"}}` into ~/.config/dagger/engine.json and remove its container',
}


def warning(container: str, kind: str) -> str:
    """Return what to say of the disk on which an engine's container keeps its cache.

    Args:
        container: Its name.
        kind: `built` or `official`.

    Returns:
        An empty string where there is room enough, or where nobody knows.
    """
    status, facts = docker.ask(f"/containers/{container}/json")
    if status != http.client.OK:
        return ""
    folder = next((m["Source"] for m in facts["Mounts"] if m["Destination"] == CACHE), "")
    usage = _usage(Path(folder)) if folder else None
    if usage is None or usage.free > usage.total * LEAST_FREE:
        return ""
    if kind == "built" and usage.free > AMPLE_BYTES:
        return ""
    free = f"{screen.size(usage.free)} ({100 * usage.free // usage.total} %)"
    return f"WARNING: only {free} free on the engine's disk, {folder}: {ADVICE[kind]}"


def _usage(folder: Path) -> shutil._ntuple_diskusage | None:
    """Return how full the disk of a folder is, also of one that only root may look into."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place)
        except PermissionError:
            continue
        except OSError:  # it is not on this machine, but in Docker's virtual one
            return None
    return None
