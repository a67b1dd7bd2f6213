from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penstock.events import OutputWritten, StageFinished, StageStarted
from penstock.model import Outcome, Result
from penstock.reports.logs import MOST_KEPT, CutLogs

if TYPE_CHECKING:
    from pathlib import Path


def told(folder: Path, outcome: Outcome, *texts: str) -> Path:
    report = CutLogs(folder)
    report(StageStarted(stage="test[a=1]"))
    for text in texts:
        report(OutputWritten(stage="test[a=1]", service="", text=text))
        report(OutputWritten(stage="", service="db", text="of a service\n"))
    report(StageFinished(stage="test[a=1]", outcome=outcome))
    return folder / "logs/test[a=1].txt"


@pytest.mark.parametrize("result", [Result.CANCELLATION, Result.TIMEOUT, Result.ERROR])
def test_what_a_stage_printed_until_it_was_cut_off_is_kept(tmp_path: Path, result: Result) -> None:
    """The engine gives nothing of a command that it was told to give up."""
    log = told(tmp_path, Outcome(result=result), "one\n", "two\n")
    assert log.read_text() == "[cut off; up to here it printed]\none\ntwo\n"


@pytest.mark.parametrize(
    "outcome", [Outcome(result=Result.SUCCESS), Outcome(result=Result.TIMEOUT, exit_code=124)]
)
def test_whole_log_is_left_alone(tmp_path: Path, outcome: Outcome) -> None:
    """What came to its end has one already, or has printed for others."""
    assert not told(tmp_path, outcome, "one\n").exists()


def test_endless_output_keeps_its_end(tmp_path: Path) -> None:
    """In bounded memory, and on bounded disk."""
    texts = ["x" * MOST_KEPT] * 4 + ["the end\n"]
    log = told(tmp_path, Outcome(result=Result.CANCELLATION), *texts)
    assert log.read_text().endswith("xthe end\n")
    assert log.stat().st_size < MOST_KEPT + 100
