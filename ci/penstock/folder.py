"""The folders that a run writes: for nobody else to read, and no way out of the project.

What is checked out may be a stranger's: a link in it, where we write, would have us write elsewhere.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
from pathlib import Path

logger = logging.getLogger(__name__)

PRIVATE = 0o700
MOST_NAME_BYTES = 200  # of a stage in the name of its log; file systems take 255 in all


def cache_home() -> Path:
    """Return the user's folder for what can be made again, by the XDG rules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def make_private(folder: Path) -> None:
    """Make a folder, or make the one that is there, ours alone.

    Raises:
        OSError: When that is impossible, or it is a link that leaves the folder it lies in.
    """
    if folder.is_symlink() and not leads_into(folder, folder.parent):
        raise OSError(errno.ELOOP, "it is a link that leaves the project", str(folder))
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        folder.chmod(PRIVATE)


def remove_ways_out(folder: Path) -> None:
    """Delete every link in a folder that leads out of it, and say so."""
    for place, folders, files in os.walk(folder):
        for link in [path for name in folders + files if (path := Path(place, name)).is_symlink()]:
            if not leads_into(link, folder):
                link.unlink()
                logger.warning("WARNING: removed the link %s, which leads elsewhere", link)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old or the new one and nothing between."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # Names of files may hold bytes that are no text; escaped they are, in JSON, themselves.
        with beside.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def file_name(stage: str) -> str:
    """Return a stage's name as it can stand in a path; a long one is cut, and told from others."""
    plain = re.sub(r"[^\w.,=\[\]+-]", "-", stage)
    if len(plain.encode()) <= MOST_NAME_BYTES:
        return plain
    digest = hashlib.sha256(stage.encode()).hexdigest()[:16]
    return f"{plain[: MOST_NAME_BYTES // 8]}-{digest}"  # a character has up to 4 bytes


def leads_into(link: Path, folder: Path) -> bool:
    """Return whether a path stays in a folder, whatever links it goes through."""
    try:
        return link.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        return False
