"""Ends what holds the event loop up: an author's code that blocks, a task that will not end.

The loop hears of a signal, and of a deadline, only when it gets to run. An alarm of the system's
interrupts whatever the main thread does in its place.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

HOLD_S = 30.0  # how long code that blocks may hold up all others
SIGNALLED_S = 1.0  # how long once somebody wants the run to end
LEAVE_S = 2.0  # what tasks get that the author's code left behind
BEAT_S = 1.0

F = TypeVar("F", bound="Callable[..., object]")
_interruptible: set[CodeType] = set()


class StuckError(BaseException):
    """Raised in the middle of whatever blocks; no `except Exception` keeps it."""


def interruptible(function: F) -> F:
    """Mark a function: what runs below it may be interrupted by an alarm."""
    _interruptible.add(function.__code__)
    return function


@contextmanager
def watched() -> Iterator[None]:
    """Have alarms interrupt what is interruptible, and forget them in the end."""
    before = signal.signal(signal.SIGALRM, _ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def keep_quiet() -> None:
    """Put the alarm off as long as the loop runs."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, HOLD_S, BEAT_S)
        await anyio.sleep(BEAT_S)


def hurry(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal beside the loop, which may not run: interrupt soon what blocks it."""
    signal.setitimer(signal.ITIMER_REAL, SIGNALLED_S, BEAT_S)


def leave() -> None:
    """Have nothing waited for any more: all is done, and only what was left behind still runs."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise StuckError

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LEAVE_S, BEAT_S)


def has_threads() -> bool:
    """Return whether threads of the author's still run, for which Python would wait at its end."""
    end = time.monotonic() + LEAVE_S
    mine = (threading.main_thread(), threading.current_thread())
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread not in mine]
    for thread in left:
        thread.join(max(0.0, end - time.monotonic()))
    return any(thread.is_alive() for thread in left)


def is_program(file: Path) -> bool:
    """Return whether it is this file that was started, and nothing comes after its end."""
    started = getattr(sys.modules["__main__"], "__file__", None)
    return started is not None and Path(started).resolve() == file


def _ring(_number: int, frame: FrameType | None) -> None:
    while frame:
        if frame.f_code in _interruptible:
            raise StuckError
        frame = frame.f_back
    # It is not the author's code: this program was stopped by Ctrl-Z, say.
    signal.setitimer(signal.ITIMER_REAL, SIGNALLED_S, BEAT_S)
