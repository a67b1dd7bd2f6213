"""The line to the engine: its session, what it tells, and the signals that are heard beside it."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from penstock import parent, stuck
from penstock.cli import PROGRAM_VARIABLE
from penstock.errors import SIGNALLED_CODE, EngineError
from penstock.events import RunStopped
from penstock.live import Live
from penstock.model import Result
from penstock.runner import ENGINE_CODE
from penstock.session import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import ExitStack

    from anyio.abc import TaskGroup

    from penstock.affected import HostFolder
    from penstock.events import Event
    from penstock.handover import Handover
    from penstock.pipeline import Pipeline
    from penstock.redact import Redactor
    from penstock.run import Run
    from penstock.services import ServicePool
    from penstock.session import Session

logger = logging.getLogger(__name__)

# Everything after an interrupt has to fit into the 7.5 s that CI hosts leave; this is teardown's.
INTERRUPTED_TEARDOWN_S = 4.0
HANGING = "penstock: {reason}; `dagger run` would hang now, and was ended; see reports/index.html"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def heard() -> Iterator[AsyncIterator[signal.Signals]]:
    """Have signals heard, also while Dagger is imported in a thread beside the loop."""
    # `nohup` has hang-ups ignored, and so do we; what a shell starts in the background it makes deaf
    # to SIGINT, which CI hosts send all the same.
    is_deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = [number for number in SIGNALS if not (is_deaf and number is signal.SIGHUP)]
    with anyio.open_signal_receiver(*wanted) as signals:
        for number in wanted:
            signal.signal(number, stuck.hurry)  # the loop hears of it all the same
        yield signals


class Line:
    """What outlives a run, so that another one can follow it in the same session.

    Args:
        pipeline: Says what to do where there is no engine.
        tasks: Outlives every run.
        redactor: Masks what the engine tells.
        afterwards: Takes what has to be done when all is shown.

    Attributes:
        run: The one that goes on, if one does.
        ended: Set when the engine is lost, or a signal came.
        lost: Why the engine is lost.
        reads: The folders of this machine that each stage is made from.
        handover: Where stages may outlive a run.
        pools: The services of runs, as long as any of them is there.
    """

    def __init__(
        self, pipeline: Pipeline, tasks: TaskGroup, redactor: Redactor, afterwards: ExitStack
    ) -> None:
        self.tasks = tasks
        self.redactor = redactor
        self.live = Live("", self.emit, redactor)
        self.run: Run | None = None
        self.ended = anyio.Event()
        self.lost = ""
        self.reads: dict[str, set[HostFolder]] = {}
        self.handover: Handover | None = None
        self.pools: list[ServicePool] = []
        self.session: Session | None = None
        self.stack = AsyncExitStack()
        self._connecting, self._exporting = anyio.CancelScope(), anyio.CancelScope()
        self._advice = _advice(pipeline)
        self._above = parent.dagger_run()
        self._afterwards = afterwards

    def emit(self, event: Event) -> None:
        """Tell the run that goes on; what comes too late for any is told to nobody."""
        if self.run:
            self.run.stream.emit(event)

    async def open(self) -> None:
        """Connect, unless that is done.

        Raises:
            EngineError: When no engine can be reached.
        """
        if self.session is None:
            opening = open_session(
                emit=self.emit,
                on_lost=self.lose,
                connecting=self._connecting,
                advice=self._advice,
                above=self._above,
            )
            self.session = await self.stack.enter_async_context(opening)
            self.tasks.start_soon(self.live.follow)

    def lose(self, reason: str) -> None:
        """Stop the run: there is no engine any more, or never was."""
        self.lost = self.lost or reason
        self.ended.set()
        interrupted = False
        if self.run:
            stops = self.run.runner.stops
            interrupted = any(stop.result is Result.CANCELLATION for stop in stops)
            stop = partial(RunStopped, result=Result.ERROR, exit_code=ENGINE_CODE, teardown_s=0.0)
            self.run.runner.stop(stop(reason=reason))
        if self._above and not interrupted:
            self._afterwards.callback(parent.end, self._above, HANGING.format(reason=reason))

    async def exported(self, export: Callable[[], Awaitable[str]]) -> str:
        """Do what comes after the verdict, unless a signal ends that; return what it says."""
        with self._exporting:
            return await export()
        return ""

    def say(self, words: str) -> None:
        """Say something when all of the run is shown."""
        if words:
            self._afterwards.callback(logger.warning, self.redactor.mask(words))

    async def heed(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Cancel and clean up at the first signal."""
        first = await anext(signals)
        if self.run:
            self.run.runner.stop(
                RunStopped(
                    result=Result.CANCELLATION,
                    reason=f"interrupted by {first.name}",
                    exit_code=SIGNALLED_CODE + first,
                    teardown_s=INTERRUPTED_TEARDOWN_S,
                )
            )
        for wait in (self._connecting, self._exporting):
            wait.cancel()  # a second signal does not come this far: see `stuck.hurry`
        self.ended.set()


@asynccontextmanager
async def on_line(
    pipeline: Pipeline,
    signals: AsyncIterator[signal.Signals],
    redactor: Redactor,
    afterwards: ExitStack,
) -> AsyncIterator[Line]:
    """Keep a line for as many runs as like to use it; what it cannot do stops the one that does."""
    async with anyio.create_task_group() as tasks:
        line = Line(pipeline, tasks, redactor, afterwards)
        tasks.start_soon(stuck.keep_quiet)
        tasks.start_soon(line.heed, signals)
        try:
            async with line.stack:
                yield line
        except EngineError as error:
            line.lose(str(error))
        tasks.cancel_scope.cancel()


def _advice(pipeline: Pipeline) -> str:
    """Return what to do without an engine: `python3 -m ci` mends it, where there is such a thing."""
    if PROGRAM_VARIABLE in os.environ or (pipeline.root / "ci" / "__main__.py").exists():
        return "`python3 -m ci doctor` says what is wrong, `python3 -m ci setup` mends it"
    return "does Docker run here, or is there another engine for `--engine URL`?"
