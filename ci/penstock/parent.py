"""`dagger run` above us: found, watched, and ended where it would hang."""

from __future__ import annotations

import os
import signal
import termios
import time
from contextlib import suppress
from pathlib import Path

SHOWN_S = 0.3  # what it takes `dagger run` to show what was printed last
END_S = 1.0
PROCESSES = Path("/proc")
# Leaves a terminal's second page, has it report no mouse, and shows its cursor.
RESET = "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1006l\x1b[?2004l\x1b[?25h"
LOOPBACK, LISTENS = "0100007F", "0A"  # as `/proc/net/tcp` writes 127.0.0.1 and the state


def dagger_run() -> int | None:
    """Return the process above this one that holds the session which the environment names.

    That is `dagger run`, or what else opened a session for its child. Nobody is found on systems
    without `/proc`.
    """
    port = os.environ.get("DAGGER_SESSION_PORT", "")
    pid = os.getpid() if port.isdecimal() else 0
    try:
        doors = _doors(int(port)) if pid else set()
        while pid > 1:
            pid = int(_status(pid)[1])
            files = (PROCESSES / str(pid) / "fd").iterdir()
            if any(str(file.readlink()) in doors for file in files):
                return pid
    except (OSError, ValueError):  # another system, or somebody else's process
        pass
    return None


def _doors(port: int) -> set[str]:
    """Return the sockets that listen on a port of the loopback, as `/proc` calls them."""
    table = (PROCESSES / "net" / "tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in table]
    return {
        f"socket:[{row[9]}]"
        for row in rows
        if row[1] == f"{LOOPBACK}:{port:04X}" and row[3] == LISTENS
    }


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
    screen = _screen_of(pid)
    terminal = screen if screen is not None and os.isatty(screen) else None
    if terminal is None:  # there nothing of it is wiped out
        _print(words, screen)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.kill(pid, number)
        until = time.monotonic() + END_S
        while time.monotonic() < until and _is_alive(pid):
            time.sleep(0.02)
        if not _is_alive(pid):
            break
    if terminal is not None:
        _tidy(terminal)
        _print(f"{RESET}\n{words}", terminal)
    if screen is not None:
        os.close(screen)


def _screen_of(pid: int) -> int | None:
    """Return where a process writes its errors, to write behind what stands there."""
    how = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
    with suppress(OSError):
        return os.open(PROCESSES / str(pid) / "fd" / "2", how)
    return None


def _print(words: str, screen: int | None) -> None:
    """Say something where somebody listens; nobody is waited for."""
    if screen is not None:
        with suppress(OSError):
            os.write(screen, f"{words}\n".encode())


def _tidy(screen: int) -> None:
    """Have a terminal echo and end lines again."""
    mode = termios.tcgetattr(screen)
    mode[0] |= termios.ICRNL
    mode[1] |= termios.OPOST
    mode[3] |= termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN
    termios.tcsetattr(screen, termios.TCSANOW, mode)


def _is_alive(pid: int) -> bool:
    try:
        return _status(pid)[0] not in "ZX"
    except OSError:
        return False


def _status(pid: int) -> list[str]:
    """Return a process's state, its parent and what follows; its name may hold anything."""
    stat = (PROCESSES / str(pid) / "stat").read_bytes()
    return stat.rpartition(b") ")[2].decode().split()
