"""`run.json` and `events.jsonl`: the run for machines, in the form that `schemas/` describes."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING

from penstock.errors import FolderError
from penstock.events import (
    CoverageRead,
    Event,
    OutputWritten,
    RunFinished,
    RunStarted,
    StageFinished,
    TestsRead,
    masked,
    plain,
    to_dict,
)
from penstock.evidence import FAILED
from penstock.export import remove
from penstock.folder import make_private, remove_ways_out, write_whole
from penstock.model import Outcome, Result
from penstock.reports import junit
from penstock.reports.reading import shortened
from penstock.reports.view import RunView, ServiceView, StageView
from penstock.state import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from penstock.evidence import TestCase

logger = logging.getLogger(__name__)

SCHEMA = "penstock.run/1"
RUN, EVENTS, PAGE = "run.json", "events.jsonl", "index.html"
LOG_FOLDER = "logs"
RESERVED = (RUN, EVENTS, PAGE, LOG_FOLDER, junit.OTHER_FILE)  # no stage may keep these
OWN_FILES = (RUN, EVENTS, PAGE, junit.OTHER_FILE, junit.FILE)
MOST_OUTPUT = 256 * 1024  # characters of what one stage or service prints
MOST_LINE = 64 * 1024  # bytes, the line feed included: what shippers of JSON Lines bear
MOST_FINDINGS = 100  # of an event that would be too long otherwise
LEFT_OUT = "\n[the rest of this output is not recorded here: it is more than 256 KiB]\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCounts:
    """How many tests ended how.

    Args:
        passed: Those that passed.
        failed: Those that failed or could not run.
        skipped: Those that were skipped.
    """

    __test__ = False

    passed: int
    failed: int
    skipped: int

    @classmethod
    def of(cls, cases: Iterable[TestCase]) -> TestCounts:
        """Count tests."""
        counts = Counter("failed" if case.result in FAILED else case.result.value for case in cases)
        return cls(**{field.name: counts[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRecord:
    """What a stage's coverage report says.

    Args:
        percent: Of everything.
        threshold: Least percent that was asked for, if any was.
    """

    percent: float
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """What became of a service that was started.

    Args:
        name: Its name, with that of its matrix cell.
        result: `success` when it became healthy and did not die, else `error`.
        ready_s: How long it took until it was healthy, if it ever was.
        reason: Why it failed.
    """

    name: str
    result: Result
    ready_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class _Planned:
    name: str
    title: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StageRecord(Outcome, _Planned):
    """What became of a stage.

    Args:
        name: Unique; a cell of a matrix carries its values, `test[python=3.12]`.
        title: For people.
        needs: Names of the stages that come before it.
        started_s: When it started, in seconds since the run began; absent when it never did.
        tests: Its tests, if it has a JUnit report.
        coverage: Its coverage, if it has a report of it.
    """

    started_s: float | None = None
    tests: TestCounts | None = None
    coverage: CoverageRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A whole run: the content of `run.json`.

    Args:
        schema: This form; another number after the slash is another form.
        pipeline: Its name.
        run_id: Unique for the run.
        commit: Full SHA of the commit under test, or `uncommitted`.
        branch: Name of the branch; empty when there is none.
        started_at: When, in ISO 8601.
        engine: Version of the Dagger engine; empty when none answered.
        result: The verdict.
        exit_code: Of the whole run.
        reason: Why it did not simply pass, in words.
        root: The stage at fault, if one is.
        warnings: Stages whose failure is allowed.
        duration_s: Wall time.
        critical_path: The stages that decided how long the run took, in order.
        services: Those that were started.
        stages: All stages, in the order of their definition.
    """

    schema: str = SCHEMA
    pipeline: str
    run_id: str
    commit: str
    branch: str = ""
    started_at: str
    engine: str = ""
    result: Result
    exit_code: int
    reason: str
    root: str
    warnings: tuple[str, ...]
    duration_s: float
    critical_path: tuple[str, ...] = ()
    services: tuple[ServiceRecord, ...]
    stages: tuple[StageRecord, ...]


