"""Ends what holds the event loop up: an author's code that blocks, a task that will not end.

The loop hears of a signal, and of a deadline, only when it gets to run. An alarm of the system's
interrupts whatever the main thread does in its place.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import sysconfig
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from penstock.errors import SIGNALLED_CODE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

HOLD_S = 30.0  # how long code that blocks may hold up all others
SIGNALLED_S = 2.0  # how long once somebody wants the run to end
LEAVE_S = 2.0  # what tasks get that the author's code left behind
BEAT_S = 1.0
SAME_S = 1.0

_LIBRARIES = tuple(
    {str(Path(sysconfig.get_path(name))) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).parent), "<"}
)
_step = asyncio.Handle._run.__code__  # noqa: SLF001 - where the loop gives way to a task
_signals: list[tuple[int, float]] = []  # and when each came


class StuckError(BaseException):
    """Raised in the middle of whatever blocks; no `except Exception` keeps it."""


@contextmanager
def watched() -> Iterator[None]:
    """Have alarms interrupt what is interruptible, and forget them in the end."""
    _signals.clear()
    before = signal.signal(signal.SIGALRM, _ring)
    timer = signal.getitimer(signal.ITIMER_REAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)  # of whoever called us
        signal.signal(signal.SIGALRM, before)


async def keep_quiet() -> None:
    """Put the alarm off as long as the loop runs."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, SIGNALLED_S if _signals else HOLD_S, BEAT_S)
        await anyio.sleep(BEAT_S)


def hurry(number: int, _frame: FrameType | None) -> None:
    """Handle a signal beside the loop, which may not run: interrupt soon what blocks it.

    The second one ends the process at once; the engine's session ends with it, as that reads our
    end of a pipe. Another signal at the same moment is none: `dagger run` sends a SIGTERM behind the
    terminal's SIGINT.
    """
    now = time.monotonic()
    if any(number == before or now - at > SAME_S for before, at in _signals):
        os._exit(SIGNALLED_CODE + number)
    _signals.append((number, now))
    signal.setitimer(signal.ITIMER_REAL, SIGNALLED_S, BEAT_S)


def leave() -> None:
    """Have nothing waited for any more: all is done, and only what was left behind still runs."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise StuckError

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LEAVE_S, BEAT_S)


def threads() -> set[threading.Thread]:
    """Return those for whose end Python waits."""
    return {thread for thread in threading.enumerate() if not thread.daemon}


def wait_for_none(before: set[threading.Thread], code: int) -> bool:
    """Return whether threads that began since will not end, and have Python not wait for them.

    Args:
        before: Those that are none of a stage's.
        code: With which the process then ends, once all else at its end is done.
    """
    end = time.monotonic() + LEAVE_S
    left = threads() - before - {threading.current_thread()}
    for thread in left:
        thread.join(max(0.0, end - time.monotonic()))
    if not any(thread.is_alive() for thread in left):
        return False

    def leave_them() -> None:
        atexit._run_exitfuncs()  # noqa: SLF001 - nobody else comes to that now
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)

    # The only place at Python's end that comes before it waits for threads; where there is no such
    # place any more, it waits.
    getattr(threading, "_register_atexit", lambda _: None)(leave_them)
    return True


def _ring(_number: int, frame: FrameType | None) -> None:
    is_authors = False
    while frame:
        if frame.f_code is _step and is_authors:
            raise StuckError
        is_authors = is_authors or not frame.f_code.co_filename.startswith(_LIBRARIES)
        frame = frame.f_back
    # No task runs an author's code: this program was stopped by Ctrl-Z, say. The alarm comes again.
