"""Work that is begun before the gates of its stage have passed: `--speculate`.

The stage itself starts when all that it needs has passed, as ever, and then takes over what was
begun; so nothing behind it can come early. When a gate fails, the work is thrown away.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel

from penstock.events import EarlyDropped, Event, StageFinished, StageStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anyio.abc import TaskGroup

    from penstock.model import Outcome, Stage
    from penstock.purity import Conditions
    from penstock.runner import Runner

logger = logging.getLogger(__name__)


@dataclass
class Early:
    """What was begun of one stage.

    Args:
        asked: What its function returned, and what that is made from.
        container: The first of them, evaluated.
        saved_s: How long before the stage it was begun.
        is_told: Whether people know of it.
        is_late: Whether the stage has started, so that nothing is early any more.
    """

    asked: tuple[Any, dict[str, str]] | None = None
    container: Any = None
    saved_s: float = 0.0
    is_told: bool = False
    is_late: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _began_s: float = field(default_factory=time.monotonic)
    _done: anyio.Event = field(default_factory=anyio.Event)

    @classmethod
    def none(cls) -> Early:
        """Return what there is of most stages."""
        early = cls()
        early.end()
        return early

    async def taken_over(self) -> None:
        """Return when it is done, one way or another; it ends with whoever waits for it."""
        self.saved_s = time.monotonic() - self._began_s
        try:
            await self._done.wait()
        finally:
            self.scope.cancel()

    @property
    def is_over(self) -> bool:
        """Whether nothing is at work for it any more."""
        return self._done.is_set()

    def end(self) -> None:
        """Let who waits go on."""
        self._done.set()


class Begins(Protocol):
    """Does the work of stages.

    Attributes:
        early: What was begun, until its stage starts and takes it over.
    """

    early: dict[str, Early]

    async def begin(self, stage: Stage, needed: Mapping[str, Outcome], early: Early) -> None:
        """Do of a stage that has not started what may be thrown away."""


class Speculation:
    """Begins work early, and throws it away: a listener.

    Args:
        waiting: The stages whose work may begin, and when.
        runner: Knows what has ended.
        executor: Does the work, and takes it over when the stage starts.
        emit: Takes what is thrown away.
        tasks: Ends before the engine's session does.
        jobs: Most stages at a time; early work begins only where that leaves a place.
    """

    def __init__(
        self,
        waiting: Mapping[str, Conditions],
        runner: Runner,
        executor: Begins,
        *,
        emit: Callable[[Event], None],
        tasks: TaskGroup,
        jobs: int | None = None,
    ) -> None:
        self._waiting = dict(waiting)
        self._runner = runner
        self._executor = executor
        self._emit = emit
        self._tasks = tasks
        self._jobs = jobs
        self._running: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        match event:
            case StageStarted():
                self._running.add(event.stage)
                self._waiting.pop(event.stage, None)
                if late := self._executor.early.get(event.stage):
                    late.is_late = True
            case StageFinished():
                self._running.discard(event.stage)
                self._waiting.pop(event.stage, None)
                if early := self._executor.early.pop(event.stage, None):
                    early.scope.cancel()
                    self._drop(event.stage, early, event.outcome.reason.removeprefix("because "))
            case _:
                return
        # Behind all that this event leads to: what starts now has its place first.
        self._tasks.start_soon(self._begin)

    def _drop(self, stage: str, early: Early, reason: str) -> None:
        if early.is_told:
            early.is_told = False
            self._emit(EarlyDropped(stage=stage, reason=reason))

    async def _begin(self) -> None:
        """Begin what has a place and all that it waits for."""
        for name in list(self._possible()):
            early = sum(not early.is_over for early in self._executor.early.values())
            if self._jobs is None or len(self._running) + early < self._jobs:
                del self._waiting[name]
                made = self._executor.early[name] = Early()
                self._tasks.start_soon(self._work, self._runner.stages[name], made)

    def _possible(self) -> Iterator[str]:
        outcomes = self._runner.outcomes
        for name, given in self._waiting.items():
            if given.gates.isdisjoint(self._running | outcomes.keys()):
                continue
            # Stages that one of them found out would have to be waited for too.
            is_free = all(n in outcomes and not outcomes[n].spawned for n in given.waits_for)
            if is_free and all(outcomes[n].passed for n in self._runner.stages[name].takes):
                yield name

    async def _work(self, stage: Stage, early: Early) -> None:
        needed = {need: self._runner.outcomes[need] for need in stage.takes}
        with early.scope:
            await anyio.lowlevel.checkpoint_if_cancelled()  # thrown away before its first step
            try:
                await self._executor.begin(stage, needed, early)
            except Exception as error:  # noqa: BLE001 - no verdict: the stage itself will fail by it
                logger.debug("early work of %s failed: %s", stage.name, error)
                self._drop(stage.name, early, "it failed; the stage does it again")
        early.end()
