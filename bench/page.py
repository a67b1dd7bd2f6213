"""What `index.html` costs after a large run: `python bench/page.py [folder]`. No engine is asked.

200 stages, 20,000 tests and 100 MB of output: once of a usual kind, with a failing test in every
tenth stage, and once as bad as can be, all of it failed and in characters that HTML escapes.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "ci"))

from penstock.events import (
    CoverageRead,
    Event,
    OutputWritten,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    TestsRead,
)
from penstock.evidence import FileCoverage, Finding, TestCase, TestResult
from penstock.model import Artifact, Outcome, Result, Stage
from penstock.reports.page import PageReport

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGES, TESTS, OUTPUT, PIECE = 200, 100, 500_000, 8_000
RUNS = {
    "usual": (
        "tests/app/test_tasks.py::test_created_task_is_found PASSED       [ 42%]\n",
        "assert 404 == 200",
        10,
    ),
    "worst": ('"' * 79 + "\n", '"\u202e' * 5_000, 1),
}


def events(line: str, said: str, every: int) -> Iterator[Event]:
    """Yield a run in which every so-manieth stage and test failed."""
    names = [f"stage {number}" for number in range(STAGES)]
    stages = tuple(
        Stage(name=name, title=said[:100], needs=tuple(names[max(0, n - 8) // 8 * 8 : n // 8 * 8]))
        for n, name in enumerate(names)
    )
    yield RunStarted(
        pipeline="large", run_id="1", commit="c", started_at="t", stages=stages, reproduce="ci"
    )
    for number, name in enumerate(names):
        yield StageStarted(at_s=number, stage=name)
        for _ in range(OUTPUT // PIECE):
            yield OutputWritten(stage=name, text=line * (PIECE // len(line)))
        failed = number % every == 0
        yield TestsRead(
            stage=name,
            cases=tuple(_case(n, said, failed=failed and n % every == 0) for n in range(TESTS)),
        )
        files = tuple(FileCoverage(file=f"app/{n}.py", percent=n, missing=said) for n in range(20))
        yield CoverageRead(stage=name, percent=79.0, threshold=80, files=files)
        outcome = Outcome(
            result=Result.FAILURE if failed else Result.SUCCESS,
            reason=said if failed else "",
            notes=(said,),
            findings=(Finding(message=said, file="a.py", line=1),)
            * (TESTS // every if failed else 0),
            output=line * 100,
            artifacts=(
                Artifact(f"logs/{name}.txt", OUTPUT, "0" * 64),
                Artifact("junit.xml", 1, "0" * 64),
            ),
        )
        yield StageFinished(at_s=number + 1, stage=name, outcome=outcome)
    yield RunFinished(
        result=Result.FAILURE, reason=said, root=names[0], exit_code=1, duration_s=STAGES
    )


def _case(number: int, said: str, *, failed: bool) -> TestCase:
    return TestCase(
        name=f"test_{number}",
        suite="tests.app.test_tasks",
        result=TestResult.FAILED if failed else TestResult.PASSED,
        file="tests/app/test_tasks.py",
        line=number,
        duration_s=number / 1000,
        message=said if failed else "",
        detail=said[:4_000] if failed else "",
    )


def measure(what: str, folder: Path, happened: Iterator[Event]) -> None:
    """Print what the page of a run costs: while it runs, at its end, and on the disk."""
    report = PageReport(folder)
    folding_s = 0.0
    for event in happened:
        began = time.perf_counter()
        report(event)
        took_s = time.perf_counter() - began
        folding_s += took_s
    size = (folder / "index.html").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{what}: {folding_s - took_s:.2f} s while it runs, {took_s:.2f} s at its end, "
        f"{size / 1e6:.2f} MB, process at most {peak} MB"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        for what, kind in RUNS.items():
            measure(what, folder, events(*kind))
