"""What a run has to say about lines of the change, the most important first."""

from __future__ import annotations

import math
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from penstock.model import BROKEN, Result
from penstock.reports.literal import literal, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.evidence import FileCoverage, Finding
    from penstock.reports.view import RunView, StageView

    Changed = Mapping[str, set[int]]

Kind = Literal["error", "warning", "notice"]
KINDS: tuple[Kind, ...] = ("error", "warning", "notice")
MOST_OF_A_KIND = 10  # GitHub drops what a step says beyond that

_HUNK = re.compile(r"@@ -\d{1,9}(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A remark, at a place if it has one.

    Args:
        kind: How bad it is.
        message: One line.
        title: What it comes from, `ruff F401` say.
        file: Relative to the checkout; empty when it has no place in it.
        line: From 1; 0 without a file.
        end_line: The last line, when there are more.
        column: From 1; 0 when unknown.
    """

    kind: Kind
    message: str
    title: str = ""
    file: str = ""
    line: int = 0
    end_line: int = 0
    column: int = 0


def annotate(
    view: RunView, changed: Changed | None = None, *, checkout: str = ""
) -> list[Annotation]:
    """Return what there is to say: errors first, then what is nearest to the change.

    Args:
        view: The run.
        changed: The changed lines of each changed file, where they are known.
        checkout: Its folder on this machine, as tracebacks name it.
    """
    changed = changed or {}
    ranked = sorted(
        dict.fromkeys(_all(view, changed, checkout)),
        key=lambda found: (KINDS.index(found.kind), _distance(found, changed)),
    )
    counts = {kind: sum(found.kind == kind for found in ranked) for kind in KINDS}
    if max(counts.values()) <= MOST_OF_A_KIND:
        return ranked
    room: dict[Kind, int] = dict.fromkeys(KINDS, MOST_OF_A_KIND) | {"notice": MOST_OF_A_KIND - 1}
    shown = [f for kind in KINDS for f in [r for r in ranked if r.kind == kind][: room[kind]]]
    left = [(counts[kind] - room[kind], kind) for kind in KINDS if counts[kind] > room[kind]]
    more = ", ".join(f"{n} more {kind}{'s' if n > 1 else ''}" for n, kind in left)
    return [
        *shown,
        Annotation(kind="notice", message=f"and {more}: see the step's log and summary"),
    ]


def _distance(found: Annotation, changed: Changed) -> int:
    if (lines := changed.get(found.file)) is None:
        return 2
    return (
        0 if any(n in lines for n in range(found.line, (found.end_line or found.line) + 1)) else 1
    )


def _all(view: RunView, changed: Changed, checkout: str) -> Iterator[Annotation]:
    for stage in (*view.failed, *view.stages.values()):
        yield from _findings(stage, checkout)
        for covered in stage.files:
            yield from _coverage(covered, stage, changed)
    for warning in view.warnings:
        yield Annotation(kind="warning", message=one_line(warning))
    ended = view.finished
    if ended and ended.reason and not ended.root and ended.result is not Result.SUCCESS:
        yield Annotation(kind="error", message=one_line(view.verdict))


def _findings(stage: StageView, checkout: str) -> Iterator[Annotation]:
    outcome = stage.outcome
    if outcome is None:
        return
    is_bad = outcome.result in BROKEN
    worst: Kind = "error" if is_bad and not outcome.allowed else "warning"
    for finding in outcome.findings:
        yield _placed(finding, worst if finding.is_error else "warning", checkout)
    if is_bad and not any(finding.is_error for finding in outcome.findings):
        yield Annotation(kind=worst, title=one_line(stage.title, 200), message=one_line(stage.word))


def _placed(finding: Finding, kind: Kind, checkout: str) -> Annotation:
    title = one_line(f"{finding.tool} {finding.code}", 200)
    file = posixpath.normpath(finding.file) if finding.file else ""
    file = file.removeprefix(f"{checkout.rstrip('/')}/") if checkout else file
    if not (file and finding.line) or file.startswith(("/", "../")):  # nothing to show it beside
        return Annotation(kind=kind, title=title, message=one_line(str(finding)))
    return Annotation(
        kind=kind,
        title=title,
        message=one_line(finding.message) or "failed",
        file=literal(file),
        line=finding.line,
        column=finding.column,
    )


def _coverage(covered: FileCoverage, stage: StageView, changed: Changed) -> Iterator[Annotation]:
    missing = [(int(a), int(b or a)) for a, b in _RANGE.findall(covered.missing)]
    changed_here = sorted(changed.get(covered.file, ()))
    file = literal(covered.file)
    for first, last in _runs(changed_here, sorted(missing)):
        yield Annotation(
            kind="warning",
            title="coverage",
            message="no test executes what was changed here",
            file=file,
            line=first,
            end_line=last,
        )
    least = stage.coverage.threshold if stage.coverage else None
    if least is not None and covered.percent < least:
        words = f"{math.floor(covered.percent)}% < {least:g}% threshold"
        lines = f"; not executed: {covered.missing}" if covered.missing else ""
        first = missing[0][0] if missing else 1
        message = one_line(f"{words}{lines}")
        yield Annotation(kind="notice", title="coverage", message=message, file=file, line=first)


def _runs(lines: list[int], ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return which of the lines lie in a range, as ranges themselves; both are sorted."""
    runs: list[tuple[int, int]] = []
    at = 0
    for line in lines:
        while at < len(ranges) and ranges[at][1] < line:
            at += 1
        if at == len(ranges) or line < ranges[at][0]:
            continue
        if runs and runs[-1][1] == line - 1:
            runs[-1] = (runs[-1][0], line)
        else:
            runs.append((line, line))
    return runs


def changed_lines(diff: str) -> dict[str, set[int]]:
    r"""Return the lines that are new or changed in each file, from what `git diff -U0` prints.

    A file that lost lines and got none has none; one that is gone is not in it.

    Example:
        >>> changed_lines("--- a/x.py\n+++ b/x.py\n@@ -3 +3,2 @@ def f():\n-a\n+b\n+c\n")
        {'x.py': {3, 4}}
    """
    changed: dict[str, set[int]] = {}
    lines: set[int] = set()
    removed = added = number = 0  # what the hunk still holds, and where it stands
    for line in diff.split("\n"):
        if removed or added:
            kind = line[:1]
            if kind == "+":
                lines.add(number)
            if kind != "\\":  # a remark on the line before
                removed -= kind != "+"
                added -= kind != "-"
                number += kind != "-"
        elif line.startswith("+++ "):
            lines = changed.setdefault(_name(line[4:]), set())
        elif hunk := _HUNK.match(line):
            removed, added = (int(hunk[n] or 1) if hunk[n] != "0" else 0 for n in (1, 3))
            number = int(hunk[2])
    changed.pop("/dev/null", None)
    return changed


def _name(words: str) -> str:
    r"""Return the path that git names, with `b/` before it and, if need be, quoted as in C."""
    words = words.removesuffix("\t")
    if words.startswith('"'):
        escaped = words[1:-1].encode("utf-8", "surrogateescape").decode("latin-1")
        raw = escaped.encode("latin-1").decode("unicode_escape").encode("latin-1", "replace")
        words = raw.decode("utf-8", "surrogateescape")
    return words.removeprefix("b/")
