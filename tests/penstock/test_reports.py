from __future__ import annotations

import dataclasses
import io
import json
import os
from typing import TYPE_CHECKING

import pytest

from penstock.errors import FolderError
from penstock.events import (
    EngineConnected,
    Event,
    EventStream,
    RunFinished,
    RunStarted,
    RunStopped,
    ServiceFailed,
    ServicePrepared,
    ServiceStarted,
    StageFinished,
    StageRetried,
    StagesAdded,
    StageStarted,
    Warned,
)
from penstock.evidence import Finding
from penstock.model import Artifact, Attempt, Outcome, Result, Stage
from penstock.redact import Redactor
from penstock.reports.console import ConsoleReport
from penstock.reports.record import Record

if TYPE_CHECKING:
    from pathlib import Path

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
    ServicePrepared(service="redis", what="image", duration_s=0.1),
    ServiceFailed(service="redis", what="health check", reason="never became healthy"),
    StageFinished(
        stage="lint",
        outcome=Outcome(
            result=Result.FAILURE,
            reason="exit code 1",
            duration_s=0.3,
            output="$ ruff check\nF401 unused",
            findings=(Finding(file="app/main.py", line=3, message="unused"),),
        ),
    ),
    RunStopped(result=Result.FAILURE, reason="because lint failed", root="lint"),
    StageFinished(
        stage="test", outcome=Outcome(result=Result.CANCELLATION, reason="because lint failed")
    ),
    StageFinished(stage="build", outcome=Outcome(result=Result.SKIP, reason="because lint failed")),
    RunFinished(
        result=Result.FAILURE, reason="exit code 1", root="lint", exit_code=1, duration_s=2.0
    ),
]


def ended(
    stage: str, result: Result, reason: str = "", *, output: str = "", allowed: bool = False
) -> StageFinished:
    outcome = Outcome(result=result, reason=reason, output=output, allowed=allowed, duration_s=1.0)
    return StageFinished(stage=stage, outcome=outcome)


def finished(result: Result, code: int, reason: str = "") -> RunFinished:
    return RunFinished(result=result, reason=reason, exit_code=code, duration_s=2.0)


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
        "Lint with ruff: started",
        "Lint with ruff .......................... PASSED (cached) ✓   0.3 s",
        "postgres: started, health check passed ✓  0.9 s      Create database schema ... DONE",
        "Run pytest with coverage ................ PASSED ✓   3.0 s",
        "  8 passed, coverage 85% >= 80% threshold",
        "Build the image ......................... PASSED ✓   1.1 s",
        "All stages passed ✓   4.9 s   report: reports/index.html",
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
        "PIPELINE STOPPED ✗   2.0 s   report: reports/index.html",
        "reproduce: python ci/main.py --only lint",
    ]


def test_interrupted_run_says_so_at_once_and_at_the_end() -> None:
    """What failed before is told, and is not what stopped the run."""
    events = [
        START,
        ended("lint", Result.FAILURE, "exit code 1", allowed=True),
        RunStopped(result=Result.CANCELLATION, reason="interrupted by SIGINT", exit_code=130),
        ended("test", Result.CANCELLATION, "interrupted by SIGINT"),
        finished(Result.CANCELLATION, 130, "interrupted by SIGINT"),
    ]
    assert shown(events) == [
        f"Lint with ruff {'.' * 26} WARNING (FAILED, which is allowed: exit code 1)   1.0 s",
        "Stopping: interrupted by SIGINT; once more ends it at once",
        "Run pytest with coverage: CANCELLED (interrupted by SIGINT)",
        "",
        "Lint with ruff: WARNING (FAILED, which is allowed: exit code 1)",
        "",
        "PIPELINE STOPPED ✗ (interrupted by SIGINT)   2.0 s   report: reports/index.html",
    ]


def test_deadline_of_the_run_reads_as_a_sentence() -> None:
    """Teardown may take a while after it, so it is said when it comes."""
    because = "because the run's deadline of 60 s passed"
    events = [
        START,
        RunStopped(result=Result.TIMEOUT, reason=because, exit_code=124),
        ended("lint", Result.SKIP, because),
        finished(Result.TIMEOUT, 124, because),
    ]
    assert shown(events)[:2] == [
        "Stopping: the run's deadline of 60 s passed",
        f"Lint with ruff: SKIPPED ({because})",
    ]


