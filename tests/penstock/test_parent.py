from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from penstock import parent

if TYPE_CHECKING:
    from collections.abc import Iterator

ASK = "from penstock.parent import dagger_run; print(dagger_run())"


@pytest.fixture
def door() -> Iterator[socket.socket]:
    """A port of the loopback that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def asked(**env: str) -> str:
    words = ["sh", "-c", f"{sys.executable} -c '{ASK}'; :"]
    path = {"PYTHONPATH": str(Path(parent.__file__).parents[1])}
    done = subprocess.run(
        words, env=os.environ | path | env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(not parent.PROCESSES.exists(), reason="found by /proc only")
def test_holder_of_the_session_is_found_among_those_above(door: socket.socket) -> None:
    """Also where a shell stands between, and by what it holds, not by what it is called."""
    assert asked(DAGGER_SESSION_PORT=str(door.getsockname()[1])) == str(os.getpid())


@pytest.mark.parametrize("port", ["", "1", "x"])
def test_nobody_else_is_taken_for_it(port: str) -> None:
    """Without a session above, or with one that nobody above holds, there is nobody to end."""
    assert asked(DAGGER_SESSION_PORT=port) == "None"


@pytest.mark.parametrize("kind", ["socket", "broken pipe", "full pipe", "null"])
def test_process_above_is_ended_wherever_it_writes(kind: str) -> None:
    """Where nothing can be said, it is not said, and nobody waits for a reader."""
    read, write = os.pipe()
    ours, theirs = socket.socketpair()
    if kind == "full pipe":
        os.set_blocking(write, False)
        with suppress(BlockingIOError):
            while os.write(write, b"x" * 65536):
                pass
        os.set_blocking(write, True)
    where = {"socket": theirs.fileno(), "null": subprocess.DEVNULL}.get(kind, write)
    child = subprocess.Popen(["sleep", "60"], stderr=where)
    if kind == "broken pipe":
        os.close(read)
    began = time.monotonic()
    parent.end(child.pid, "words")
    assert time.monotonic() - began < 5
    assert child.wait(1) == -15
    for one in (ours, theirs):
        one.close()
    os.close(write)
    if kind != "broken pipe":
        os.close(read)
