from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from junitparser import Error, Failure, JUnitXml, Skipped, TestSuite

from penstock.events import Event, RunFinished, RunStarted, StageFinished, TestsRead
from penstock.evidence import TestCase as Case
from penstock.model import Artifact, Origin, Outcome, Result, Stage
from penstock.reports.junit import JUnitReport
from penstock.reports.literal import literal
from tests.penstock.hostile import run_of, texts

if TYPE_CHECKING:
    from junitparser import TestCase

RUN = run_of("words")


def written(folder: Path, events: list[Event], name: str = "junit.xml") -> list[TestSuite]:
    report = JUnitReport(folder)
    for event in events:
        report(event)
    return list(JUnitXml.fromfile(str(folder / name)))


def run(*outcomes: Outcome) -> list[Event]:
    stages = tuple(
        Stage(name=f"s{n}", title=f"Stage {n}", place=f"ci/main.py:{n}")
        for n in range(len(outcomes))
    )
    started = RUN[0]
    assert isinstance(started, RunStarted)
    ends = [StageFinished(stage=f"s{n}", outcome=outcome) for n, outcome in enumerate(outcomes)]
    return [replace(started, stages=stages), *ends, RUN[-1]]


def only_case(suite: TestSuite) -> TestCase:
    (case,) = suite
    return case


def test_tests_of_all_stages_are_one_file(tmp_path: Path) -> None:
    """A suite for each stage that has tests, with counts, and where each test stands."""
    test, note = written(tmp_path, RUN)
    assert (test.name, test.tests, test.failures, test.errors) == ("test", 3, 1, 0)
    assert (test.skipped, test.time, note.name) == (1, 2.0, "note")
    passed, failed, skipped = test
    assert (passed.name, passed.classname, passed.result, passed.time) == (
        "test_a",
        "words",
        [],
        0.25,
    )
    assert (failed._elem.get("file"), failed._elem.get("line")) == ("tests/test_a.py", "9")
    (failure,) = failed.result
    assert (type(failure), failure.message, failure.text) == (Failure, "words", "words")
    assert isinstance(skipped.result[0], Skipped)
    total = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert (total.tests, total.failures, total.skipped, total.time) == (4, 1, 2, 5.1)


@pytest.mark.parametrize(
    ("result", "kind"),
    [(Result.FAILURE, Failure), (Result.TIMEOUT, Failure), (Result.ERROR, Error)],
)
def test_stage_that_went_wrong_without_a_test_is_a_case(
    tmp_path: Path, result: Result, kind: type
) -> None:
    """Hosts show nothing else of it: its reason, its last lines and where it is written."""
    outcome = Outcome(result=result, reason="exit code 2", output="$ ruff\nF401", duration_s=1.5)
    (suite,) = written(tmp_path, run(Outcome(result=Result.SUCCESS), outcome))
    case = only_case(suite)
    assert (suite.name, case.name, case.classname, case.time) == ("s1", "Stage 1", "s1", 1.5)
    assert (case._elem.get("file"), case._elem.get("line")) == ("ci/main.py", "1")
    (found,) = case.result
    assert (type(found), found.message, found.text) == (kind, "exit code 2", "$ ruff\nF401")


def test_stage_whose_tests_passed_and_that_failed_is_a_case_too(tmp_path: Path) -> None:
    """Coverage below its threshold never reads as green."""
    outcome = Outcome(result=Result.FAILURE, reason="75% < 80% threshold")
    tests = next(event for event in RUN if isinstance(event, TestsRead))
    passed = replace(tests, cases=tests.cases[:1])
    events = [RUN[0], passed, StageFinished(stage="test", outcome=outcome), RUN[-1]]
    (suite,) = written(tmp_path, events)
    assert [case.name for case in suite] == ["test_a", "Run pytest"]
    assert suite.failures == 1


def test_allowed_failure_is_no_failure_for_the_host(tmp_path: Path) -> None:
    """The run passes, so the host must not say that it failed; it says why it did not pass."""
    outcome = Outcome(result=Result.FAILURE, reason="exit code 1", allowed=True)
    (suite,) = written(tmp_path, run(outcome))
    (found,) = only_case(suite).result
    assert isinstance(found, Skipped)
    assert found.message == "failed, which is allowed: exit code 1"


def test_run_without_tests_has_a_file_all_the_same(tmp_path: Path) -> None:
    """CI hosts are told one path and complain when nothing is there."""
    assert written(tmp_path, run(Outcome(result=Result.SUCCESS), Outcome(result=Result.SKIP))) == []


def test_report_of_a_stage_is_never_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who keeps `junit.xml` keeps it, and is told where the file of all stages is."""
    (tmp_path / "junit.xml").write_text("the stage's own")
    outcome = Outcome(result=Result.SUCCESS, artifacts=(Artifact("junit.xml", 15),))
    assert written(tmp_path, run(outcome), "junit-all.xml") == []
    assert (tmp_path / "junit.xml").read_text() == "the stage's own"
    assert caplog.text == ""  # there are no other tests
    started, *ends = run(outcome, Outcome(result=Result.SUCCESS))
    other = TestsRead(stage="s1", cases=(Case(name="test_a"),))
    assert len(written(tmp_path, [started, other, *ends], "junit-all.xml")) == 1
    assert (
        "'s0' keeps its own junit.xml, so the tests of all stages are in junit-all.xml"
        in caplog.text
    )


def test_what_an_earlier_run_wrote_is_replaced(tmp_path: Path) -> None:
    """Made again from the same events, it is the same file."""
    written(tmp_path, RUN)
    before = (tmp_path / "junit.xml").read_bytes()
    written(tmp_path, RUN)
    assert (tmp_path / "junit.xml").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["junit.xml"]


def test_nothing_is_written_before_the_end(tmp_path: Path) -> None:
    """A run that was killed leaves no half of a file."""
    report = JUnitReport(tmp_path)
    for event in RUN[:-1]:
        report(event)
    assert not list(tmp_path.iterdir())
    assert isinstance(RUN[-1], RunFinished)


@pytest.mark.fault(49)
@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_hostile_words_are_shown_literally(text: str) -> None:
    """Whatever a test prints is text when it is read again, and nothing of it acts or hides."""
    with TemporaryDirectory() as folder:
        test, _ = written(Path(folder), run_of(text))
        raw = (Path(folder) / "junit.xml").read_text(encoding="utf-8")
    (failure,) = list(test)[1].result
    assert (failure.text or "", failure.message) == (literal(text), literal(text))
    assert all(character.isprintable() or character == "\n" for character in raw.replace("\t", ""))


def test_suite_of_a_stage_that_was_not_run_here_says_where_it_was(tmp_path: Path) -> None:
    """As a property, which JUnit has for that."""
    origin = Origin(run_id="f" * 32, commit="c", passed_at="2026-11-26", duration_s=1.0)
    outcome = Outcome(result=Result.SUCCESS, cached=True, origin=origin)
    started, *_, last = run(outcome)
    tests = TestsRead(stage="s0", cases=(Case(name="test_a"),))
    events = [started, tests, StageFinished(stage="s0", outcome=outcome), last]
    (suite,) = written(tmp_path, events)
    assert [(p.name, p.value) for p in suite.properties()] == [("reused", str(origin))]  # type: ignore[no-untyped-call]  # junitparser's own
    assert only_case(suite).name == "test_a"
