"""What exported reports say: counts, failing tests, coverage and the gates on it."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.events import CoverageRead, TestsRead
from penstock.evidence import FAILED, FileCoverage, Finding, TestCase, TestResult
from penstock.model import Coverage, JUnit, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from penstock.events import Event


MOST_DETAIL = 4_000  # characters of one test's traceback
CASES_A_LINE, FILES_A_LINE = 100, 200  # of an event, whose line readers bear up to 64 KiB
TAGS = {  # of JUnit, the worst first; a test that passed has none
    "error": TestResult.ERROR,
    "failure": TestResult.FAILED,
    "skipped": TestResult.SKIPPED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageReading:
    """What a coverage report says.

    Args:
        percent: Of everything.
        threshold: What was asked for.
        files: Each file.
    """

    percent: float
    threshold: float | None
    files: tuple[FileCoverage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the output and the reports of a stage say.

    Args:
        summary: Facts for one line: `8 passed`, `coverage 85% >= 80% threshold`.
        findings: Problems at a place.
        gates: Reasons why the stage fails although its command passed.
        tests: Every test.
        coverage: By report.
    """

    summary: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    gates: tuple[str, ...] = ()
    tests: tuple[TestCase, ...] = ()
    coverage: tuple[CoverageReading, ...] = ()

    def events(self, stage: str) -> Iterator[Event]:
        """Return what it says as events of a stage, none of them long."""
        for start in range(0, len(self.tests), CASES_A_LINE):
            yield TestsRead(stage=stage, cases=self.tests[start : start + CASES_A_LINE])
        for read_ in self.coverage:
            for start in range(0, max(len(read_.files), 1), FILES_A_LINE):
                yield CoverageRead(
                    stage=stage,
                    percent=read_.percent,
                    threshold=read_.threshold,
                    files=read_.files[start : start + FILES_A_LINE],
                )


def read(reports: Iterable[Report], folder: Path, checkout: Path | None = None) -> Reading:
    """Read what the exported reports of a stage say; unreadable ones are gates, not crashes.

    Args:
        reports: Those that the stage declared.
        folder: Where they are.
        checkout: Where the files are that they speak of.
    """
    summary: list[str] = []
    gates: list[str] = []
    tests: list[TestCase] = []
    coverage: list[CoverageReading] = []
    for report in sorted(reports, key=lambda report: not isinstance(report, JUnit)):
        path = folder / report.path
        try:
            if isinstance(report, JUnit) and path.exists():
                cases = list(_junit(path))
                summary.append(counted(cases))
                tests += cases
            elif isinstance(report, Coverage):
                coverage += _judge_coverage(report, path, checkout, summary, gates)
        except IsADirectoryError:
            gates.append(f"{report.path} is a folder; name the file in it")
        except Exception as error:  # noqa: BLE001 - a report is untrusted input of any shape
            gates.append(f"{report.path} cannot be read ({type(error).__name__})")
    return Reading(
        summary=tuple(summary),
        findings=tuple(_finding(case) for case in tests if case.result in FAILED),
        gates=tuple(gates),
        tests=tuple(tests),
        coverage=tuple(coverage),
    )


