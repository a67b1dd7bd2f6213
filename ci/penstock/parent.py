"""`dagger run` above us: found, watched, and ended where it would hang."""

from __future__ import annotations

import os
import signal
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

SHOWN_S = 0.3  # what it takes `dagger run` to show what was printed last
END_S = 1.0
PROCESSES = Path("/proc")


def dagger_run() -> int | None:
    """Return the process id of the `dagger run` that this program runs below, if there is one."""
    pid = os.getpid()
    while pid > 1:
        try:
            pid = int(_status(pid)[1])
            words = (PROCESSES / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:  # another system, or somebody else's process
            return None
        if b"run" in words and Path(os.fsdecode(words[0])).name == "dagger":
            return pid
    return None


def is_stopped(pid: int) -> bool:
    """Return whether a process stands still, by Ctrl-Z say."""
    try:
        return _status(pid)[0] == "T"
    except OSError:
        return False


def end(pid: int, words: str) -> None:
    """End `dagger run`, which would wait for ever for an engine that is lost, before we end.

    It shows what its child printed only with some delay, and nothing of that once it is ended; its
    own screen it leaves as it is.

    Args:
        pid: Of `dagger run`.
        words: What is said where it spoke.
    """
    time.sleep(SHOWN_S)
    with suppress(OSError), _screen_of(pid) as screen:
        if not screen.isatty():  # there nothing of it is wiped out
            print(words, file=screen, flush=True)
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.kill(pid, number)
            until = time.monotonic() + END_S
            while time.monotonic() < until and _is_alive(pid):
                time.sleep(0.02)
            if not _is_alive(pid):
                break
        if screen.isatty():
            _tidy(screen)
            print(f"\n{words}", file=screen, flush=True)


def _screen_of(pid: int) -> TextIO:
    """Return where a process writes its errors, to write behind what stands there."""
    return os.fdopen(os.open(PROCESSES / str(pid) / "fd" / "2", os.O_WRONLY | os.O_APPEND), "w")


def _tidy(screen: TextIO) -> None:
    """Have a terminal echo and end lines again, show its cursor, and leave its second page."""
    mode = termios.tcgetattr(screen)
    mode[0] |= termios.ICRNL
    mode[1] |= termios.OPOST
    mode[3] |= termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN
    termios.tcsetattr(screen, termios.TCSANOW, mode)
    screen.write("\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1006l\x1b[?2004l\x1b[?25h")


def _is_alive(pid: int) -> bool:
    try:
        return _status(pid)[0] not in "ZX"
    except OSError:
        return False


def _status(pid: int) -> list[str]:
    """Return a process's state, its parent and what follows; its name may hold anything."""
    return (PROCESSES / str(pid) / "stat").read_text().rpartition(") ")[2].split()
