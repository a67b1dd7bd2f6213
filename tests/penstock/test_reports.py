from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING

from penstock.events import (
    EngineConnected,
    Event,
    EventStream,
    RunFinished,
    RunStarted,
    ServiceFailed,
    ServicePrepared,
    ServiceStarted,
    StageFinished,
    StageStarted,
    Warned,
)
from penstock.model import Artifact, Outcome, Result, Stage
from penstock.redact import Redactor
from penstock.reports.console import ConsoleReport
from penstock.reports.record import Record

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PLANS = (
    Stage(name="lint", title="Lint with ruff"),
    Stage(name="test", title="Run pytest with coverage", needs=("lint",)),
    Stage(name="build", title="Build the image", needs=("test",)),
)
START = RunStarted(
    pipeline="p",
    run_id="1",
    commit="c",
    started_at="t",
    stages=PLANS,
    reproduce="python ci/main.py",
)
GREEN: list[Event] = [
    START,
    EngineConnected(version="v0.21.8", duration_s=0.5),
    StageStarted(stage="lint"),
    StageFinished(
        stage="lint", outcome=Outcome(result=Result.SUCCESS, duration_s=0.3, cached=True)
    ),
    ServicePrepared(service="postgres", what="Create database schema", duration_s=1.0),
    ServiceStarted(service="postgres", duration_s=0.9),
    StageFinished(
        stage="test",
        outcome=Outcome(
            result=Result.SUCCESS,
            duration_s=3.0,
            notes=("8 passed, coverage 85% >= 80% threshold",),
            artifacts=(Artifact("coverage.xml", 10), Artifact("logs/test.txt", 3)),
        ),
    ),
    StageFinished(stage="build", outcome=Outcome(result=Result.SUCCESS, duration_s=1.1)),
    RunFinished(result=Result.SUCCESS, reason="", exit_code=0, duration_s=4.9),
]
RED: list[Event] = [
    START,
    Warned(message="look here"),
    ServiceFailed(service="redis", what="health check", reason="never became healthy"),
    StageFinished(
        stage="lint",
        outcome=Outcome(
            result=Result.FAILURE,
            reason="exit code 1",
            duration_s=0.3,
            output="$ ruff check\nF401 unused",
            findings=("app/main.py:3: unused",),
        ),
    ),
    StageFinished(
        stage="test", outcome=Outcome(result=Result.CANCELLATION, reason="because lint failed")
    ),
    StageFinished(stage="build", outcome=Outcome(result=Result.SKIP, reason="because lint failed")),
    RunFinished(
        result=Result.FAILURE, reason="exit code 1", root="lint", exit_code=1, duration_s=2.0
    ),
]


