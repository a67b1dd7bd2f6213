"""Which files change on this machine, and which of that means anything to a pipeline."""

from __future__ import annotations

import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from penstock import source
from penstock.config import REPORTS
from penstock.errors import UsageError
from penstock.place import LOADED_AT
from penstock.state import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchfiles import Change

# A save is one change though an editor does it in steps, and so is a checkout of many files.
QUIET_MS, LONGEST_MS = 50, 1000
# What editors and `sed -i` write beside a file, on top of what the library knows of.
TEMPORARY = (r"^#.*#$", r"^4913$", r"^sed[0-9A-Za-z]{6}$", r"^\.goutputstream-")
MOST_NAMED = 3


class Changes:
    """The files that changed since somebody asked last.

    Args:
        root: The project's folder.

    Attributes:
        error: Why the system cannot tell of changes, if that is so.

    Raises:
        UsageError: When the library that tells of changes is not installed.
    """

    def __init__(self, root: Path) -> None:
        try:
            from watchfiles import DefaultFilter
        except ImportError as error:
            message = "--watch needs the library `watchfiles`: pip install 'penstock[watch]'"
            raise UsageError(message) from error
        patterns = (*DefaultFilter.ignore_entity_patterns, *TEMPORARY)
        self._filter = DefaultFilter(ignore_entity_patterns=patterns)
        self._root = root
        self._found = _changed_since(LOADED_AT)
        self._news = anyio.Event()
        self.error = ""

    async def follow(self) -> None:
        """Collect what changes, as long as this runs."""
        from watchfiles import awatch

        folders = {self._root, *(made.root for made in source.made), *_folders(definition())}
        tops = [f for f in folders if not any(f != o and f.is_relative_to(o) for o in folders)]
        found = awatch(*tops, watch_filter=None, step=QUIET_MS, debounce=LONGEST_MS)
        try:
            async for changes in found:
                self.add(changes)
        except OSError as error:
            self.error = (
                f"cannot watch {self._root}: {error}; raise `fs.inotify.max_user_watches`, or set "
                "WATCHFILES_FORCE_POLLING=1"
            )
            self._news.set()

    def add(self, found: Iterable[tuple[Change, str]]) -> None:
        """Take what the system tells, without what is none of the author's doing."""
        from watchfiles import Change

        told = [(change, Path(name)) for change, name in found]
        added = {path for change, path in told if change is Change.added}
        # What was added and is gone was somebody's means to write another file.
        kept = {
            path
            for change, path in told
            if self._counts(change, path) and not (path in added and not path.exists())
        }
        self._found |= kept
        if kept:
            self._news.set()

    def _counts(self, change: Change, path: Path) -> bool:
        if not path.is_relative_to(self._root):
            return self._filter(change, path.name)
        name = path.relative_to(self._root)
        return name.parts[:1] not in {(REPORTS,), (FOLDER,)} and self._filter(change, str(name))

    async def some(self) -> set[Path]:
        """Return what changed, as soon as anything did, or nothing when the system cannot tell."""
        await self._news.wait()
        return self.take()

    def take(self) -> set[Path]:
        """Return what changed until now."""
        if not self.error:
            self._news = anyio.Event()
        found, self._found = self._found, set()
        return found

    def shown(self, changed: Iterable[Path]) -> str:
        """Say in words what changed."""
        names = sorted(
            str(path.relative_to(self._root)) if path.is_relative_to(self._root) else str(path)
            for path in changed
        )
        more = len(names) - MOST_NAMED
        named = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"{named} changed"


def definition() -> set[Path]:
    """Return the author's files from which the pipeline was loaded, and the library's own.

    Not what is installed, which changes when somebody installs it.
    """
    installed = {
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    files = {getattr(module, "__file__", None) for module in tuple(sys.modules.values())}
    loaded = {Path(file).absolute() for file in files if file}
    return {file for file in loaded if not any(map(file.is_relative_to, installed))}


def _changed_since(then: float) -> set[Path]:
    """Return the files of the definition that were written since they were read."""
    found = set()
    for file in definition():
        with suppress(OSError):
            if then < file.stat().st_mtime <= time.time():  # not one whose clock is another
                found.add(file)
    return found


def _folders(files: Iterable[Path]) -> set[Path]:
    return {file.parent for file in files if file.parent.is_dir()}
