from __future__ import annotations

import json
import os
import resource
import threading
from typing import TYPE_CHECKING

import pytest

from penstock.errors import FolderError
from penstock.folder import write_whole
from penstock.state import Passed, State, alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    """What one run saves the next one reads."""
    state = State.load(tmp_path)
    state.passed["lint"] = Passed("definition", "again")
    state.rehearsed["image"] = ["localhost:5000/x:1"]
    state.durations_s["lint"] = 1.5
    state.images["lint"] = ["python:3.11-slim"]
    state.failed = ["test"]
    state.save()
    assert State.load(tmp_path) == state
    assert (tmp_path / ".penstock/.gitignore").read_text() == "*\n"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 99}', '{"schema": 2, "passed": 3}'])
def test_broken_state_is_forgotten(tmp_path: Path, content: str) -> None:
    """A truncated or foreign file costs time and never a run."""
    (tmp_path / ".penstock").mkdir()
    (tmp_path / ".penstock/state.json").write_text(content)
    assert State.load(tmp_path).passed == {}


@pytest.mark.parametrize(
    "content",
    [
        {"history": 7},
        {"history": [["x"]]},
        {"durations_s": {"lint": "long"}},
        {"images": {"lint": 3}},
        {"rehearsed": []},
        {"failed": "lint"},
        {"images": None},
        {"passed": {"lint": {"definition": 5}}},
        {"folder": "/etc"},
        {"anything": "else"},
    ],
)
def test_memory_of_another_form_counts_as_forgotten(
    tmp_path: Path, content: dict[str, object]
) -> None:
    """Whoever wrote it: it is checked in by a stranger, say."""
    (tmp_path / ".penstock").mkdir()
    whole = {"schema": 2, "passed": {}, "durations_s": {"test": 1}, "failed": None}
    (tmp_path / ".penstock/state.json").write_text(json.dumps(whole))
    assert State.load(tmp_path).durations_s == {"test": 1}
    (tmp_path / ".penstock/state.json").write_text(json.dumps(whole | content))
    assert State.load(tmp_path) == State(tmp_path / ".penstock")


def test_write_whole_leaves_nothing_beside(tmp_path: Path) -> None:
    """The temporary file has become the file."""
    write_whole(tmp_path / "a.txt", "one")
    write_whole(tmp_path / "a.txt", "two")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "two")]


def test_write_whole_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """A full disk costs the new content, not the old, and leaves no temporary file."""
    write_whole(tmp_path / "a.txt", "one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))  # a small disk, for this process
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(tmp_path / "a.txt", "two")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "one")]


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    """The bytes of a file's name come back from JSON as Python has them."""
    write_whole(tmp_path / "a.json", json.dumps("Gr\udcf6\udcdfe", ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text()) == "Gr\udcf6\udcdfe"


def test_state_that_cannot_be_saved_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs the next run time, and this one nothing."""
    (tmp_path / ".penstock").write_text("a file")
    State.load(tmp_path).save()
    assert f"WARNING: cannot write {tmp_path}/.penstock (File exists)" in caplog.text


def test_lock_without_a_place_is_the_users_to_mend(tmp_path: Path) -> None:
    """The error names the folder."""
    (tmp_path / ".penstock").write_text("a file")
    with (
        pytest.raises(FolderError, match=r"\.penstock: it is no folder"),
        alone(tmp_path, tmp_path / "reports", print),
    ):
        pass


def test_lock_keeps_others_waiting_who_are_told_for_whom(tmp_path: Path) -> None:
    """The second enters when the first has left, and knows that it waited."""
    said: list[str] = []
    is_told, order = threading.Event(), []

    def say(words: str) -> None:
        said.append(words)
        is_told.set()

    def enter() -> None:
        with alone(tmp_path, tmp_path / "reports", say) as waited:
            order.append(f"second, waited: {waited}")

    second = threading.Thread(target=enter)
    with alone(tmp_path, tmp_path / "reports", say) as waited:
        second.start()
        assert is_told.wait(10)
        order.append(f"first, waited: {waited}")
    second.join(10)
    assert order == ["first, waited: False", "second, waited: True"]
    assert said == [f"another run (process {os.getpid()}) works in {tmp_path}: waiting for its end"]


@pytest.mark.fault(40)
@pytest.mark.parametrize("name", ["state.json", "inputs.json", "lock"])
def test_memory_cut_anywhere_is_forgotten_and_written_anew(
    tmp_path: Path, name: str, measured: Callable[[str], None]
) -> None:
    """After each byte: the next run has all of it or none, and leaves it whole."""
    folder = tmp_path / ".penstock"
    state = State.load(tmp_path)
    state.passed["lint"] = Passed("dé", "again")
    state.durations_s["lint"] = 1.5
    state.failed = ["test"]
    state.history = [{"started_at": "2026-11-25", "result": "failure", "duration_s": 1.5}]
    state.inputs["lint"] = {"file app/é.py": "0f"}
    state.save()
    (folder / "lock").write_text("4711")
    whole = (folder / name).read_bytes()
    for length in range(len(whole)):
        (folder / name).write_bytes(whole[:length])
        said: list[str] = []
        with alone(tmp_path, tmp_path / "reports", said.append) as waited:
            assert not waited
            left = State.load(tmp_path)
            assert left in (State(folder), state)
            assert left.inputs in ({}, state.inputs)
            assert all("was ended before its own end" in words for words in said)
            state.save()
        assert State.load(tmp_path) == state
        assert State.load(tmp_path).inputs == state.inputs
        assert (folder / "lock").read_text() == ""
    measured("cut after each byte, a memory is whole or forgotten, and the next run writes it anew")


def test_run_that_raised_was_not_killed(tmp_path: Path) -> None:
    """Whatever ends it, it ended by itself, and the next one says nothing of it."""
    said: list[str] = []
    reports = tmp_path / "reports"
    for error in (OSError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), alone(tmp_path, reports, said.append):
            raise error
    with alone(tmp_path, reports, said.append):
        pass
    assert said == []