def shown(events: list[Event], encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    report = ConsoleReport(stream)
    for event in events:
        report(event)
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


def test_green_run_reads_as_promised() -> None:
    """The words on screen are those of the design."""
    assert shown(GREEN) == [
        "Lint with ruff .......................... PASSED (cached) ✓   0.3 s",
        "postgres: started, health check passed ✓  0.9 s      Create database schema ... DONE",
        "Run pytest with coverage ................ PASSED ✓   3.0 s",
        "  8 passed, coverage 85% >= 80% threshold",
        "Build the image ......................... PASSED ✓   1.1 s",
        "All stages passed ✓   4.9 s   report: reports/run.json",
    ]


def test_red_run_tells_what_failed_last() -> None:
    """Skips name the culprit; the failing output, its places and the next step come last."""
    assert shown(RED) == [
        "WARNING: look here",
        "redis: health check ... FAILED ✗",
        "  never became healthy",
        "Lint with ruff .......................... FAILED ✗ (exit code 1)   0.3 s",
        "Run pytest with coverage: CANCELLED (because lint failed)",
        "Build the image: SKIPPED (because lint failed)",
        "",
        "Lint with ruff: FAILED (exit code 1)",
        "  | $ ruff check",
        "  | F401 unused",
        "  app/main.py:3: unused",
        "",
        "PIPELINE STOPPED ✗   2.0 s   report: reports/run.json",
        "reproduce: python ci/main.py --only lint",
    ]


def test_interrupted_run_says_so() -> None:
    """With no stage at fault the reason stands beside the verdict."""
    end = RunFinished(
        result=Result.CANCELLATION, reason="interrupted by SIGINT", exit_code=130, duration_s=1.0
    )
    assert "PIPELINE STOPPED ✗ (interrupted by SIGINT)" in shown([START, end])[-1]


def test_terminal_without_unicode_gets_words_only() -> None:
    """An ASCII terminal shows no broken marks."""
    lines = shown(GREEN, "ascii")
    assert lines[-1] == "All stages passed   4.9 s   report: reports/run.json"


def test_untrusted_output_is_no_markup() -> None:
    """Brackets in a test's output are printed as they are."""
    events = [
        START,
        StageFinished(
            stage="lint", outcome=Outcome(result=Result.FAILURE, reason="x", output="[bold]a[/]")
        ),
        RED[-1],
    ]
    assert "  | [bold]a[/]" in shown(events)


def test_record_holds_the_run(tmp_path: Path) -> None:
    """`run.json` has the verdict and each stage's result, reason, duration and artifacts."""
    record = Record(tmp_path)
    for event in GREEN:
        record(event)
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["schema"], run["result"], run["exit_code"]) == ("penstock.run/1", "success", 0)
    assert run["services"] == [{"name": "postgres", "result": "success", "ready_s": 0.9}]
    test = run["stages"][1]
    assert test["artifacts"][0] == {"path": "coverage.xml", "size_bytes": 10}
    assert {"name", "result", "reason", "duration_s", "artifacts"} <= set(test)


def test_events_are_one_json_object_a_line(tmp_path: Path) -> None:
    """Each event is a line with its schema and kind, in order."""
    record = Record(tmp_path)
    for event in RED:
        record(event)
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        "run_started",
        "warned",
        "service_failed",
        *["stage_finished"] * 3,
        "run_finished",
    ]
    assert lines[3]["outcome"]["result"] == "failure"


def test_next_run_removes_what_the_last_one_left_and_nothing_else(tmp_path: Path) -> None:
    """Old reports never look like new ones; the user's own files stay, also outside."""
    reports = tmp_path / "reports"
    reports.mkdir()
    for path in ("coverage.xml", "mine.txt", "../outside.txt"):
        (reports / path).write_text("x")
    artifacts = [{"path": "coverage.xml"}, {"path": "../outside.txt"}]
    (reports / "run.json").write_text(json.dumps({"stages": [{"artifacts": artifacts}]}))
    Record(reports)
    assert sorted(p.name for p in reports.iterdir()) == ["mine.txt"]
    assert (tmp_path / "outside.txt").exists()


def test_no_listener_ever_sees_a_secret() -> None:
    """Every string of every event is masked, at any depth."""
    seen: list[Event] = []
    redactor = Redactor()
    redactor.add("hunter2-hunter2")
    stream = EventStream(redactor, [seen.append])
    stream.emit(
        StageFinished(
            stage="lint",
            outcome=Outcome(
                result=Result.FAILURE,
                reason="hunter2-hunter2",
                output="a hunter2-hunter2 b",
                findings=("x: hunter2-hunter2",),
                artifacts=(Artifact("hunter2-hunter2.txt", 1),),
            ),
        )
    )
    stream.emit(dataclasses.replace(START, stages=(Stage(name="a", title="hunter2-hunter2"),)))
    assert "hunter2" not in repr(seen)


def test_a_listener_that_fails_harms_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk silences one output, says so once, and the others go on."""
    seen: list[Event] = []

    def broken(_event: Event) -> None:
        raise OSError(28, "No space left on device")

    stream = EventStream(Redactor(), [broken])
    stream.listen(seen.append)
    stream.emit(Warned(message="one"))
    stream.emit(Warned(message="two"))
    assert [e.message for e in seen if isinstance(e, Warned)] == ["one", "two"]
    assert len(caplog.records) == 1