class Record:
    """Writes each event as it comes, and the record of the run at its end.

    Args:
        folder: The reports folder.
        is_new: Whether a run begins: what the last one left is deleted, and its events are written.
            Else they are there already, and only `run.json` is made from them.

    Raises:
        FolderError: When nothing can be written there. Later on, what cannot be written is warned
            of and left out: the result of a run does not depend on its record.
    """

    def __init__(self, folder: Path, *, is_new: bool = True) -> None:
        self._folder = folder
        self._events = folder / EVENTS if is_new else None
        try:
            if self._events is None:
                folder.mkdir(parents=True, exist_ok=True)
            else:
                make_private(folder)
                remove_ways_out(folder)
                clear(folder)
                self._events.touch()
        except OSError as error:
            raise FolderError(folder, error) from error
        self._view = RunView()
        self._written: Counter[tuple[str, str]] = Counter()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        for part, line in _fitting(self._capped(event)):
            self._append(line)
            # The record knows what the file knows, so that it can be made again from the file.
            self._view(part)
        if isinstance(event, RunFinished) and self._view.started:
            self._finish(self._view.started, event)

    def _capped(self, event: Event) -> Event | None:
        """Return an event with as much output as its stage or service may still write."""
        if not isinstance(event, OutputWritten):
            return event
        source = (event.stage, event.service)
        room = MOST_OUTPUT - self._written[source]
        self._written[source] += len(event.text)
        if len(event.text) <= room:
            return event
        return None if room < 0 else replace(event, text=event.text[:room] + LEFT_OUT)

    def _append(self, line: str) -> None:
        if self._events is None:
            return
        try:
            # Opened anew, it costs 17 us instead of 3, and leaves nothing that has to be closed.
            with self._events.open("a", encoding="ascii") as lines:
                lines.write(line)
        except OSError as error:
            _warn(self._events, error)
            self._events = None  # a reader bears half a line at the end only

    def _finish(self, started: RunStarted, event: RunFinished) -> None:
        view = self._view
        record = RunRecord(
            pipeline=started.pipeline,
            run_id=started.run_id,
            commit=started.commit,
            branch=started.branch,
            started_at=started.started_at,
            engine=view.engine,
            result=event.result,
            exit_code=event.exit_code,
            reason=event.reason,
            root=event.root,
            warnings=event.warnings,
            duration_s=event.duration_s,
            critical_path=tuple(view.critical_path),
            services=tuple(_services(view.services.values())),
            stages=tuple(map(_stage, view.stages.values())),
        )
        path = self._folder / RUN
        try:
            write_whole(path, to_json(plain(record)))
        except OSError as error:
            _warn(path, error)


def _services(views: Iterable[ServiceView]) -> Iterator[ServiceRecord]:
    for view in views:
        if view.reason or view.ready_s is not None:
            yield ServiceRecord(
                name=view.name,
                result=Result.ERROR if view.reason else Result.SUCCESS,
                ready_s=view.ready_s,
                reason=view.reason,
            )


def _stage(view: StageView) -> StageRecord:
    outcome = view.outcome or Outcome(result=Result.ERROR, reason="its end is not recorded")
    read = view.coverage
    return StageRecord(
        name=view.stage.name,
        title=view.stage.title,
        needs=view.stage.needs,
        started_s=view.started_s,
        tests=TestCounts.of(view.tests) if view.tests else None,
        coverage=CoverageRecord(percent=read.percent, threshold=read.threshold) if read else None,
        **{field.name: getattr(outcome, field.name) for field in fields(Outcome)},
    )


def _fitting(event: Event | None) -> Iterator[tuple[Event, str]]:
    """Yield an event and its line; one too long for a line in parts or, where it has none, shorter.

    The plan, and the list of what a stage left in the reports folder, stay whole at any length: half
    of one would be wrong.
    """
    if event is None:
        return
    # ASCII only: what a program printed can neither break a line nor act on a terminal.
    line = f"{json.dumps(to_dict(event))}\n"
    if len(line) > MOST_LINE and (halves := _halves(event)):
        for half in halves:
            yield from _fitting(half)
        return
    for most in (4000, 400):
        if len(line) > MOST_LINE:
            event = masked(_with_fewer_findings(event), partial(shortened, most=most))
            line = f"{json.dumps(to_dict(event))}\n"
    yield event, line


def _halves(event: Event) -> tuple[Event, ...]:
    """Return an event as two that say the same, if there are such."""
    match event:
        case OutputWritten(text=text) if middle := len(text) // 2:
            at = text.rfind("\n", 0, middle) + 1 or middle
            return replace(event, text=text[:at]), replace(event, text=text[at:])
        case TestsRead(cases=cases) if middle := len(cases) // 2:
            return replace(event, cases=cases[:middle]), replace(event, cases=cases[middle:])
        case CoverageRead(files=files) if middle := len(files) // 2:
            return replace(event, files=files[:middle]), replace(event, files=files[middle:])
    return ()


def _with_fewer_findings(event: Event) -> Event:
    if not isinstance(event, StageFinished):
        return event
    outcome = event.outcome
    if (more := len(outcome.findings) - MOST_FINDINGS) <= 0:
        return event
    notes = (*outcome.notes, f"{more} more problems are not recorded")
    outcome = replace(outcome, findings=outcome.findings[:MOST_FINDINGS], notes=notes)
    return replace(event, outcome=outcome)


def _warn(path: Path, error: OSError) -> None:
    message = "WARNING: cannot write %s (%s); the run goes on, its record is incomplete"
    logger.warning(message, path, error.strerror)


def clear(folder: Path) -> None:
    """Delete what the last run left, as far as its record names it, and nothing else."""
    try:
        last = json.loads((folder / RUN).read_text(encoding="utf-8"))
        named = [entry["path"] for stage in last["stages"] for entry in stage.get("artifacts", ())]
        kept = [path for name in named if (path := folder / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        kept = []
    halves = [half for name in OWN_FILES for half in folder.glob(f".{name}.*")]  # of a killed run
    for path in [*kept, *(folder / name for name in OWN_FILES), *halves]:
        if path.resolve().is_relative_to(folder.resolve()):
            remove(path)
