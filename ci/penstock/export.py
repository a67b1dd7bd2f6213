"""Reports: out of the container, whole or not at all, regular files only, and what they say."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import xml.etree.ElementTree as ET
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.model import Artifact, Coverage, JUnit, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import dagger

    from penstock.redact import Redactor


PIECE = 1 << 20  # characters


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


async def export(
    files: dagger.Directory,
    reports: Sequence[Report],
    into: Path,
    *,
    folder: Path,
    redactor: Redactor,
) -> tuple[list[Artifact], list[str]]:
    """Copy the declared reports of a stage into the reports folder.

    Args:
        files: The container's working directory after the command.
        reports: What the stage declared.
        into: Where the stage's reports go.
        folder: The reports folder, above it or the same; what is kept is named relative to it.
        redactor: Masks the secrets in what is kept.

    Returns:
        What is there now, and what people should know: declared paths that are missing, and
        entries left out because they are no regular files.
    """
    paths = [path for report in reports for path in report.paths]
    into.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local folder, microseconds
    beside = Path(tempfile.mkdtemp(prefix=".incoming-", dir=folder))
    try:
        include = [pattern for path in paths for pattern in (path, f"{path}/**")]
        await files.filter(include=include).export(str(beside))
        remarks = [f"left out {name}: no regular file" for name in _drop_irregular(beside)]
        remarks += [f"{path} is missing" for path in paths if not (beside / path).exists()]
        _mask_all(beside, redactor)
        for path in paths:
            if (beside / path).exists():
                _move(beside / path, into / path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return list(_artifacts(into, folder, paths)), remarks


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


def _mask_all(folder: Path, redactor: Redactor) -> None:
    if redactor.knows_any:
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            _mask(file, redactor)


def _mask(file: Path, redactor: Redactor) -> None:
    """Mask the secrets in a file, in pieces, whatever its size; other bytes stay as they are."""
    masker = redactor.stream()
    beside = file.with_name(f"{file.name}.masked")
    lossless = partial(Path.open, encoding="utf-8", errors="surrogateescape", newline="")
    with lossless(file) as source, lossless(beside, "w") as target:
        while piece := source.read(PIECE):
            target.write(masker.feed(piece))
        target.write(masker.flush())
    beside.replace(file)


def _drop_irregular(folder: Path) -> Iterator[str]:
    """Delete links, pipes and sockets; a reader of the reports must never follow or hang on one."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            path.unlink()
            yield path.relative_to(folder).as_posix()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    source.rename(target)


def forget(reports: Iterable[Report], into: Path) -> None:
    """Delete what an earlier run kept of these reports: it must never pass for this run's."""
    for report in reports:
        for path in report.paths:
            remove(into / path)


def remove(path: Path) -> None:
    """Delete a file or a folder; one that is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def _artifacts(into: Path, folder: Path, paths: Iterable[str]) -> Iterator[Artifact]:
    for path in paths:
        top = into / path
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for file in files:
            if file.is_file():
                yield Artifact(file.relative_to(folder).as_posix(), file.stat().st_size)