def counted(cases: Iterable[TestCase]) -> str:
    """Return how many tests ended how, in words: `8 passed, 1 failed`."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in cases:
        counts["failed" if case.result in FAILED else str(case.result)] += 1
    return ", ".join(f"{n} {word}" for word, n in counts.items() if n or word == "passed")


def _judge_coverage(
    report: Coverage, path: Path, checkout: Path | None, summary: list[str], gates: list[str]
) -> Iterator[CoverageReading]:
    if not path.exists():
        if report.at_least is not None or report.files:
            gates.append(f"no coverage: {report.path} is missing")
        return
    percent = coverage_percent(path)
    # Rounded down: 79.99 % never reads as a passed 80 % gate.
    shown = f"{math.floor(percent)}%"
    if report.at_least is None:
        summary.append(f"coverage {shown}")
    elif percent >= report.at_least:
        summary.append(f"coverage {shown} >= {report.at_least:g}% threshold")
    else:
        gates.append(f"{shown} < {report.at_least:g}% threshold")
    files = coverage_by_file(path, checkout)
    gates += _file_gates(report, files)
    yield CoverageReading(percent=percent, threshold=report.at_least, files=tuple(files))


def _file_gates(report: Coverage, found: Sequence[FileCoverage]) -> Iterator[str]:
    for pattern, least in report.files.items():
        matched = [covered for covered in found if fnmatchcase(covered.file, pattern)]
        if not matched:
            yield f"no file in {report.path} matches '{pattern}', which has a threshold"
        for covered in matched:
            if covered.percent < least:
                yield f"{covered.file} {math.floor(covered.percent)}% < {least:g}% threshold"


def coverage_percent(path: Path) -> float:
    """Return the covered share of lines and, when measured, branches of a Cobertura file, 0-100.

    Source: coverage.py's own total, (lines + branches covered) / (lines + branches).
    """
    root = ET.parse(path).getroot()  # noqa: S314 - expat bounds entity expansion
    covered = int(root.attrib["lines-covered"]) + int(root.get("branches-covered", "0"))
    valid = int(root.attrib["lines-valid"]) + int(root.get("branches-valid", "0"))
    return 100.0 * covered / valid if valid else 100.0


def coverage_by_file(path: Path, checkout: Path | None = None) -> list[FileCoverage]:
    """Return the same share for each file, by its path in the checkout.

    Names are relative to one of the sources, and it is not said to which: so to the first one in
    which there is such a file.
    """
    root = ET.parse(path).getroot()  # noqa: S314 - expat bounds entity expansion
    sources = [Path(found.text or "") for found in root.iterfind("sources/source")]
    prefixes = [Path() if source.is_absolute() else source for source in sources] or [Path()]

    def place(name: str) -> Path:
        places = [prefix / name for prefix in prefixes]
        there = (p for p in places if checkout and len(places) > 1 and (checkout / p).is_file())
        return next(there, places[0])

    return [
        FileCoverage(
            file=place(found.attrib["filename"]).as_posix(),
            percent=_share(found),
            missing=_missing(found),
        )
        for found in root.iter("class")
    ]


def _missing(found: ET.Element) -> str:
    """Return the lines that were not executed as ranges; between them no line is code that was."""
    ranges: list[list[int]] = []
    joins = False
    for line in found.iterfind("lines/line"):
        number, hit = int(line.attrib["number"]), int(line.attrib["hits"]) > 0
        if not hit and joins:
            ranges[-1][1] = number
        elif not hit:
            ranges.append([number, number])
        joins = not hit
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in ranges)


def _share(found: ET.Element) -> float:
    """Return the covered share of one file; a branch line says `50% (1/2)`."""
    covered = valid = 0
    for line in found.iterfind("lines/line"):
        covered += int(line.attrib["hits"]) > 0
        valid += 1
        if counts := re.search(r"\((\d+)/(\d+)\)", line.get("condition-coverage", "")):
            covered += int(counts[1])
            valid += int(counts[2])
    return 100.0 * covered / valid if valid else 100.0


def _junit(path: Path) -> Iterator[TestCase]:
    """Yield the tests of a file.

    Source: pytest's `xunit1` family, whose test cases carry `file` and `line`.
    """
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - expat bounds entity expansion
        found = [
            (result, element)
            for tag, result in TAGS.items()
            if (element := case.find(tag)) is not None
        ]
        result, element = found[0] if found else (TestResult.PASSED, None)
        said = "" if element is None else element.get("message") or element.text or str(result)
        line = case.get("line", "")
        yield TestCase(
            name=case.get("name", ""),
            suite=case.get("classname", ""),
            result=result,
            file=case.get("file", ""),
            line=int(line) + 1 if line.isdecimal() else 0,  # pytest counts from zero
            duration_s=_seconds(case.get("time", "")),
            message=(said.strip().splitlines() or [""])[0],
            detail="" if element is None else shortened(element.text or ""),
        )


def _seconds(text: str) -> float:
    try:
        seconds = float(text.replace(",", ""))  # some tools group thousands
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


def shortened(text: str, most: int = MOST_DETAIL) -> str:
    """Return a text of bounded length: its beginning and, more of it, its end."""
    if len(text) <= most:
        return text
    head, tail = most // 4, most - most // 4
    return f"{text[:head]}\n[{len(text) - most} characters left out]\n{text[-tail:]}"


def _finding(case: TestCase) -> Finding:
    # Pytest's traceback ends where the test went wrong; the report itself has where it begins.
    wrong = re.findall(rf"^{re.escape(case.file)}:(\d+): ", case.detail, re.MULTILINE)
    return Finding(
        file=case.file or case.suite,
        line=int(wrong[-1]) if case.file and wrong else case.line,
        tool="pytest",
        code=case.name,
        message=case.message or "failed",
    )
