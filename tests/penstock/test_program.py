"""`penstock report`: what a run left, made again from its events alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from penstock.__main__ import main
from penstock.events import RunFinished, RunStarted, StageFinished, StageStarted, to_dict
from penstock.model import Outcome, Result, Stage
from penstock.replay import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STAGES = (Stage(name="lint", title="Lint"), Stage(name="test", title="Test", needs=("lint",)))
STARTED = RunStarted(
    pipeline="demo",
    run_id="0f",
    commit="0123456789abcdef",
    started_at="2026-11-25T01:00:00.000+00:00",
    stages=STAGES,
    reproduce="python ci/main.py",
)
EVENTS = [
    STARTED,
    StageStarted(stage="lint", at_s=0.1),
    StageFinished(stage="lint", at_s=1.0, outcome=Outcome(result=Result.SUCCESS)),
    StageStarted(stage="test", at_s=1.0),
    StageFinished(
        stage="test", at_s=2.0, outcome=Outcome(result=Result.FAILURE, reason="exit code 1")
    ),
    RunFinished(at_s=2.0, result=Result.FAILURE, reason="", exit_code=1, duration_s=2, root="test"),
]
MADE = {"events.jsonl", "index.html", "junit.xml", "run.json"}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The events of a run that failed."""
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(to_dict(event)) + "\n" for event in EVENTS))
    return path


def test_reports_are_made_again(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the events, with the words on the terminal and the exit code of the run."""
    assert main(["report", str(record)]) == 1
    assert {path.name for path in record.parent.iterdir()} == MADE
    assert "PIPELINE STOPPED" in capsys.readouterr().out
    assert json.loads((record.parent / "run.json").read_text())["result"] == "failure"


def test_reports_are_made_elsewhere_and_silently(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is made, and the record is left alone."""
    before = record.read_bytes()
    assert main(["report", "-q", "--into", str(record.parent / "a/b"), str(record)]) == 1
    assert {path.name for path in (record.parent / "a/b").iterdir()} == MADE - {"events.jsonl"}
    assert capsys.readouterr().out == ""
    assert record.read_bytes() == before


@pytest.mark.parametrize("lines", range(1, len(EVENTS)))
def test_run_that_was_killed_has_reports(record: Path, lines: int) -> None:
    """Wherever it was, half a line included: an error, with all that is known."""
    kept = record.read_text().splitlines(keepends=True)
    record.write_text("".join(kept[:lines]) + kept[lines][: len(kept[lines]) // 2])
    assert main(["report", str(record)]) == 4
    run = json.loads((record.parent / "run.json").read_text())
    assert (run["result"], run["exit_code"]) == ("error", 4)
    assert "was killed" in (record.parent / "index.html").read_text()


@pytest.mark.fault(40)
def test_record_cut_anywhere_is_shown_or_refused_in_words(
    record: Path, capsys: pytest.CaptureFixture[str], measured: Callable[[str], None]
) -> None:
    """After each byte it holds what was whole; at each line's end that is shown, or refused."""
    whole = record.read_bytes()
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole)):
        record.write_bytes(whole[:length])
        assert list(read(record)) == EVENTS[: sum(end <= length for end in ends)]
    for length in (0, 1, *(end + beyond for end in ends[:-1] for beyond in (-1, 0, 1))):
        record.write_bytes(whole[:length])
        code = main(["report", "-q", str(record)])
        assert code == (2 if length < ends[0] else 4)
        assert capsys.readouterr().err.startswith("error: " if code == 2 else "")
    measured("cut after each byte, a record has the reports of what it holds, or one sentence")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("", "events.jsonl holds no event of a run"),
        ("\xff\xfe\0", "events.jsonl holds no event of a run"),
        ("{}\n{}\n", "events.jsonl:1: no event of penstock.events/1"),
        (json.dumps(to_dict(EVENTS[1])) + "\n\n", "does not begin with a run's start"),
    ],
)
def test_what_is_no_record_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    """With the place, and without half of a report."""
    path = tmp_path / "events.jsonl"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    assert main(["report", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert {found.name for found in tmp_path.iterdir()} <= {"events.jsonl"}


def test_folder_that_cannot_be_written_is_an_error(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named, with the reason."""
    assert main(["report", "--into", str(record / "x"), str(record)]) == 2
    assert str(record / "x") in capsys.readouterr().err
