"""What a command is refused before the engine is asked, and what is kept of its output."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from penstock import Command, Report
from penstock.command import (
    MOST_LINE,
    MOST_TAIL,
    TAIL_LINES,
    Commands,
    Try,
    printed,
    tail,
)
from penstock.config import RunInfo
from penstock.folder import file_name
from penstock.model import Result, Stage
from penstock.redact import Redactor
from penstock.state import State

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "path", ["run.json", "./index.html", "events.jsonl/x", "junit-all.xml", "logs", "logs/a.txt"]
)
async def test_report_never_takes_the_place_of_what_the_run_writes(
    tmp_path: Path, path: str
) -> None:
    """However it is spelled; the logs of all stages lie in a folder."""
    nothing: Any = None  # of the engine is asked
    run = RunInfo(id="0f", root=tmp_path, commit="", branch="")
    commands = Commands(run, nothing, State(tmp_path), Redactor(), nothing)
    box: Any = SimpleNamespace(with_exec=None)
    command = Command(box, "make", reports=[Report(path)])
    outcome = await commands.execute(command, Try(Stage(name="a"), 1, 1.0))
    assert outcome.result is Result.FAILURE
    assert outcome.reason == (
        f"'{path}' is where the run itself writes; give the report another path"
    )


def test_end_of_an_output_is_kept() -> None:
    """The last lines, without the blank ones behind them; of an endless one the last characters."""
    lines = [f"line {number}" for number in range(100)]
    assert tail("\n".join(lines) + "\n\n").split("\n") == lines[-TAIL_LINES:]
    assert tail("a" + "x" * MOST_TAIL) == "x" * MOST_TAIL


def test_command_stands_above_its_output() -> None:
    """As one would type it."""
    assert printed(["echo", "a b"], "a b\n") == "$ echo 'a b'\na b"


def test_name_of_a_stage_can_be_a_file() -> None:
    """Cells stay readable, and nothing leads elsewhere."""
    assert file_name("test[python=3.12,os=a/b]") == "test[python=3.12,os=a-b]"


def test_log_of_a_stage_by_any_name_can_be_written(tmp_path: Path) -> None:
    """A name that is too long for a file is cut, and is still told from its neighbours."""
    names = ["test[db=" + 3000 * "ü" + end for end in "ab"]
    files = [tmp_path / f"{file_name(name)}.attempt-10.txt" for name in names]
    for file in files:
        file.touch()
    assert len(set(files)) == 2
    assert file_name("test[db=15]") == "test[db=15]"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"line": ["echo", "x" * 2_000_000]}, "'xxxxxxxxxxxxxxxxxxxx...' is longer than 131,071"),
        ({"line": "true", "env": {"BIG": "x" * 2_000_000}}, "'BIG' is longer than 131,071"),
    ],
)
def test_argument_that_no_program_takes_is_refused(given: dict[str, Any], words: str) -> None:
    """In the author's own line, before the engine is asked."""
    box: Any = SimpleNamespace(with_exec=None)
    with pytest.raises(ValueError, match=words):
        Command(box, **given)


def test_long_command_is_not_repeated_whole() -> None:
    """What is shown above the output is its beginning."""
    assert len(printed(["echo", "x" * 100_000], "done")) < MOST_LINE + 20
