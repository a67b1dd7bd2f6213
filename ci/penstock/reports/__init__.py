"""Listeners on the event stream, one file each; here is what a run or its record is shown by."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.config import RunInfo
    from penstock.events import Listener
    from penstock.redact import Redactor
    from penstock.reports.terminal import Color


@dataclass(frozen=True, kw_only=True)
class Look:
    """How people, or programs, want to see a run.

    Args:
        verbosity: -1 for failures and the verdict only, 1 for the output of every stage too.
        color: `auto`, `always` or `never`.
        json: Events go to the standard output, a line each, and the words for people elsewhere.
    """

    verbosity: int = 0
    color: Color = "auto"
    json: bool = False


@contextmanager
def shown(look: Look, run: RunInfo, redactor: Redactor) -> Iterator[list[Listener]]:
    """Have a run shown everywhere while it lasts: on the terminal, in files, on its CI host."""
    from penstock.reports.console import ConsoleReport
    from penstock.reports.github import GitHubReport
    from penstock.reports.logs import CutLogs
    from penstock.reports.otel import TelemetryReport, signals
    from penstock.reports.record import Record

    verbosity = max(look.verbosity, 1) if run.environ.get("RUNNER_DEBUG") == "1" else look.verbosity
    stream = sys.stderr if look.json else sys.stdout
    with ExitStack() as stack:
        record = Record(run.reports)
        console = ConsoleReport(
            stream,
            verbosity=verbosity,
            color=look.color,
            environ=run.environ,
            live=False if look.json and sys.stdout.isatty() else None,  # both on one terminal
        )
        listeners: list[Listener] = [stack.enter_context(console), record, CutLogs(run.reports)]
        if look.json:
            from penstock.reports.jsonlines import JsonLines

            listeners.append(JsonLines())
        listeners += files(run.reports)
        if signals(run.environ):
            from penstock.live import span_id, trace_id

            spans = partial(span_id, run.id)
            listeners.append(
                TelemetryReport(
                    trace_id=trace_id(run.id),
                    span_ids=spans,
                    repository=run.remote(),
                    environ=run.environ,
                )
            )
        if GitHubReport.wanted(run.environ):
            from penstock.reports.annotations import changed_lines

            changed = changed_lines(run.diff())
            listeners.append(GitHubReport(run.environ, stream, redactor=redactor, changed=changed))
        yield listeners


def files(folder: Path) -> list[Listener]:
    """Return what writes the reports that can be made again from the events."""
    from penstock.reports.junit import JUnitReport
    from penstock.reports.page import PageReport

    return [JUnitReport(folder), PageReport(folder)]
