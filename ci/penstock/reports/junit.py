"""`junit.xml`: the tests of all stages in one file, for CI hosts that show tests."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections import Counter
from typing import TYPE_CHECKING

from penstock.events import Event, RunFinished
from penstock.evidence import TestCase, TestResult
from penstock.folder import write_whole
from penstock.model import Result
from penstock.reports.literal import literal
from penstock.reports.reading import TAGS
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from penstock.model import Stage
    from penstock.reports.view import StageView

logger = logging.getLogger(__name__)

FILE, OTHER_FILE = "junit.xml", "junit-all.xml"
_TAGS = {result: tag for tag, result in TAGS.items()}
_RESULTS = {
    Result.FAILURE: TestResult.FAILED,
    Result.TIMEOUT: TestResult.FAILED,
    Result.ERROR: TestResult.ERROR,
}


class JUnitReport:
    """Writes one file at the end of the run: a suite for each stage that has tests.

    A stage that went wrong while no test of it says so has a case of its own, as hosts show nothing
    else of it. Where a stage keeps a report of this name itself, that one stays and the tests of all
    stages go into `junit-all.xml`; of which is warned unless it has the only tests there are.

    Args:
        folder: The reports folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._view = RunView()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._view(event)
        if isinstance(event, RunFinished):
            path = self._path()
            try:
                write_whole(path, junit(self._view))
            except OSError as error:
                logger.warning("WARNING: cannot write %s (%s)", path, error.strerror)

    def _path(self) -> Path:
        views = self._view.stages.values()
        for stage, outcome in [(view.stage, view.outcome) for view in views if view.outcome]:
            if any(artifact.path == FILE for artifact in outcome.artifacts):
                if any(view.tests and view.stage is not stage for view in views):
                    logger.warning(
                        "WARNING: stage '%s' keeps its own %s, so the tests of all stages are in "
                        "%s; give the stage's another path, like %s/%s",
                        *(stage.name, FILE, OTHER_FILE, stage.family or "test", FILE),
                    )
                return self._folder / OTHER_FILE
        return self._folder / FILE


def junit(view: RunView) -> str:
    """Return the tests of a run in JUnit's form, with `file` and `line` on each case.

    Source: the common part of what CircleCI, GitLab, Buildkite and Jenkins document.
    """
    suites = [(stage, cases) for stage in view.stages.values() if (cases := list(_cases(stage)))]
    root = ET.Element(
        "testsuites",
        {
            "name": literal(view.started.pipeline if view.started else ""),
            **_counts(case for _, cases in suites for case in cases),
            "time": _time(view.finished.duration_s if view.finished else view.now_s),
        },
    )
    for stage, cases in suites:
        took = stage.outcome.duration_s if stage.outcome else 0.0
        attributes = {"name": literal(stage.stage.name), **_counts(cases), "time": _time(took)}
        suite = ET.SubElement(root, "testsuite", attributes)
        if stage.outcome and (origin := stage.outcome.origin):
            told = {"name": "reused", "value": literal(str(origin))}
            ET.SubElement(ET.SubElement(suite, "properties"), "property", told)
        suite.extend(map(_element, cases))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cases(view: StageView) -> Iterator[TestCase]:
    yield from view.tests
    outcome = view.outcome
    if outcome and outcome.result in _RESULTS and not view.failed_tests:
        file, line = _place(view.stage)
        allowed = "failed, which is allowed: " if outcome.allowed else ""
        yield TestCase(
            name=view.title,
            suite=view.stage.name,
            result=TestResult.SKIPPED if outcome.allowed else _RESULTS[outcome.result],
            file=file,
            line=line,
            duration_s=outcome.duration_s,
            message=f"{allowed}{outcome.reason}",
            detail=outcome.output,
        )


def _place(stage: Stage) -> tuple[str, int]:
    file, _, line = stage.place.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (stage.place, 0)


def _counts(cases: Iterable[TestCase]) -> dict[str, str]:
    counts = Counter(case.result for case in cases)
    return {
        "tests": str(counts.total()),
        "failures": str(counts[TestResult.FAILED]),
        "errors": str(counts[TestResult.ERROR]),
        "skipped": str(counts[TestResult.SKIPPED]),
    }


def _element(case: TestCase) -> ET.Element:
    attributes = {"classname": literal(case.suite), "name": literal(case.name)}
    if case.file:
        attributes["file"] = literal(case.file)
    if case.line:
        attributes["line"] = str(case.line)
    element = ET.Element("testcase", attributes | {"time": _time(case.duration_s)})
    if tag := _TAGS.get(case.result):
        ET.SubElement(element, tag, {"message": literal(case.message)}).text = literal(case.detail)
    return element


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"
