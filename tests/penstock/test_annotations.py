from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.events import CoverageRead, RunFinished, RunStarted, StageFinished, Warned
from penstock.evidence import FileCoverage, Finding
from penstock.model import Outcome, Result, Stage
from penstock.reports.annotations import Annotation, annotate, changed_lines
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from penstock.events import Event


def view(*events: Event) -> RunView:
    """Return what is known of a run of one stage, `lint`."""
    seen = RunView()
    stages = (Stage(name="lint", title="Lint with ruff"),)
    seen(
        RunStarted(
            pipeline="p", run_id="1", commit="c", started_at="t", stages=stages, reproduce="ci"
        )
    )
    for event in events:
        seen(event)
    return seen


def failed(*findings: Finding, allowed: bool = False, reason: str = "exit code 1") -> StageFinished:
    outcome = Outcome(result=Result.FAILURE, reason=reason, allowed=allowed, findings=findings)
    return StageFinished(stage="lint", outcome=outcome)


def finding(file: str, line: int = 1, *, is_error: bool = True, message: str = "m") -> Finding:
    return Finding(
        file=file, line=line, message=message, tool="ruff", code="F401", is_error=is_error
    )


def test_finding_is_shown_at_its_place() -> None:
    """Who says it stands in the title."""
    (found,) = annotate(view(failed(finding("a.py", 3))))
    assert found == Annotation(kind="error", message="m", title="ruff F401", file="a.py", line=3)


def test_errors_come_first_and_then_what_is_nearest_to_the_change() -> None:
    """Changed lines, then other lines of changed files, then everything else."""
    found = [finding("far.py"), finding("near.py", 1), finding("near.py", 7)]
    found += [finding("near.py", 7, is_error=False)]
    shown = annotate(view(failed(*found)), {"near.py": {7}})
    assert [(a.kind, a.file, a.line) for a in shown] == [
        ("error", "near.py", 7),
        ("error", "near.py", 1),
        ("error", "far.py", 1),
        ("warning", "near.py", 7),
    ]


def test_ten_of_a_kind_are_shown_and_the_rest_is_counted_within_them() -> None:
    """GitHub would drop what is above, without a word."""
    errors = [finding("a.py", line) for line in range(1, 14)]
    low = CoverageRead(
        stage="lint",
        percent=1,
        threshold=80,
        files=tuple(FileCoverage(file=f"{n}.py", percent=1) for n in range(10)),
    )
    shown = annotate(view(low, failed(*errors)))
    assert [sum(a.kind == kind for a in shown) for kind in ("error", "notice")] == [10, 10]
    assert shown[-1].message.startswith("and 3 more errors, 1 more notice:")


def test_ten_of_a_kind_need_no_remark() -> None:
    """As long as all are shown nothing is said of more."""
    assert len(annotate(view(failed(*(finding("a.py", line) for line in range(1, 11)))))) == 10


def test_the_same_problem_of_two_stages_is_shown_once() -> None:
    """A file may be checked twice."""
    assert len(annotate(view(failed(finding("a.py"), finding("a.py"))))) == 1


def test_allowed_failure_is_a_warning() -> None:
    """It stops nothing, so it is no error here either."""
    (found,) = annotate(view(failed(finding("a.py"), allowed=True)))
    assert found.kind == "warning"


def test_failure_without_a_finding_is_shown_without_a_place() -> None:
    """A red run never goes without a word."""
    (found,) = annotate(view(failed(reason="exit code 2")))
    assert found == Annotation(kind="error", title="Lint with ruff", message="FAILED (exit code 2)")


def test_what_no_stage_is_to_blame_for_is_shown_too() -> None:
    """The engine is lost, and the user was warned before."""
    ended = RunFinished(result=Result.ERROR, reason="engine lost", exit_code=4, duration_s=1)
    shown = annotate(view(Warned(message="look"), ended))
    assert [(a.kind, a.message) for a in shown] == [
        ("error", "PIPELINE STOPPED (engine lost)"),
        ("warning", "look"),
    ]


def test_what_a_stage_is_to_blame_for_is_said_once() -> None:
    """Of the run's own reason nothing is left to say."""
    ended = RunFinished(
        result=Result.FAILURE, reason="exit code 1", root="lint", exit_code=1, duration_s=1
    )
    assert len(annotate(view(failed(finding("a.py")), ended))) == 1


@pytest.mark.parametrize("file", ["/opt/venv/x.py", "../x.py", ""])
def test_place_outside_of_the_checkout_stands_in_the_message(file: str) -> None:
    """GitHub could show nothing beside it."""
    (found,) = annotate(view(failed(finding(file, 3))))
    assert (found.file, found.line) == ("", 0)
    assert found.message == f"{file}:3: F401: m"


def test_path_on_this_machine_becomes_one_in_the_checkout() -> None:
    """A stage's own Python names its files whole."""
    (found,) = annotate(view(failed(finding("/w/repo/ci/main.py", 3))), checkout="/w/repo")
    assert (found.file, found.line) == ("ci/main.py", 3)


def test_changed_lines_that_no_test_executes_are_warned_of() -> None:
    """Only these, and neighbours together."""
    files = (FileCoverage(file="a.py", percent=90, missing="3-5, 9, 20-30"),)
    read = CoverageRead(stage="lint", percent=90, threshold=80, files=files)
    shown = annotate(view(read), {"a.py": {1, 4, 5, 9, 10, 31}, "b.py": {4}})
    assert [(a.kind, a.file, a.line, a.end_line) for a in shown] == [
        ("warning", "a.py", 4, 5),
        ("warning", "a.py", 9, 9),
    ]


def test_file_under_the_threshold_gets_a_notice() -> None:
    """Rounded down, with what is missing."""
    files = (FileCoverage(file="a.py", percent=79.9, missing="3-5"),)
    (found,) = annotate(view(CoverageRead(stage="lint", percent=90, threshold=80, files=files)))
    assert (found.kind, found.line) == ("notice", 3)
    assert found.message == "79% < 80% threshold; not executed: 3-5"


def test_coverage_of_a_huge_range_costs_nothing() -> None:
    """A report is untrusted; its ranges are never spelled out."""
    files = (FileCoverage(file="a.py", percent=0, missing="1-999999999"),)
    read = CoverageRead(stage="lint", percent=0, files=files)
    (found,) = annotate(view(read), {"a.py": {7}})
    assert (found.line, found.end_line) == (7, 7)


@given(st.text() | st.lists(st.sampled_from(["+++ b/x", "@@ -1 +1,3 @@", "+a", "-a", "\\", '+++ "']))
       .map("\n".join))  # fmt: skip
def test_any_text_is_read_as_a_diff_without_a_crash(text: str) -> None:
    """What it does not understand it leaves out."""
    assert isinstance(changed_lines(text), dict)
