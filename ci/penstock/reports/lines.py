"""The lines of a run for people: one for each thing that ended, failures last and in full."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from penstock.events import (
    BasePrepared,
    EarlyBegun,
    EarlyDropped,
    Event,
    OutputWritten,
    RunFinished,
    RunStopped,
    ServiceFailed,
    ServicePrepared,
    ServiceStarted,
    StageFinished,
    StageRetried,
    StageStarted,
    Warned,
)
from penstock.model import Outcome, Result

if TYPE_CHECKING:
    from penstock.reports.terminal import Terminal
    from penstock.reports.view import RunView, StageView

LEADER_WIDTH = 42
MOST_FINDINGS = 20
QUIET_S = 30.0  # a stage that printed nothing for so long is said to run
LAST_LINE_CELLS = 80  # of its output that are shown then
STYLES = {
    Result.SUCCESS: "green",
    Result.FAILURE: "bold red",
    Result.ERROR: "bold red",
    Result.TIMEOUT: "bold red",
    Result.CANCELLATION: "yellow",
    Result.SKIP: "yellow",
}
UNMARKED = {Result.SKIP, Result.CANCELLATION}  # they stopped nothing and took no time


class Lines:
    """Makes lines from events. Nothing is printed here.

    Args:
        view: What is known of the run, with the event itself.
        terminal: Where they will be shown; its width and encoding are heeded.
        verbosity: -1 for failures and the verdict only, 1 for the output of every stage too.
        tells_starts: Whether a stage that starts has a line.
    """

    def __init__(
        self, view: RunView, terminal: Terminal, *, verbosity: int, tells_starts: bool
    ) -> None:
        self.tells_starts = tells_starts
        self._view = view
        self._terminal = terminal
        self._verbosity = verbosity
        self._yes, self._no = terminal.yes, terminal.no
        self._told_s: dict[str, float] = {}  # when a stage was last heard of
        self._lost = ""
        self._made: list[Text] = []

    def take(self) -> list[Text]:
        """Return what was made since this was last asked."""
        made, self._made = self._made, []
        return made

    def __call__(self, event: Event) -> None:
        """Take one event."""
        match event:
            case OutputWritten() if event.stage and self._verbosity > 0:
                self._told_s[event.stage] = event.at_s
                self._output(event.stage, event.text)
            case BasePrepared() if self._verbosity >= 0:
                how = "pulled from the cache" if event.is_pulled else "made, for the cache to keep"
                self._line(f"{event.base}: {how}{self._yes}", f"  {event.duration_s:.1f} s")
            case ServicePrepared() | ServiceStarted() | ServiceFailed():
                self._service(event)
            case StageStarted() | StageRetried() | StageFinished() | EarlyBegun() | EarlyDropped():
                if view := self._view.stages.get(event.stage):
                    self._told_s[event.stage] = event.at_s
                    self._stage(view, event)
            case RunStopped():
                self._stop(event)
            case Warned():
                self._line(f"WARNING: {event.message}", style="yellow")
            case RunFinished():
                self._summary(event)

    def remind(self, now_s: float) -> None:
        """Say of each stage that has long been silent that it runs."""
        if self._verbosity < 0:
            return
        for name, view in self._view.stages.items():
            if view.is_running and now_s - self._told_s.get(name, 0.0) >= QUIET_S:
                self._told_s[name] = now_s
                words = f"{_title(view)}: still running, {now_s - (view.started_s or 0.0):.0f} s"
                said = view.activity or view.output.last_line
                self._line(words, f"  {self._terminal.glimpse(said, LAST_LINE_CELLS)}".rstrip())

    def _line(self, text: str, *rest: str, style: str = "") -> None:
        """Keep a line; of the rest, what has no place in the terminal's width goes below it."""
        line = Text().append(self._terminal.printable(text), style)
        size = line.cell_len
        for part in map(self._terminal.printable, rest):
            fits = not self._terminal.is_bounded or size + cell_len(part) <= self._terminal.width
            shown = part if fits else f"\n  {part.strip()}"
            size = cell_len(shown) + (size if fits else 0)
            line.append(shown, "dim")
        self._made.append(line)

    def _output(self, source: str, text: str) -> None:
        prefix = f"{source} | "
        for line in text.splitlines():
            self._line(prefix + line)

    def _service(self, event: ServicePrepared | ServiceStarted | ServiceFailed) -> None:
        match event:
            case ServiceStarted() if self._verbosity >= 0:
                made = [w for w, _ in self._view.services[event.service].prepared if w != "image"]
                prepared = [f"      {words} ... DONE" for words in made[-1:]]
                what = f"{event.service}: started, health check passed{self._yes}"
                self._line(what, f"  {event.duration_s:.1f} s", *prepared, style="green")
            case ServiceFailed():
                self._line(f"{event.service}: {event.what} ... FAILED{self._no}", style="bold red")
                for line in event.reason.splitlines():
                    self._line(f"  {line}")

    def _stop(self, event: RunStopped) -> None:
        """Say what stops the run from outside; a gate that failed has its own line."""
        match event.result:
            case Result.CANCELLATION:
                by_signal = event.reason.startswith("interrupted")
                more = "; once more ends it at once" if by_signal else ""
                self._line(f"Stopping: {event.reason}{more}", style="yellow")
            case Result.TIMEOUT:
                self._line(f"Stopping: {event.reason.removeprefix('because ')}", style="yellow")
            case Result.ERROR:
                self._lost = event.reason

    def _stage(
        self,
        view: StageView,
        event: StageStarted | StageRetried | StageFinished | EarlyBegun | EarlyDropped,
    ) -> None:
        if self._verbosity < 0:
            return
        match event:
            case EarlyBegun():
                self._line(f"{_title(view)}: begun early (--speculate)", style="dim")
            case EarlyDropped():
                words = f"begun early, thrown away: {event.reason}"
                self._line(f"{_title(view)}: {words}", style="dim")
            case StageStarted() if self.tells_starts:
                self._line(f"{_title(view)}: started", style="dim")
            case StageRetried():
                words = f"trying again in {event.delay_s:.1f} s ({event.attempt.reason})"
                self._line(f"{_title(view)}: {words}", style="yellow")
            case StageFinished():
                self._result(_title(view), event.outcome)
                for note in event.outcome.notes:
                    self._line(f"  {note}")

    def _result(self, title: str, outcome: Outcome) -> None:
        title = self._terminal.printable(title)
        word = self._terminal.printable(self._word(outcome, self._no))
        took = "" if outcome.result in UNMARKED else f"  {outcome.duration_s:4.1f} s"
        line = Text(self._led(title, word + took, dotted=outcome.result not in UNMARKED))
        self._made.append(line.append(word, _style(outcome)).append(took, "dim"))

    def _led(self, title: str, rest: str, *, dotted: bool) -> str:
        """Return the title and what leads to the rest: a line feed where both are too wide."""
        title = title if dotted else f"{title}:"
        size, leader = cell_len(title), LEADER_WIDTH
        if self._terminal.is_bounded:
            leader = min(leader, self._terminal.width - cell_len(rest))
            if leader <= size:
                return f"{title}\n  "
        dots = leader - size - 2 if dotted else 0
        return f"{title} {'.' * dots} " if dots > 0 else f"{title} "

    def _word(self, outcome: Outcome, mark: str = "") -> str:
        """Return the result and its reason; a result that stopped something bears the mark."""
        word = outcome.result.label
        reason = outcome.reason.partition("\n")[0]
        if reason and reason == self._lost:  # said once, in full, at the end
            was_there = bool(self._view.engine)
            reason = "because the engine was lost" if was_there else "because there is no engine"
        if outcome.allowed:
            return f"WARNING ({word}, which is allowed{reason and ': '}{reason})"
        if outcome.result is Result.SUCCESS:
            return f"{outcome.label}{self._yes}"
        if outcome.result in UNMARKED:
            mark = ""
        return f"{word}{mark} ({reason})" if reason else f"{word}{mark}"

    def _summary(self, event: RunFinished) -> None:
        failed = self._view.failed
        for view in failed:
            if view.outcome:
                self._failure(_title(view), view.outcome)
        took = f"   {event.duration_s:.1f} s", "   report: reports/index.html"
        if event.result is Result.SUCCESS:
            self._line(f"{self._passed(event)}{self._yes}", *took, style="bold green")
            return
        self._line("")
        # What a stage is to blame for stands with that stage.
        reason = "" if event.root or not event.reason else f" ({event.reason})"
        self._line(f"PIPELINE STOPPED{self._no}{reason}", *took, style="bold red")
        at_fault = [v.stage.name for v in failed if v.outcome and not v.outcome.allowed]
        if at_fault and self._view.started:
            reproduce = self._view.started.reproduce
            self._line(f"reproduce: {reproduce} --only {shlex.quote(at_fault[0])}")

    def _passed(self, event: RunFinished) -> str:
        if event.warnings:
            return f"Passed with warnings: {', '.join(event.warnings)} failed, which is allowed"
        outcomes = [view.outcome for view in self._view.stages.values() if view.outcome]
        if skipped := sum(outcome.result is Result.SKIP for outcome in outcomes):
            return f"All {len(outcomes) - skipped} stages that ran passed, {skipped} skipped"
        return "All stages passed"

    def _failure(self, title: str, outcome: Outcome) -> None:
        self._line("")
        self._line(f"{title}: {self._word(outcome)}", style=_style(outcome))
        for line in outcome.output.splitlines():
            self._line(f"  | {line}")
        findings = sorted(outcome.findings, key=lambda finding: not finding.is_error)
        for finding in findings[:MOST_FINDINGS]:
            self._line(f"  {finding}", style="red" if finding.is_error else "yellow")
        if (more := len(findings) - MOST_FINDINGS) > 0:
            self._line(f"  and {more} more: reports/index.html", style="red")


def _title(view: StageView) -> str:
    return view.stage.title or view.stage.name


def _style(outcome: Outcome) -> str:
    return "yellow" if outcome.allowed else STYLES[outcome.result]
