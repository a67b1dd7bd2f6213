"""Where in the author's files something stands: every message about a definition begins with it."""

from __future__ import annotations

import functools
import inspect
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

LOADED_AT = time.time()  # the author's file was read before it imported us
_OWN_FOLDER = str(Path(__file__).parent)


def place_of(function: Any) -> str:  # noqa: ANN401 - whatever an author decorates
    """Return `file:line` of a function's first decorator, or of what was decorated instead of one."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        frame = _calling_frame()
        return f"{_shown(frame.f_code.co_filename)}:{frame.f_lineno}"
    return f"{_shown(code.co_filename)}:{code.co_firstlineno}"


def calling_file() -> Path:
    """Return the file of the nearest caller outside penstock."""
    return Path(_calling_frame().f_code.co_filename).resolve()


def project_root(file: Path) -> Path:
    """Return the nearest folder above a file that holds `pyproject.toml` or `.git`, or its own."""
    marks = ("pyproject.toml", ".git")
    roots = (folder for folder in file.parents if any((folder / mark).exists() for mark in marks))
    return next(roots, file.parent)


def _calling_frame() -> FrameType:
    frame = sys._getframe(1)  # noqa: SLF001 - inspect.stack reads every source file
    while frame.f_back and not _is_authors(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


@functools.cache
def _is_authors(file: str) -> bool:
    return not file.startswith((_OWN_FOLDER, "<")) and Path(file).exists()


@functools.cache
def _shown(file: str) -> str:
    """Return a file's name relative to the current folder if it lies below it."""
    with suppress(OSError, ValueError):  # the current folder is gone, or another one
        return str(Path(file).relative_to(Path.cwd()))
    return file
