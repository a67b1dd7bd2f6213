"""What the tool remembers between calls: durations, and what it made and must remove."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine import place, screen

if TYPE_CHECKING:
    from collections.abc import Iterator

_writing = threading.Lock()


def read() -> dict[str, Any]:
    """Return all that is remembered; a broken file counts as nothing."""
    try:
        content = json.loads((place.home() / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(**facts: Any) -> None:  # noqa: ANN401 - any JSON value
    """Add facts."""
    with _writing:
        _write(read() | facts)


def _write(content: dict[str, Any]) -> None:
    place.write_whole(place.home() / "state.json", json.dumps(content, indent=2) + "\n")


def add(key: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
    """Add facts to one of the remembered tables; steps do so side by side."""
    with _writing:
        content = read()
        content[key] = content.get(key, {}) | facts
        _write(content)


def stamp(name: str) -> str:
    """Return what a step left when it was done, or an empty string."""
    try:
        return (place.home() / "stamps" / name).read_text()
    except OSError:
        return ""


def set_stamp(name: str, value: str) -> None:
    """Note that a step is done for these inputs."""
    place.write_whole(place.home() / "stamps" / name, value)


@contextmanager
def alone() -> Iterator[None]:
    """Hold the machine's lock; wait, visibly, while another call of this tool works."""
    place.home().mkdir(parents=True, exist_ok=True)
    with (place.home() / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            screen.say(
                f"another `python3 -m ci` is at work (process {lock.read() or '?'}): waiting"
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
