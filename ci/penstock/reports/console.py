"""The terminal: one line for each thing that ended, failures last and with their reason."""

from __future__ import annotations

import errno
import io
import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

from rich.console import Console
from rich.text import Text

from penstock.events import (
    Event,
    RunFinished,
    RunStarted,
    RunStopped,
    ServiceFailed,
    ServicePrepared,
    ServiceStarted,
    StageFinished,
    StageRetried,
    StagesAdded,
    Warned,
)
from penstock.model import Outcome, Result

if TYPE_CHECKING:
    from penstock.model import Stage

logger = logging.getLogger(__name__)

LEADER_WIDTH = 42
MOST_FINDINGS = 10
STYLES = {
    Result.SUCCESS: "green",
    Result.FAILURE: "bold red",
    Result.ERROR: "bold red",
    Result.TIMEOUT: "bold red",
    Result.CANCELLATION: "yellow",
    Result.SKIP: "yellow",
}


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave it to whoever prints; rich itself would end the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class ConsoleReport:
    """Writes a run for people, as long as they read it.

    Args:
        stream: Where to; colours, width and encoding follow what it can do.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self._console = _Console(file=stream, highlight=False, soft_wrap=True, emoji=False)
        unicode = (getattr(stream, "encoding", None) or "ascii").lower().startswith("utf")
        self._yes, self._no = (" ✓", " ✗") if unicode else ("", "")
        self._plans: dict[str, Stage] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._prepared: dict[str, str] = {}
        self._reproduce = ""
        self._lost = ""

    def __call__(self, event: Event) -> None:
        """Take one event."""
        try:
            self._show(event)
        except OSError as error:
            self._fall_silent(error)

    def _fall_silent(self, error: OSError) -> None:
        """Drop the output from here on: its reader has gone or its disk is full, the run goes on."""
        self._console.quiet = True
        # What is still buffered would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._console.file.fileno())
        if not isinstance(error, BrokenPipeError):
            logger.warning("WARNING: cannot print any more (%s); the run goes on", error.strerror)

    def _show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._plans = {plan.name: plan for plan in event.stages}
                self._reproduce = event.reproduce
            case ServicePrepared() | ServiceStarted() | ServiceFailed():
                self._service(event)
            case StagesAdded():
                self._plans |= {stage.name: stage for stage in event.stages}
            case StageRetried():
                title = self._plans[event.stage].title
                words = f"trying again in {event.delay_s:.1f} s ({event.attempt.reason})"
                self._line(f"{title}: {words}", "", "yellow")
            case RunStopped():
                self._stop(event)
            case StageFinished():
                self._outcomes[event.stage] = event.outcome
                self._stage(self._plans[event.stage].title, event.outcome)
            case Warned():
                self._line(f"WARNING: {event.message}", "", "yellow")
            case RunFinished():
                self._summary(event)

    def _service(self, event: ServicePrepared | ServiceStarted | ServiceFailed) -> None:
        match event:
            case ServicePrepared() if event.what != "image":
                self._prepared[event.service] = f"      {event.what} ... DONE"
            case ServiceStarted():
                what = f"{event.service}: started, health check passed{self._yes}"
                prepared = self._prepared.get(event.service, "")
                self._line(what, f"  {event.duration_s:.1f} s{prepared}", "green")
            case ServiceFailed():
                self._line(f"{event.service}: {event.what} ... FAILED{self._no}", "", "bold red")
                self._line(f"  {event.reason}")

    def _stop(self, event: RunStopped) -> None:
        """Say what stops the run from outside; a gate that failed has its own line."""
        match event.result:
            case Result.CANCELLATION:
                self._line(f"Stopping: {event.reason}; once more ends it at once", "", "yellow")
            case Result.TIMEOUT:
                self._line(f"Stopping: {event.reason.removeprefix('because ')}", "", "yellow")
            case Result.ERROR:
                self._lost = event.reason

    def _line(self, text: str, rest: str = "", style: str = "") -> None:
        self._console.print(Text(text, style=style) + Text(rest, style="dim" if rest else ""))

    def _stage(self, title: str, outcome: Outcome) -> None:
        line = Text(f"{title} ".ljust(LEADER_WIDTH - 1, ".") + " ")
        if outcome.result is Result.SKIP or outcome.result is Result.CANCELLATION:
            line = Text(f"{title}: ")
        line.append(self._word(outcome, self._no), _style(outcome))
        if outcome.result not in {Result.SKIP, Result.CANCELLATION}:
            line.append(f"  {outcome.duration_s:4.1f} s", "dim")
        self._console.print(line)
        for note in outcome.notes:
            self._line(f"  {note}")

    def _word(self, outcome: Outcome, mark: str = "") -> str:
        """Return the result and its reason; a result that stopped something bears the mark."""
        word = outcome.result.label
        reason = outcome.reason.partition("\n")[0]
        if reason and reason == self._lost:  # said once, in full, at the end
            reason = "because there is no engine"
        if outcome.allowed:
            return f"WARNING ({word}, which is allowed{reason and ': '}{reason})"
        if outcome.result is Result.SUCCESS:
            return f"{word} (cached){self._yes}" if outcome.cached else f"{word}{self._yes}"
        if outcome.result is Result.SKIP or outcome.result is Result.CANCELLATION:
            mark = ""
        return f"{word}{mark} ({reason})" if reason else f"{word}{mark}"

    def _summary(self, event: RunFinished) -> None:
        broken = {Result.FAILURE, Result.ERROR, Result.TIMEOUT}
        found = {n: o for n, o in self._outcomes.items() if o.result in broken}
        # The stage at fault comes first, whatever else went wrong after it.
        failed = sorted(found, key=lambda name: (found[name].allowed, name != event.root))
        for name in failed:
            self._failure(name, found[name])
        took = f"   {event.duration_s:.1f} s   report: reports/run.json"
        if event.result is Result.SUCCESS:
            self._line(f"{self._passed(event)}{self._yes}", took, "bold green")
            return
        self._line("")
        # What a stage is to blame for stands with that stage.
        reason = "" if event.root or not event.reason else f" ({event.reason})"
        self._line(f"PIPELINE STOPPED{self._no}{reason}", took, "bold red")
        for name in [name for name in failed if not found[name].allowed][:1]:
            self._line(f"reproduce: {self._reproduce} --only {shlex.quote(name)}")

    def _passed(self, event: RunFinished) -> str:
        if event.warnings:
            return f"Passed with warnings: {', '.join(event.warnings)} failed, which is allowed"
        if skipped := sum(o.result is Result.SKIP for o in self._outcomes.values()):
            ran = len(self._outcomes) - skipped
            return f"All {ran} stages that ran passed, {skipped} skipped"
        return "All stages passed"

    def _failure(self, name: str, outcome: Outcome) -> None:
        self._line("")
        self._line(f"{self._plans[name].title}: {self._word(outcome)}", "", _style(outcome))
        for line in outcome.output.splitlines():
            self._line(f"  | {line}")
        for finding in outcome.findings[:MOST_FINDINGS]:
            self._line(f"  {finding}", "", "red")
        if (more := len(outcome.findings) - MOST_FINDINGS) > 0:
            self._line(f"  and {more} more: reports/run.json", "", "red")


def _style(outcome: Outcome) -> str:
    return "yellow" if outcome.allowed else STYLES[outcome.result]
