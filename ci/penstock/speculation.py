"""Work that is begun before the gates of its stage have passed: `--speculate`.

The stage itself starts when all that it needs has passed, as ever, and then takes over what was
begun; so nothing behind it can come early. When a gate fails, the work is thrown away.
"""

from __future__ import annotations

import inspect
import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel

from penstock.events import EarlyDropped, Event, StageFinished, StageStarted
from penstock.graph import Graph
from penstock.pipeline import Definition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anyio.abc import TaskGroup

    from penstock.model import Outcome, Provider, Stage
    from penstock.pipeline import Pipeline
    from penstock.runner import Runner

logger = logging.getLogger(__name__)

# Of steps of a query and their arguments: what reaches beyond the container that they make.
BEYOND = re.compile(
    "secret|service|socket|auth|nesting|insecure|publish|export|tunnel", re.IGNORECASE
)


@dataclass(frozen=True)
class Conditions:
    """When the work of a stage may begin.

    Args:
        gates: Of these one has started; so nothing is begun for code that does not come that far,
            and the first and shortest gates have the machine for themselves.
        waits_for: These have passed: those whose results it takes, and those before it that may
            change what it finds outside the engine.
    """

    gates: frozenset[str]
    waits_for: frozenset[str]


def begins_early(pipeline: Pipeline, stages: Mapping[str, Stage]) -> dict[str, Conditions]:
    """Return the stages whose work may begin before their gates have passed."""
    graph = Graph({name: stage.needs for name, stage in stages.items()})
    acting = {name for name, stage in stages.items() if _acts(_makers(pipeline, stage.family))}
    found = {}
    for name, stage in stages.items():
        if not is_pure(pipeline, stage):
            continue
        waits_for = acting.intersection(graph.closure(stage.needs)).union(stage.takes)
        sooner = graph.closure(first for need in stage.needs for first in graph.needs[need])
        if gates := frozenset(stage.needs) - waits_for - sooner:
            found[name] = Conditions(gates, frozenset(waits_for))
    return found


def is_pure(pipeline: Pipeline, stage: Stage) -> bool:
    """Return whether nobody can notice that the work of a stage was done, and then thrown away.

    Its author says so: by a function that returns a container and is not `async`. Neither it nor
    anything that it is made from may take the registry, a secret or a service.
    """
    if stage.skip or stage.always or stage.uses:
        return False
    families = [stage.family]
    for family in families:
        makers = _makers(pipeline, family)
        if _acts(makers) or any(maker.kind == "service" for maker in makers):
            return False
        taken = pipeline.reached(family) & pipeline.definitions.keys()
        families += sorted(taken.difference(families))
    return _returns_container(pipeline.definitions[stage.family])


def _makers(pipeline: Pipeline, family: str) -> list[Provider]:
    """Return a stage's function, and those of the containers and services that it is made from."""
    names = [family, *(pipeline.reached(family) - pipeline.definitions.keys())]
    return [pipeline.providers[name] for name in names]


def _acts(makers: list[Provider]) -> bool:
    """Return whether one of them may do something that is seen outside the engine."""
    return any(
        "registry" in maker.takes
        or inspect.iscoroutinefunction(inspect.unwrap(maker.function))
        or (isinstance(maker, Definition) and bool(maker.secrets))
        for maker in makers
    )


def _returns_container(definition: Definition) -> bool:
    """Return whether its author says so; the annotation is read and not evaluated."""
    said = inspect.unwrap(definition.function).__annotations__.get("return", "")
    name = said if isinstance(said, str) else getattr(said, "__name__", "")
    return name.strip("'\"").rpartition(".")[2] == "Container"


def reaches_out(value: object) -> bool:
    """Return whether a container's own steps take what no early work may, or lock a cache volume."""
    if isinstance(value, list | tuple):
        return any(map(reaches_out, value))
    context = getattr(value, "_ctx", None)
    return any(
        BEYOND.search(step.name)
        or step.args.get("sharing") == "LOCKED"
        or any(BEYOND.search(name) or reaches_out(given) for name, given in step.args.items())
        for step in (context.selections if context else ())
    )


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
