"""What a command is refused before the engine is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from penstock import Command, Report
from penstock.command import Commands, Try
from penstock.config import RunInfo
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
    command = Command(nothing, "make", reports=[Report(path)])
    outcome = await commands.execute(command, Try(Stage(name="a"), 1, 1.0))
    assert outcome.result is Result.FAILURE
    assert outcome.reason == (
        f"'{path}' is where the run itself writes; give the report another path"
    )
