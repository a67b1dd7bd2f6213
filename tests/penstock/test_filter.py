"""The wrapper of commands with secrets, run by the shell of this machine as it is in a container."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from penstock.filter import DRAIN_S, MOST_SCRIPT, PIPE, RUN_FILTERED, SCRIPT, script
from tests.forms import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "pa'ss/wo+rd \"&<[*.^$]>\\é"
TOOLS = ("sh", "mkfifo", "cat", "rm", "timeout", "sleep", "printf")


@pytest.fixture
def filtered(tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a shell line behind the filter, whose pipes and script lie in a folder of the test."""
    (tmp_path / "mask").write_text(script([SECRET, "first-line\nsecond-line"]))

    def start(line: str, *, deadline: str = "20", **env: str) -> subprocess.Popen[bytes]:
        wrapper = RUN_FILTERED.replace(SCRIPT, str(tmp_path / "mask"))
        wrapper = f"penstock_deadline={deadline}; {wrapper.replace(PIPE, str(tmp_path / 'pipe'))}"
        words = ["sh", "-c", wrapper, "sh", "sh", "-c", line]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env=env or None, stdout=pipe, stderr=pipe)

    return start


def said(child: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Return the code and what was printed; the shell itself has nothing to say."""
    out, err = child.communicate(timeout=30)
    assert err == b""
    return child.returncode, out


@pytest.mark.fault(26)
def test_every_form_is_masked_before_it_leaves(
    filtered: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """Of both streams, with the exit code and all other bytes as they are."""
    printed = "\n".join([*shown(SECRET), "first-line", "second-line"])
    line = f"printf '%s\\n' {shlex.quote(printed)}; printf %s {shlex.quote(printed)} >&2; exit 7"
    code, out = said(filtered(line))
    assert code == 7
    lines = out.decode().split("\n")
    assert len(lines) == 2 * len(printed.split("\n"))
    assert lines[:2] == lines[len(lines) // 2 :][:2] == ["***", "***"]
    assert [line for line in lines if len(line) > len("eHg***KQ==")] == []  # base64's ends stay


def test_both_streams_keep_their_order(filtered: Callable[..., subprocess.Popen[bytes]]) -> None:
    """An error stands behind the step that it came from, as it does without secrets."""
    line = "for i in $(seq 200); do echo step $i; echo error $i >&2; done"
    expected = "".join(f"step {i}\nerror {i}\n" for i in range(1, 201))
    assert said(filtered(line))[1].decode() == expected


@pytest.mark.fault(23)
def test_pieces_written_one_by_one_are_masked(
    filtered: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """A line counts as a whole, however often it is written to."""
    first, second = map(shlex.quote, (SECRET[:7], SECRET[7:]))
    code, out = said(filtered(f"printf %s {first}; sleep 0.2; printf '%s\\n' {second}"))
    assert (code, out) == (0, b"***\n")


def test_bytes_that_are_no_text_come_through(
    filtered: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """NUL, no UTF-8, carriage returns, no line feed at the end."""
    assert said(filtered(r"printf 'a\000b\377\376\r\nc'"))[1] == b"a\0b\xff\xfe\r\nc"


def test_lines_come_while_the_command_runs(
    filtered: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """Each line at once: who follows a stage live must not wait for a buffer to be full."""
    child = filtered("echo one; sleep 2; echo two")
    assert child.stdout is not None
    assert child.stdout.readline() == b"one\n"
    assert child.poll() is None
    began = time.monotonic()
    assert said(child)[1] == b"two\n"
    assert time.monotonic() - began > 1


@pytest.mark.fault(41)
def test_child_that_keeps_the_output_open_holds_nobody_up(
    filtered: Callable[..., subprocess.Popen[bytes]], measured: Callable[[str], None]
) -> None:
    """What it printed until then is there, and the code is the command's."""
    began = time.monotonic()
    child = filtered("sleep 20 & echo begun; exit 3")
    assert child.wait(timeout=15) == 3
    assert time.monotonic() - began < DRAIN_S + 5
    assert child.stdout is not None
    assert child.stdout.readline() == b"begun\n"
    measured("with secrets: ends 3 s after the command, with its code and output")
    assert child.stderr is not None
    assert child.stderr.read() == b""  # the shell says nothing of what it ended
    for stream in (child.stdout, child.stderr):
        stream.close()


@pytest.mark.fault(15)
def test_last_words_after_the_deadline_are_kept(
    filtered: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """The command is interrupted, and what it prints then comes through, masked."""
    program = f"""
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print({f"bye {SECRET}"!r}), sys.exit(5)))
time.sleep(30)
"""
    code, out = said(filtered(f"exec python3 -c {shlex.quote(program)}", deadline="1"))
    assert (code, out.decode()) == (124, "bye ***\n")


def test_without_sed_nothing_is_shown(
    filtered: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """An image that cannot mask keeps its output to itself, and says so; the code is kept."""
    for name in TOOLS:
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    code, out = said(filtered(f"echo {shlex.quote(SECRET)}; exit 4", PATH=str(tmp_path)))
    assert code == 4
    assert out.startswith(b"[not shown: ")
    assert SECRET.encode() not in out


def test_without_a_place_for_pipes_nothing_is_shown(
    filtered: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """The command runs all the same."""
    (tmp_path / "pipe").touch()
    code, out = said(filtered(f"echo {shlex.quote(SECRET)}; exit 4"))
    assert code == 4
    assert out.startswith(b"[not shown: ")
    assert SECRET.encode() not in out


def test_no_secret_needs_no_filter() -> None:
    """One too short to be masked is none here either."""
    assert script([]) == script(["short"]) == ""


def test_script_stays_within_what_the_engine_takes() -> None:
    """Of secrets that are too long only the shorter forms are masked in the container."""
    made = script(["+/" * 20_000, "hunter2-hunter2"])
    assert len(made) < MOST_SCRIPT
    assert "hunter2-hunter2" in made
