from __future__ import annotations

import pytest

from penstock.events import (
    EarlyBegun,
    EarlyDropped,
    OutputWritten,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from penstock.model import Outcome, Result, Stage
from penstock.reports.view import RunView, Tail


def view(*outcomes: Outcome, finished: RunFinished | None = None) -> RunView:
    """Return what is known of a run of stages named `a b`, `b`, `c` as far as they ended."""
    names = ("a b", "b", "c")
    seen = RunView()
    seen(
        RunStarted(
            pipeline="p",
            run_id="1",
            commit="c",
            started_at="t",
            stages=tuple(Stage(name=name) for name in names),
            reproduce="python ci/main.py",
        )
    )
    for name, outcome in zip(names, outcomes, strict=False):
        seen(StageFinished(stage=name, outcome=outcome))
    if finished:
        seen(finished)
    return seen


def ended(
    result: Result, reason: str = "", root: str = "", warnings: tuple[str, ...] = ()
) -> RunFinished:
    return RunFinished(
        result=result, reason=reason, root=root, exit_code=1, duration_s=1, warnings=warnings
    )


PASSED, FAILED = (
    Outcome(result=Result.SUCCESS),
    Outcome(result=Result.FAILURE, reason="exit code 1"),
)
ALLOWED = Outcome(result=Result.FAILURE, reason="exit code 1\nmore", allowed=True)
SKIPPED = Outcome(result=Result.SKIP, reason="because a failed")


@pytest.mark.parametrize(
    ("outcomes", "finished", "expected"),
    [
        ((), None, "The run has not ended"),
        ((PASSED,) * 3, ended(Result.SUCCESS), "All stages passed"),
        ((PASSED, SKIPPED), ended(Result.SUCCESS), "All 1 stages that ran passed, 1 skipped"),
        (
            (ALLOWED, PASSED),
            ended(Result.SUCCESS, warnings=("a b",)),
            "Passed with warnings: a b failed, which is allowed",
        ),
        ((FAILED,), ended(Result.FAILURE, "exit code 1", root="a b"), "PIPELINE STOPPED"),
        ((), ended(Result.ERROR, "engine lost"), "PIPELINE STOPPED (engine lost)"),
    ],
)
def test_verdict_is_told_in_the_words_of_the_console(
    outcomes: tuple[Outcome, ...], finished: RunFinished | None, expected: str
) -> None:
    """What a stage is to blame for stands with that stage."""
    assert view(*outcomes, finished=finished).verdict == expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (PASSED, "PASSED"),
        (Outcome(result=Result.SUCCESS, cached=True), "PASSED (cached)"),
        (FAILED, "FAILED (exit code 1)"),
        (ALLOWED, "WARNING (FAILED, which is allowed: exit code 1)"),
        (SKIPPED, "SKIPPED (because a failed)"),
    ],
)
def test_result_of_a_stage_is_told_with_its_reason(outcome: Outcome, expected: str) -> None:
    """In one line."""
    assert view(outcome).stages["a b"].word == expected


def test_stage_without_a_result_waits_or_runs() -> None:
    """A page may be made before the run has ended."""
    seen = view()
    seen(StageStarted(stage="b"))
    assert (seen.stages["a b"].word, seen.stages["b"].word) == ("WAITING", "RUNNING")


def test_what_was_begun_early_leaves_a_reason_and_no_output_when_it_is_thrown_away() -> None:
    """Whatever comes last: its end, or that of the stage which it was begun for."""
    seen = view()
    for name in ("b", "c"):
        seen(EarlyBegun(stage=name))
        seen(OutputWritten(stage=name, text="at work\n"))
    seen(EarlyDropped(stage="c", reason="it failed"))
    assert (seen.stages["b"].is_early, seen.stages["c"].is_early) == (True, False)
    seen(StageFinished(stage="b", outcome=SKIPPED))
    assert [str(seen.stages[name].output) for name in ("b", "c")] == ["", ""]
    seen(EarlyDropped(stage="b", reason="a failed"))
    outcome = seen.stages["b"].outcome
    assert outcome
    assert outcome.why == ("begun early (--speculate), thrown away: a failed",)


def test_what_was_begun_early_is_the_stage_s_own_when_it_starts() -> None:
    seen = view()
    seen(EarlyBegun(stage="b"))
    seen(OutputWritten(stage="b", text="at work\n"))
    seen(StageStarted(stage="b"))
    seen(StageFinished(stage="b", outcome=PASSED))
    assert str(seen.stages["b"].output) == "at work\n"


def test_first_stage_at_fault_is_what_to_reproduce() -> None:
    """Quoted for the shell; a failure that is allowed needs none."""
    assert view(FAILED, FAILED).reproduce == "python ci/main.py --only 'a b'"
    assert view(ALLOWED, PASSED).reproduce == ""


def test_few_words_do_not_drive_out_what_came_at_once() -> None:
    """The last lines are kept as far as there is room, in whatever pieces they came."""
    tail = Tail(most=100)
    tail.write("".join(f"line {number}\n" for number in range(50)))
    tail.write("bye\n")
    assert str(tail).splitlines()[-10:] == [*(f"line {number}" for number in range(41, 50)), "bye"]


def test_end_of_an_endless_line_is_shown() -> None:
    """It may be all that a program printed."""
    tail = Tail(most=100)
    tail.write("x" * 1000 + "\n")
    tail.write("bye")
    assert str(tail) == "x" * 96 + "\nbye"
    assert tail.dropped == 904


@pytest.mark.parametrize(
    ("came", "end", "whole"),
    [
        ("a\nb\nc\n", "$ x\nb\nc", "a\nb\nc"),
        ("a\nb\n", "$ x\nb\nc\nd", "a\nb\nc\nd"),
        ("", "$ x\nb\nc", "$ x\nb\nc"),
        ("a\n", "", "a"),
        ("a\n", "$ x\ny\nz", "a\n[...]\ny\nz"),
        ("p\ny\nq\n", "$ x\np\nq\ny", "p\ny\nq"),
    ],
)
def test_output_is_completed_by_its_end(came: str, end: str, whole: str) -> None:
    """The engine tells of a stage's last lines when the stage has ended already."""
    tail = Tail()
    tail.write(came)
    assert tail.completed(end) == whole
