"""What is known of a run so far, folded from its events: what every report is made from."""

from __future__ import annotations

import shlex
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from penstock.events import (
    ActivityChanged,
    CoverageRead,
    EarlyBegun,
    EarlyDropped,
    EngineConnected,
    Event,
    OutputWritten,
    RunFinished,
    RunStarted,
    ServiceFailed,
    ServicePrepared,
    ServiceStarted,
    ServiceStopped,
    StageFinished,
    StageRetried,
    StagesAdded,
    StageStarted,
    TestsRead,
    Warned,
)
from penstock.evidence import FAILED, TestResult
from penstock.model import BROKEN, Result

if TYPE_CHECKING:
    from penstock.evidence import FileCoverage, TestCase
    from penstock.model import Attempt, Outcome, Stage

KEPT_CHARACTERS = 64_000  # of the output of a stage or service
SMALL = 8  # times a piece fits in there if it is dropped whole, as it is the listeners' common one


class Tail:
    """The last lines of an output, within bounds.

    Args:
        most: Characters that are kept.
    """

    def __init__(self, most: int = KEPT_CHARACTERS) -> None:
        self._most = most
        self._pieces: deque[str] = deque()
        self._kept = 0
        self.dropped = 0

    def write(self, text: str) -> None:
        """Add text behind what is there."""
        if len(text) > self._most:
            self.dropped += len(text) - self._most
            text = text[-self._most :]
        self._pieces.append(text)
        self._kept += len(text)
        while self._kept > self._most:
            first = self._pieces.popleft()
            gone = len(first)
            if gone > self._most // SMALL:  # else few words would drive out all that came at once
                gone = min(gone, self._kept - self._most)
            if rest := first[gone:]:
                self._pieces.appendleft(rest)
            self._kept -= gone
            self.dropped += gone

    @property
    def last_line(self) -> str:
        """The last line that is not blank."""
        for piece in reversed(self._pieces):
            for line in reversed(piece.splitlines()):
                if line.strip():
                    return line
        return ""

    def __str__(self) -> str:
        """Return what is kept, from the beginning of a line when something was dropped."""
        text = "".join(self._pieces)
        begun, _, lines = text.partition("\n")
        # What is left of a line that is most of it all is better than nothing.
        return lines if self.dropped and len(begun) < self._most // 2 and lines else text

    def completed(self, end: str) -> str:
        """Return what is kept and, of the end of the same output, what has not come yet.

        Args:
            end: A line with the command, and the last lines that it printed.
        """
        kept, late = str(self).rstrip("\n").split("\n"), end.split("\n")[1:]
        if not any(kept):
            return end
        for known in range(len(late), 0, -1):
            if kept[-known:] == late[:known]:
                return "\n".join([*kept, *late[known:]])
        has_come = not late or late[-1] in kept[-len(late) :]  # in another order
        return "\n".join(kept if has_come else [*kept, "[...]", *late])


