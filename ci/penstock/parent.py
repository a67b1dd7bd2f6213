"""`dagger run` above us: found, watched, and ended where it would hang."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

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


def end(pid: int) -> None:
    """End `dagger run`, which would wait for ever for an engine that is lost, before we end.

    It shows what its child printed only with some delay, and nothing of that once it is ended.
    """
    time.sleep(SHOWN_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.kill(pid, number)
            until = time.monotonic() + END_S
            while time.monotonic() < until and _status(pid)[0] not in "ZX":
                time.sleep(0.02)


def _status(pid: int) -> list[str]:
    """Return a process's state, its parent and what follows; its name may hold anything."""
    return (PROCESSES / str(pid) / "stat").read_text().rpartition(") ")[2].split()