def test_lost_engine_is_explained_once_and_for_all_stages() -> None:
    """The words about it may be long, so they stand at the end only."""
    events = [
        START,
        RunStopped(result=Result.ERROR, reason="it is gone; look for it", exit_code=4),
        *[ended(stage.name, Result.SKIP, "it is gone; look for it") for stage in PLANS],
        finished(Result.ERROR, 4, "it is gone; look for it"),
    ]
    lines = shown(events)
    assert lines[:3] == [f"{s.title}: SKIPPED (because there is no engine)" for s in PLANS]
    assert lines[-1].startswith("PIPELINE STOPPED ✗ (it is gone; look for it)   2.0 s")


def test_what_is_tried_again_and_what_is_found_out_has_lines() -> None:
    """A second attempt names the first one's reason; found-out stages have their own titles."""
    attempt = Attempt(result=Result.ERROR, reason="no such host", exit_code=None, fault="registry")
    found = (Stage(name="test[a]", title="Run pytest [a]", needs=("test",)),)
    events = [
        START,
        StageRetried(stage="test", attempt=attempt, delay_s=0.5),
        StagesAdded(stages=found),
        ended("test[a]", Result.SUCCESS),
    ]
    assert shown(events) == [
        "Run pytest with coverage: trying again in 0.5 s (no such host)",
        "Run pytest [a] .......................... PASSED ✓   1.0 s",
    ]


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    ("endings", "warnings", "words"),
    [
        ("success success success", "", "All stages passed ✓"),
        ("success success skip", "", "All 2 stages that ran passed, 1 skipped ✓"),
        (
            "success timeout success",
            "test",
            "Passed with warnings: test failed, which is allowed ✓",
        ),
    ],
)
def test_passed_run_tells_what_did_not(endings: str, warnings: str, words: str) -> None:
    """Green with less than everything never reads like green."""
    results = [Result(word) for word in endings.split()]
    events = [
        START,
        *[
            ended(s.name, result, allowed=s.name == warnings)
            for s, result in zip(PLANS, results, strict=True)
        ],
        dataclasses.replace(finished(Result.SUCCESS, 0), warnings=tuple(warnings.split())),
    ]
    assert shown(events)[-1] == f"{words}   2.0 s   report: reports/index.html"


@pytest.mark.fault(44)
def test_run_without_anything_required_is_not_green() -> None:
    """All was skipped: the reason stands beside the verdict."""
    end = finished(Result.SKIP, 5, "nothing that is required ran")
    skipped = ended("lint", Result.SKIP, "not on branch main")
    lines = shown([START, skipped, end])
    assert lines[0] == "Lint with ruff: SKIPPED (not on branch main)"
    assert lines[-1].startswith("PIPELINE STOPPED ✗ (nothing that is required ran)")


def test_stage_at_fault_comes_first_and_long_lists_are_cut() -> None:
    """It is the one to reproduce, whatever ended before it and however much it says."""
    many = Outcome(
        result=Result.FAILURE,
        reason="boom\nmore of it",
        findings=tuple(Finding(file="a.py", line=n, message="bad") for n in range(1, 23)),
    )
    events = [
        START,
        ended("lint", Result.ERROR, "no host", output="hm"),
        StageFinished(stage="test", outcome=many),
        dataclasses.replace(finished(Result.FAILURE, 1, "boom"), root="test"),
    ]
    lines = shown(events)
    assert lines[3] == "Run pytest with coverage: FAILED (boom)"
    assert lines[24:29] == [
        "  and 2 more: reports/index.html",
        "",
        "Lint with ruff: ERROR (no host)",
        "  | hm",
        "",
    ]
    assert lines[-1] == "reproduce: python ci/main.py --only test"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_that_the_terminal_cannot_show_is_escaped(encoding: str) -> None:
    """Nothing of it is lost, and what follows is shown too."""
    output = "größer ✗ \udcff"
    lines = shown([START, ended("lint", Result.FAILURE, "x", output=output), RED[-1]], encoding)
    escaped = output.encode(encoding, "backslashreplace").decode(encoding)
    assert f"  | {escaped}" in lines
    assert lines[-1] == "reproduce: python ci/main.py --only lint"


