"""What exported reports say: counts, failing tests, coverage and the gates on it."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.model import Coverage, JUnit, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the reports of a stage say.

    Args:
        summary: Facts for one line: `8 passed`, `coverage 85% >= 80% threshold`.
        findings: One line each, `file:line: message`.
        gates: Reasons why the stage fails although its command passed.
    """

    summary: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()


def read(reports: Iterable[Report], folder: Path) -> Reading:
    """Read what the exported reports of a stage say; unreadable ones are findings, not crashes."""
    summary: list[str] = []
    findings: list[str] = []
    gates: list[str] = []
    for report in sorted(reports, key=lambda report: not isinstance(report, JUnit)):
        path = folder / report.path
        try:
            if isinstance(report, JUnit) and path.exists():
                counts, failures = _junit(path)
                summary.append(counts)
                findings += failures
            elif isinstance(report, Coverage):
                _judge_coverage(report, path, summary, gates)
        except Exception as error:  # noqa: BLE001 - a report is untrusted input of any shape
            gates.append(f"{report.path} cannot be read ({type(error).__name__})")
    return Reading(summary=tuple(summary), findings=tuple(findings), gates=tuple(gates))


def _judge_coverage(report: Coverage, path: Path, summary: list[str], gates: list[str]) -> None:
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
    gates += _file_gates(report, coverage_by_file(path))


def _file_gates(report: Coverage, found: Mapping[str, float]) -> Iterator[str]:
    for pattern, least in report.files.items():
        matched = {file: share for file, share in found.items() if fnmatchcase(file, pattern)}
        if not matched:
            yield f"no file in {report.path} matches '{pattern}', which has a threshold"
        for file, share in matched.items():
            if share < least:
                yield f"{file} {math.floor(share)}% < {least:g}% threshold"


def coverage_percent(path: Path) -> float:
    """Return the covered share of lines and, when measured, branches of a Cobertura file, 0-100.

    Source: coverage.py's own total, (lines + branches covered) / (lines + branches).
    """
    root = ET.parse(path).getroot()  # noqa: S314 - expat bounds entity expansion
    covered = int(root.attrib["lines-covered"]) + int(root.get("branches-covered", "0"))
    valid = int(root.attrib["lines-valid"]) + int(root.get("branches-valid", "0"))
    return 100.0 * covered / valid if valid else 100.0


def coverage_by_file(path: Path) -> dict[str, float]:
    """Return the same share for each file, by its path in the checkout."""
    root = ET.parse(path).getroot()  # noqa: S314 - expat bounds entity expansion
    (source,) = [Path(found.text or "") for found in root.iterfind("sources/source")][:1] or [
        Path()
    ]
    prefix = Path() if source.is_absolute() else source
    return {
        (prefix / found.attrib["filename"]).as_posix(): _share(found)
        for found in root.iter("class")
    }


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


def _junit(path: Path) -> tuple[str, list[str]]:
    """Return the counts in words, and a line for each failing test.

    Source: pytest's `xunit1` family, whose test cases carry `file` and `line`.
    """
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures: list[str] = []
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - expat bounds entity expansion
        bad = case.find("failure") if case.find("error") is None else case.find("error")
        if bad is not None:
            counts["failed"] += 1
            failures.append(_failure_line(case, bad))
        else:
            counts["passed" if case.find("skipped") is None else "skipped"] += 1
    words = [f"{n} {word}" for word, n in counts.items() if n or word == "passed"]
    return ", ".join(words), failures


def _failure_line(case: ET.Element, bad: ET.Element) -> str:
    file, line = case.get("file"), case.get("line")
    # pytest counts lines from zero.
    place = f"{file}:{int(line) + 1}" if file and line else case.get("classname", "")
    message = (bad.get("message") or bad.text or "failed").strip().splitlines()
    return f"{place}: {case.get('name', '')}: {message[0] if message else 'failed'}"
