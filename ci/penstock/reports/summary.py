"""The run as one page of Markdown, of bounded size, for a CI host's summary or a comment."""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from penstock.model import Result
from penstock.reports.literal import literal, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.reports.view import RunView, StageView

MOST_BYTES = 1_000_000
MOST_ROWS = 50
MOST_OUTPUT = 20_000  # characters of one output
LEFT_OUT = "\nShortened: the reports folder holds the rest.\n"

# What means something within a line; as a reference it does not, in a table neither. The colon and
# the dot make links; so does `@`, even as a reference, unless something parts it from what follows.
# What means something only where a line begins never stands there.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&@!$^'\"]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def summary(view: RunView, most_bytes: int = MOST_BYTES) -> str:
    """Return the page; of its parts, those behind the verdict are cut to keep it in bounds."""
    page = _Page(most_bytes - len(LEFT_OUT.encode()))
    page.add(_verdict(view), is_needed=True)
    rows = (_stage(stage) for stage in view.stages.values())
    page.table(("Stage", "Result", "Time", "Notes"), rows, len(view.stages), most=500)
    for stage in view.failed:
        found = stage.outcome.findings if stage.outcome else ()
        if found:
            page.add(f"\n### {_text(stage.title)}: {_text(stage.word)}\n")
        places = ((f"{f.file}:{f.line}" if f.line else f.file, f) for f in found)
        rows = ((_code(place), _code(f.code), _text(f.message)) for place, f in places)
        page.table(("Place", "Test or rule", "Message"), rows, len(found))
    _services(view, page)
    _images(view, page)
    page.list(f"WARNING: {_text(warning)}" for warning in view.warnings)
    for stage in view.stages.values():
        _coverage(stage, page)
    for stage in view.failed:
        output = stage.output.completed(stage.outcome.output if stage.outcome else "")
        page.details(f"Last output of {stage.stage.name}", output)
        for case in stage.failed_tests[:MOST_ROWS]:
            page.details(f"{case.suite}: {case.name}", case.detail)
    return str(page)


@dataclass
class _Page:
    """Text that takes what fits into it.

    Args:
        room: Bytes that are left.
    """

    room: int
    _pieces: list[str] = field(default_factory=list)
    _is_cut: bool = False

    def add(self, piece: str, *, is_needed: bool = False) -> bool:
        """Add a piece whole, if it fits or has to."""
        size = len(piece.encode(errors="backslashreplace"))
        if size > self.room and not is_needed:
            self._is_cut = True
            return False
        self.room -= size
        self._pieces.append(piece)
        return True

    def table(
        self,
        head: tuple[str, ...],
        rows: Iterable[tuple[str, ...]],
        count: int,
        most: int = MOST_ROWS,
    ) -> None:
        """Add a table of as many rows as fit; without any, none."""
        top = f"\n{_row(head)}{_row(('---',) * len(head))}"
        shown = 0
        for row in islice(rows, most):
            if not self.add(f"{'' if shown else top}{_row(row)}"):
                break
            shown += 1
        if shown < count:
            self.add(f"\nand {count - shown} more\n")

    def list(self, items: Iterable[str]) -> None:
        """Add a list of as many items as fit."""
        gap = "\n"
        for item in items:
            if self.add(f"{gap}- {item}\n"):
                gap = ""

    def details(self, title: str, text: str) -> None:
        """Add the end of an untrusted text, folded up."""
        if text.strip():
            shown = literal(text[-MOST_OUTPUT:])
            self.add(
                f"\n<details><summary>{_text(title)}</summary>\n\n{_block(shown)}\n</details>\n"
            )

    def __str__(self) -> str:
        """Return it, and whether something is missing."""
        return "".join(self._pieces) + (LEFT_OUT if self._is_cut else "")


def _verdict(view: RunView) -> str:
    lines = [f"## {_text(view.verdict)}{_mark(view)}", ""]
    if started := view.started:
        facts = [f"Pipeline {_text(started.pipeline)}", f"commit {_code(started.commit)}"]
        facts += [f"branch {_code(started.branch)}"] if started.branch else []
        facts += [f"engine {_text(view.engine)}"] if view.engine else []
        took = view.finished.duration_s if view.finished else view.now_s
        lines.append(", ".join([*facts, f"{took:.1f} s"]))
    lines += [f"\n**{_text(stage.title)}: {_text(stage.word)}**" for stage in view.failed[:1]]
    if view.reproduce:
        lines += ["", "Reproduce it:", "", _block(literal(view.reproduce[:2_000]))]
    return "\n".join(lines).rstrip("\n") + "\n"


def _mark(view: RunView) -> str:
    if view.finished is None:
        return ""
    return " ✓" if view.finished.result is Result.SUCCESS else " ✗"


def _stage(stage: StageView) -> tuple[str, ...]:
    outcome = stage.outcome
    took = f"{outcome.duration_s:.1f} s" if outcome and stage.started_s is not None else ""
    notes = list(outcome.notes) if outcome else []
    notes += [f"tried before: {a.result.label} ({a.reason})" for a in stage.attempts]
    return _text(stage.title), _text(stage.word), took, _text("; ".join(notes))


def _services(view: RunView, page: _Page) -> None:
    for service in view.services.values():
        if service.reason:
            page.add(f"\n### {_text(service.name)}: {_text(service.reason)}\n")
            page.details(f"Last output of {service.name}", str(service.output))


def _images(view: RunView, page: _Page) -> None:
    outcomes = [stage.outcome for stage in view.stages.values() if stage.outcome]
    notes = [note.partition(": ") for outcome in outcomes for note in outcome.notes]
    pushed = [(words, image) for words, _, image in notes if words.startswith("Pushed")]
    page.list(f"{_text(words)}: {_code(image)}" for words, image in pushed)


def _coverage(stage: StageView, page: _Page) -> None:
    if stage.coverage is None:
        return
    least = stage.coverage.threshold
    gate = "" if least is None else f", threshold {least:g}%"
    percent = math.floor(stage.coverage.percent)  # 79.99 % never reads as a passed 80 % gate
    page.add(f"\n### Coverage of {_text(stage.stage.name)}: {percent}%{gate}\n")
    files = sorted((f for f in stage.files if f.missing), key=lambda f: f.percent)
    rows = ((_code(f.file), f"{math.floor(f.percent)}%", _text(f.missing)) for f in files)
    page.table(("File", "Covered", "Not executed"), rows, len(files))


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _text(words: str) -> str:
    """Return untrusted words so that they stand in one line and mean nothing to Markdown."""
    return _MARKUP.sub(_reference, one_line(words, 300))


def _reference(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};{'<!-- -->' if found[0] == '@' else ''}"


def _code(words: str) -> str:
    return f"<code>{_text(words)}</code>" if words.strip() else ""


def _block(text: str) -> str:
    """Return lines as they are; only the closing tag ends it, and there can be none in the text."""
    return f"<pre>\n{html.escape(text, quote=False)}\n</pre>\n"