@dataclass
class StageView:
    """A stage as far as the run has come.

    Args:
        stage: Its definition.
        started_s: When it started, in seconds since the run began.
        ended_s: When it came to its result.
        outcome: Its result.
        attempts: Those that failed and were followed by another one.
        output: The last of what it printed.
        activity: What the engine does for it.
        is_early: Whether its work is begun although it has not started.
        tests: All of its tests, in the last attempt.
        failed_before: Its tests that failed in an earlier attempt.
        coverage: What its coverage report says; `files` hold those of all events.
    """

    stage: Stage
    started_s: float | None = None
    ended_s: float | None = None
    outcome: Outcome | None = None
    attempts: list[Attempt] = field(default_factory=list)
    output: Tail = field(default_factory=Tail)
    activity: str = ""
    is_early: bool = False
    tests: list[TestCase] = field(default_factory=list)
    failed_before: list[TestCase] = field(default_factory=list)
    coverage: CoverageRead | None = None
    files: list[FileCoverage] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What people call it."""
        return self.stage.title or self.stage.name

    @property
    def word(self) -> str:
        """Its result and the reason for it, in words: `FAILED (exit code 1)`."""
        if self.outcome is None:
            return "RUNNING" if self.is_running else "WAITING"
        word, reason = self.outcome.result.label, self.outcome.reason.partition("\n")[0]
        if self.outcome.allowed:
            return f"WARNING ({word}, which is allowed{reason and ': '}{reason})"
        if self.outcome.passed:
            return self.outcome.label
        return f"{word} ({reason})" if reason else word

    @property
    def is_running(self) -> bool:
        """Whether it was started and has no result yet."""
        return self.started_s is not None and self.outcome is None

    @property
    def failed_tests(self) -> list[TestCase]:
        """The tests that failed or could not run."""
        return [c for c in self.tests if c.result in FAILED]

    @property
    def flaky_tests(self) -> list[TestCase]:
        """The tests that passed after an attempt in which they had failed, as they failed."""
        passed = {(c.suite, c.name) for c in self.tests if c.result is TestResult.PASSED}
        failed = {(c.suite, c.name): c for c in self.failed_before}
        return [case for test, case in failed.items() if test in passed]


@dataclass
class ServiceView:
    """A service as far as the run has come.

    Args:
        name: Its name, with that of its matrix cell.
        prepared: What was made for it, and how long that took in seconds.
        ready_s: How long it took until it was healthy.
        started_at_s: When it was, in seconds since the run began.
        stopped_at_s: When nothing was left of it.
        reason: Why it failed; empty when it did not.
        output: The last of what it printed.
        activity: What the engine does for it.
    """

    name: str
    prepared: list[tuple[str, float]] = field(default_factory=list)
    ready_s: float | None = None
    started_at_s: float | None = None
    stopped_at_s: float | None = None
    reason: str = ""
    output: Tail = field(default_factory=Tail)
    activity: str = ""


@dataclass
class RunView:
    """A listener that keeps what the reports show.

    Args:
        started: The beginning of the run.
        finished: Its verdict.
        engine: Version of the engine.
        now_s: Time of the last event, in seconds since the run began.
        stages: By name, in definition order; those found out behind the others.
        services: By name, in the order of their first event.
        warnings: What was warned of.
    """

    started: RunStarted | None = None
    finished: RunFinished | None = None
    engine: str = ""
    now_s: float = 0.0
    stages: dict[str, StageView] = field(default_factory=dict)
    services: dict[str, ServiceView] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take one event; events of stages that were never announced are left out."""
        self.now_s = max(self.now_s, event.at_s)
        match event:
            case RunStarted():
                self.started = event
                self._add(event.stages)
            case StagesAdded():
                self._add(event.stages)
            case EngineConnected() | Warned() | RunFinished():
                self._run(event)
            case ServicePrepared() | ServiceStarted() | ServiceFailed() | ServiceStopped():
                self._service(event)
            case OutputWritten() | ActivityChanged():
                self._source(event)
            case EarlyBegun() | EarlyDropped():
                if view := self.stages.get(event.stage):
                    _early(view, event)
            case StageStarted() | StageRetried() | StageFinished() | TestsRead() | CoverageRead():
                if view := self.stages.get(event.stage):
                    _stage(view, event)

    def _add(self, stages: tuple[Stage, ...]) -> None:
        self.stages |= {stage.name: StageView(stage) for stage in stages}

    def _of(self, service: str) -> ServiceView:
        return self.services.setdefault(service, ServiceView(service))

    def _run(self, event: EngineConnected | Warned | RunFinished) -> None:
        match event:
            case EngineConnected():
                self.engine = event.version
            case Warned():
                self.warnings.append(event.message)
            case RunFinished():
                self.finished = event

    def _source(self, event: OutputWritten | ActivityChanged) -> None:
        view = self._of(event.service) if event.service else self.stages.get(event.stage)
        match event:
            case OutputWritten() if view:
                view.output.write(event.text)
            case ActivityChanged() if view:
                view.activity = event.what

    def _service(
        self, event: ServicePrepared | ServiceStarted | ServiceFailed | ServiceStopped
    ) -> None:
        view = self._of(event.service)
        match event:
            case ServicePrepared():
                view.prepared.append((event.what, event.duration_s))
            case ServiceStarted():
                view.ready_s = event.duration_s
                view.started_at_s = event.at_s
            case ServiceFailed():
                view.reason = f"{event.what}: {event.reason}"
            case ServiceStopped():
                view.stopped_at_s = event.at_s

    @property
    def verdict(self) -> str:
        """How it ended, in words."""
        if self.finished is None:
            return "The run has not ended"
        if self.finished.result is not Result.SUCCESS:
            # What a stage is to blame for stands with that stage.
            reason = "" if self.finished.root else self.finished.reason
            return f"PIPELINE STOPPED ({reason})" if reason else "PIPELINE STOPPED"
        if self.finished.warnings:
            return f"Passed with warnings: {', '.join(self.finished.warnings)} failed, which is allowed"
        outcomes = [view.outcome for view in self.stages.values() if view.outcome]
        if skipped := sum(outcome.result is Result.SKIP for outcome in outcomes):
            return f"All {len(outcomes) - skipped} stages that ran passed, {skipped} skipped"
        return "All stages passed"

    @property
    def reproduce(self) -> str:
        """The command that shows the failure again; empty when no stage is to blame."""
        names = [v.stage.name for v in self.failed if v.outcome and not v.outcome.allowed]
        return (
            f"{self.started.reproduce} --only {shlex.quote(names[0])}"
            if self.started and names
            else ""
        )

    @property
    def failed(self) -> list[StageView]:
        """The stages that went wrong, the one at fault first, allowed failures last."""
        root = self.finished.root if self.finished else ""
        views = [v for v in self.stages.values() if v.outcome and v.outcome.result in BROKEN]
        return sorted(
            views, key=lambda v: (v.outcome is not None and v.outcome.allowed, v.stage.name != root)
        )

    @property
    def critical_path(self) -> list[str]:
        """The stages that decided how long the run took: from the last end, backwards by needs."""
        path: list[str] = []
        candidates = [v for v in self.stages.values() if v.started_s is not None]
        while candidates:
            last = max(candidates, key=lambda v: v.ended_s if v.ended_s is not None else self.now_s)
            path.append(last.stage.name)
            candidates = [v for v in self._before(last) if v.stage.name not in path]
        return path[::-1]

    def _before(self, view: StageView) -> list[StageView]:
        """Return the nearest stages before one that ran: what was skipped kept nobody waiting."""
        found: list[StageView] = []
        seen = {view.stage.name}
        rest = list(view.stage.needs)
        while rest:
            need = self.stages.get(rest.pop(0))
            if need is None or need.stage.name in seen:
                continue
            seen.add(need.stage.name)
            if need.started_s is None:
                rest += need.stage.needs
            else:
                found.append(need)
        return found


def _early(view: StageView, event: EarlyBegun | EarlyDropped) -> None:
    view.is_early = isinstance(event, EarlyBegun)
    if isinstance(event, EarlyDropped):
        view.output = Tail()
        if view.outcome:
            dropped = f"begun early (--speculate), thrown away: {event.reason}"
            view.outcome = replace(view.outcome, why=(*view.outcome.why, dropped))


def _stage(
    view: StageView,
    event: StageStarted | StageRetried | StageFinished | TestsRead | CoverageRead,
) -> None:
    match event:
        case StageStarted():
            view.started_s = event.at_s
            view.is_early = False
        case StageRetried():
            view.attempts.append(event.attempt)
            view.output = Tail()  # what earlier attempts printed is in their own logs
            view.failed_before += view.failed_tests
            view.tests, view.files, view.coverage = [], [], None
        case TestsRead():
            view.tests += event.cases
        case CoverageRead():
            view.coverage = event
            view.files += event.files
        case StageFinished():
            view.outcome = event.outcome
            view.ended_s = event.at_s
            view.activity = ""
            if view.is_early:  # and is thrown away now
                view.output = Tail()
