from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penstock.state import Passed, State, write_whole

if TYPE_CHECKING:
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


def test_write_whole_leaves_nothing_beside(tmp_path: Path) -> None:
    """The temporary file has become the file."""
    write_whole(tmp_path / "a.txt", "one")
    write_whole(tmp_path / "a.txt", "two")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "two")]
