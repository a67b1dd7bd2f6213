"""What one run tells the next: which definitions passed here, what was rehearsed, how long it took.

Nothing in here is needed: a lost or broken file costs time, never a verdict.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from penstock.errors import FolderError
from penstock.folder import leads_into, make_private, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TextIO

logger = logging.getLogger(__name__)

SCHEMA = 2
FOLDER = ".penstock"
MOST_HISTORY = 50
# What `export` and `write_whole` write into before they rename it.
UNFINISHED = re.compile(r"\.incoming-|\..+\.[0-9a-f]{16}$")

# What `state.json` holds, as it may have been checked in by a stranger: kinds, by example.
FORM: dict[str, Any] = {
    "passed": {str: {str: str}},
    "rehearsed": {str: [str]},
    "durations_s": {str: float | int},
    "images": {str: [str]},
    "failed": [str],
    "history": [{str: str | float | int}],
}


@dataclass(frozen=True, slots=True)
class Passed:
    """A command that passed on this engine.

    Args:
        definition: The engine's id of it.
        again: The value that had made the engine execute it again, if one was needed.
    """

    definition: str
    again: str = ""


@dataclass
class State:
    """The project's memory, one small file in `.penstock/`.

    Args:
        folder: Where it lies.
        passed: By stage.
        rehearsed: By image identity: the references that were pushed.
        durations_s: By stage, of the last time that it passed and was not taken from the cache.
        images: By stage: the images it is made from.
        failed: Stages of the last run that did not pass; absent before any.
        history: The last runs, oldest first, as `PastRun` has them.
    """

    folder: Path
    passed: dict[str, Passed] = field(default_factory=dict)
    rehearsed: dict[str, list[str]] = field(default_factory=dict)
    durations_s: dict[str, float] = field(default_factory=dict)
    images: dict[str, list[str]] = field(default_factory=dict)
    failed: list[str] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def inputs(self) -> dict[str, dict[str, str]]:
        """What each stage was made from when it last passed; in a file of its own, for its size."""
        with suppress(OSError, ValueError, AttributeError, RecursionError):
            stored = json.loads((self.folder / "inputs.json").read_text(encoding="utf-8"))
            return {name: dict(found) for name, found in stored.items()}
        return {}

    @classmethod
    def load(cls, root: Path) -> State:
        """Read the project's memory; whatever cannot be read counts as forgotten."""
        folder = root / FOLDER
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            stored = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if stored.pop("schema") == SCHEMA:
                told = {**stored, "failed": stored.get("failed") or []}
                if all(_fits(value, FORM[name]) for name, value in told.items()):
                    passed = {name: Passed(**found) for name, found in stored.pop("passed").items()}
                    return cls(folder, passed, **stored)
        return cls(folder)

    def save(self) -> None:
        """Write the memory, whole or not at all; where that is impossible, only say so."""
        self.history = self.history[-MOST_HISTORY:]
        content = {"schema": SCHEMA, **asdict(self)}
        del content["folder"]
        try:
            _make(self.folder)
            write_whole(self.folder / "state.json", to_json(content))
            if "inputs" in vars(self):
                write_whole(self.folder / "inputs.json", to_json(self.inputs))
        except OSError as error:
            message = "WARNING: cannot write %s (%s); the next run will know nothing of this one"
            logger.warning(message, error.filename or self.folder, error.strerror)


@contextmanager
def alone(root: Path, reports: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Hold a project's lock, as runs side by side would delete each other's reports.

    What a run that was killed has left half written is deleted.

    Args:
        root: The project's folder.
        reports: Its reports.
        say: Takes the words about who is waited for, and who was killed.

    Yields:
        Whether another run had to be waited for.

    Raises:
        FolderError: When there is no place for the lock.
    """
    folder = root / FOLDER
    with ExitStack() as stack:
        try:
            _make(folder)
            lock = stack.enter_context(open(folder / "lock", "a+", encoding="utf-8", opener=_open))
            waited = False
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                say(
                    f"another run (process {_holder(lock) or '?'}) works in {root}: waiting for its end"
                )
                fcntl.flock(lock, fcntl.LOCK_EX)
            if killed := _holder(lock):
                ours = (folder, reports, reports / "logs")
                swept = _sweep(*(path for path in ours if leads_into(path, root)))
                left = f"; unfinished files removed: {swept}" if swept else ""
                say(
                    f"the last run (process {killed}) was ended before its own end, and its engine "
                    f"session with it{left}"
                )
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        except OSError as error:
            raise FolderError(folder, error) from error
        try:
            yield waited
        finally:
            with suppress(OSError):  # else the next run says that this one was killed
                lock.truncate(0)


def is_held(root: Path) -> bool:
    """Return whether another run works in a project's folder, without waiting for it."""
    try:
        with (root / FOLDER / "lock").open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _holder(lock: TextIO) -> str:
    """Return the process that a lock names, if what stands there is one: the file may be a stranger's."""
    lock.seek(0)
    found = lock.read(20)
    return found if found.isdecimal() else ""


def _sweep(*folders: Path) -> int:
    """Delete what only a run that goes on has use for; nobody else runs here now."""
    left = [path for folder in folders for path in folder.glob(".*") if UNFINISHED.match(path.name)]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(left)


def _fits(value: object, form: Any) -> bool:  # noqa: ANN401 - a kind, or kinds in a list or a dict
    match form:
        case dict():
            return isinstance(value, dict) and all(
                _fits(each, kind) for kind in form.values() for each in value.values()
            )
        case list():
            return isinstance(value, list) and all(_fits(each, form[0]) for each in value)
    return isinstance(value, form)


def _make(folder: Path) -> None:
    make_private(folder)
    if not (folder / ".gitignore").exists():
        write_whole(folder / ".gitignore", "*\n")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)  # a link would have another file emptied


def to_json(content: Any) -> str:  # noqa: ANN401 - any value
    """Return readable JSON with a final newline."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