def test_closed_pipe_ends_the_output_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """`| head -1` has what it wanted: no exception, no words."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        report = ConsoleReport(stream)
        os.close(reading)
        for event in RED:
            report(event)
    assert caplog.text == ""


def test_full_disk_ends_the_output_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, elsewhere, and not again when the stream is closed."""
    (tmp_path / "out").symlink_to("/dev/full")
    with (tmp_path / "out").open("w") as stream:
        report = ConsoleReport(stream)
        for event in RED:
            report(event)
    assert [r.message for r in caplog.records] == [
        "WARNING: cannot print any more (No space left on device); the run goes on"
    ]


def test_terminal_without_unicode_gets_words_only() -> None:
    """An ASCII terminal shows no broken marks."""
    lines = shown(GREEN, "ascii")
    assert lines[-1] == "All stages passed   4.9 s   report: reports/index.html"


def test_any_stream_will_do() -> None:
    """One that has no encoding gets words only."""
    stream = io.StringIO()
    ConsoleReport(stream)(Warned(message="look here"))
    assert stream.getvalue() == "WARNING: look here\n"


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
    assert run["services"] == [
        {"name": "postgres", "result": "success", "ready_s": 0.9, "reason": ""}
    ]
    test = run["stages"][1]
    assert test["artifacts"][0] == {"path": "coverage.xml", "size_bytes": 10, "sha256": ""}
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
        "service_prepared",
        "service_failed",
        "stage_finished",
        "run_stopped",
        *["stage_finished"] * 2,
        "run_finished",
    ]
    assert lines[4]["outcome"]["result"] == "failure"


def test_next_run_removes_what_the_last_one_left_and_nothing_else(tmp_path: Path) -> None:
    """Old reports never look like new ones; the user's own files stay, also outside."""
    reports = tmp_path / "reports"
    reports.mkdir()
    for path in ("coverage.xml", "mine.txt", "../outside.txt", ".index.html.123"):  # killed while
        (reports / path).write_text("x")
    artifacts = [{"path": "coverage.xml"}, {"path": "../outside.txt"}]
    (reports / "run.json").write_text(json.dumps({"stages": [{"artifacts": artifacts}]}))
    Record(reports)
    assert sorted(p.name for p in reports.iterdir()) == ["events.jsonl", "mine.txt"]
    assert (reports / "events.jsonl").read_text() == ""
    assert (tmp_path / "outside.txt").exists()


def test_record_that_has_no_place_is_refused_before_the_run(tmp_path: Path) -> None:
    """The folder is named."""
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(FolderError, match=r"/reports: it is no folder; move it away"):
        Record(tmp_path / "reports")


@pytest.mark.fault(32)
def test_record_on_a_full_disk_is_a_warning_and_holds_what_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each file is given up once; what is read is whole or not there."""
    record = Record(tmp_path)
    (tmp_path / "events.jsonl").unlink()
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    (tmp_path / "run.json").mkdir()
    for event in RED:
        record(event)
    assert [record.args for record in caplog.records] == [
        (tmp_path / "events.jsonl", "No space left on device"),
        (tmp_path / "run.json", "Is a directory"),
    ]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_record_has_the_stages_that_were_found_out(tmp_path: Path) -> None:
    """As if they had been there from the start."""
    record = Record(tmp_path)
    found = (Stage(name="test[a]", title="Run pytest [a]", needs=("test",)),)
    for event in (START, StagesAdded(stages=found), ended("test[a]", Result.SUCCESS), GREEN[-1]):
        record(event)
    last = json.loads((tmp_path / "run.json").read_text())["stages"][-1]
    assert (last["name"], last["needs"], last["result"]) == ("test[a]", ["test"], "success")


def test_events_keep_names_that_are_no_text(tmp_path: Path) -> None:
    """A file's name of any bytes does not end the record."""
    record = Record(tmp_path)
    record(Warned(message="Gr\udcf6\udcdfe"))
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line)["message"] == "Gr\udcf6\udcdfe"


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
                findings=(Finding(message="x: hunter2-hunter2"),),
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
