"""GitHub Actions: folds, masks, annotations, the step's summary and its outputs.

Source: actions/runner (`ActionCommand`, `ActionCommandManager`, `FileCommandManager`) and
actions/toolkit (`command.ts`).
"""

from __future__ import annotations

import io
import logging
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from penstock.events import (
    Event,
    RunFinished,
    RunStarted,
    ServiceFailed,
    ServiceStopped,
    StageFinished,
    StageRetried,
    StageStarted,
)
from penstock.reports.annotations import Annotation, annotate
from penstock.reports.literal import literal, one_line
from penstock.reports.summary import MOST_BYTES, summary
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from penstock.redact import Redactor
    from penstock.reports.view import Tail

logger = logging.getLogger(__name__)

_PUSHED = re.compile(r"Pushed: (\S+)")  # a rehearsed image is in no registry that others reach


class GitHubReport:
    """Speaks to the runner of GitHub Actions.

    From the first event to the last one commands are stopped, but for those that are given here:
    nothing that any listener prints, or that reaches the same step's error output, commands the
    runner. So it stands behind the console, whose last words are then fenced too.

    Args:
        environ: The environment of the step.
        stream: Its standard output.
        redactor: Whose secrets the runner shall mask as well.
        changed: The changed lines of each changed file; they come first.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        stream: TextIO | None = None,
        *,
        redactor: Redactor | None = None,
        changed: Mapping[str, set[int]] | None = None,
    ) -> None:
        self._environ = environ
        self._stream: TextIO | None = stream or sys.stdout
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="backslashreplace")
        self._redactor = redactor
        self._changed = changed
        self._view = RunView()
        self._token = secrets.token_hex(16)
        self._is_fenced = False
        self._masked: frozenset[str] = frozenset()

    @staticmethod
    def wanted(environ: Mapping[str, str]) -> bool:
        """Return whether a runner listens."""
        return environ.get("GITHUB_ACTIONS") == "true"

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if self._view.finished:
            return
        if not self._is_fenced or isinstance(event, RunStarted | StageStarted):
            self._mask()
        if isinstance(event, StageRetried) and (stage := self._view.stages.get(event.stage)):
            again = f"{event.attempt.result.label} ({event.attempt.reason}), trying again"
            self._fold(f"{stage.title}: {again}", stage.output)
        self._view(event)
        match event:
            case StageFinished() if stage := self._view.stages.get(event.stage):
                title = f"{stage.title}: {stage.word}, {event.outcome.duration_s:.1f} s"
                self._fold(title, stage.output, event.outcome.output)
            case ServiceFailed():
                output = self._view.services[event.service].output
                self._fold(f"{event.service}: FAILED ({event.reason})", output)
            case ServiceStopped() if self._environ.get("RUNNER_DEBUG") == "1":
                self._fold(f"{event.service}: output", self._view.services[event.service].output)
            case RunFinished():
                self._finish()

    def _mask(self) -> None:
        """Tell of the secrets that are new, and raise the fence."""
        known = self._redactor.needles if self._redactor else frozenset()
        new = sorted(known - self._masked)
        self._masked = known
        if new or not self._is_fenced:
            self._print(self._outside(*(command("add-mask", needle) for needle in new)))

    def _fold(self, title: str, output: Tail, end: str = "") -> None:
        text = literal(output.completed(end))
        if not text.strip():
            return
        before = [f"[{output.dropped} characters before]"] if output.dropped else []
        lines = [*before, *text.removesuffix("\n").split("\n")]
        self._print(
            [
                *self._outside(command("group", one_line(title))),
                *(f"| {line}" for line in lines),  # the page that shows the log has commands too
                *self._outside(command("endgroup")),
            ]
        )

    def _finish(self) -> None:
        checkout = self._environ.get("GITHUB_WORKSPACE", "")
        found = annotate(self._view, self._changed, checkout=checkout)
        *lines, _stop_again = self._outside(*map(_annotation, found))
        self._print(lines)
        given = "".join(_output(name, value) for name, value in outputs(self._view))
        self._append("GITHUB_OUTPUT", lambda _: given)
        self._append("GITHUB_STEP_SUMMARY", lambda there: summary(self._view, MOST_BYTES - there))

    def _outside(self, *commands: str) -> list[str]:
        """Return commands with the fence lowered before them and raised behind them."""
        lowered = [command(self._token)] if self._is_fenced else []
        self._is_fenced = True
        return [*lowered, *commands, command("stop-commands", self._token)]

    def _print(self, lines: list[str]) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()
        except OSError:  # the console says so; what goes into files is still of use
            self._stream = None

    def _append(self, variable: str, text: Callable[[int], str]) -> None:
        """Add a text to the file that a variable names; it is made knowing how much is there."""
        if not (path := self._environ.get(variable)):
            return
        try:
            with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text(file.tell()))
        except OSError as error:
            logger.warning(
                "WARNING: cannot write %s (%s); the run goes on", variable, error.strerror
            )


def command(name: str, data: str = "", **properties: str | int) -> str:
    """Return a workflow command; properties that are empty or 0 are left out.

    Example:
        >>> command("error", "50%", file="a,b.py", line=3)
        '::error file=a%2Cb.py,line=3::50%25'
    """
    given = [f"{key}={_property(str(value))}" for key, value in properties.items() if value]
    return f"::{name}{' ' if given else ''}{','.join(given)}::{_data(data)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _annotation(found: Annotation) -> str:
    return command(
        found.kind,
        found.message,
        title=found.title,
        file=found.file,
        line=found.line,
        endLine=found.end_line,
        col=found.column,
    )


def outputs(view: RunView) -> Iterator[tuple[str, str]]:
    """Yield what later steps and jobs may want: the result, and the images that were pushed."""
    if view.finished:
        yield "result", str(view.finished.result)
    outcomes = [stage.outcome for stage in view.stages.values() if stage.outcome]
    notes = [note for outcome in outcomes if outcome.passed for note in outcome.notes]
    if pushed := [found[1] for note in notes if (found := _PUSHED.fullmatch(note))]:
        yield "image", pushed[0]
        yield "images", "\n".join(pushed)


def _output(name: str, value: str) -> str:
    delimiter = f"end_{secrets.token_hex(16)}"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"
