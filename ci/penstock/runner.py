"""Runs a graph of stages: a ready-queue, fail-fast with the root cause, one result for each stage.

Knows nothing of Dagger: what a stage does is a callable, what happened is an event.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING

import anyio

from penstock.events import Event, StageFinished, StageStarted
from penstock.model import Outcome, Result, Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from anyio.abc import TaskGroup

    from penstock.graph import Graph

# A command ends at its deadline inside its container, where its reports survive; only what never
# came that far, or does not heed it, is cut off from outside after this much longer.
GRACE_S = 15.0


class Runner:
    """One run of a graph.

    Args:
        graph: The stages to run and their needs.
        stages: What stands behind the names.
        execute: Does a stage's work; is given the outcomes of all that it needs.
        emit: Takes every event.
        jobs: Most stages at a time; `None` leaves it to the engine.
        keep_going: Run all that is still possible after a failure.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        graph: Graph,
        stages: Mapping[str, Stage],
        execute: Callable[[Stage, Mapping[str, Outcome]], Awaitable[Outcome]],
        *,
        emit: Callable[[Event], None],
        jobs: int | None = None,
        keep_going: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._graph = graph
        self._stages = stages
        self._execute = execute
        self._emit = emit
        self._jobs = jobs or len(graph.needs)
        self._keep_going = keep_going
        self._clock = clock
        self._waiting = {name: set(needs) for name, needs in graph.needs.items()}
        self._ready: deque[str] = deque()
        self._running: dict[str, anyio.CancelScope] = {}
        self._stopped_by = Outcome(result=Result.SUCCESS)
        self.outcomes: dict[str, Outcome] = {}

    async def run(self) -> dict[str, Outcome]:
        """Run every stage to its one result and return them by name."""
        async with anyio.create_task_group() as tasks:
            # A stop may have come before us, while the engine was still being connected.
            self._queue(name for name in self._graph.order() if self._waiting.get(name) == set())
            self._start(tasks)
        return self.outcomes

    def stop(self, result: Result, reason: str, root: str = "") -> None:
        """Start nothing more and cancel what runs; every stage left ends with the reason.

        The first call wins: what stopped the run first is what people are told.
        """
        if self._stopped_by.result is not Result.SUCCESS:
            return
        self._stopped_by = Outcome(result=result, reason=reason, root=root)
        for scope in self._running.values():
            scope.cancel()
        left = Result.CANCELLATION if result is Result.CANCELLATION else Result.SKIP
        for name in [*self._ready, *self._waiting]:
            if name not in self._running and name not in self.outcomes:
                self._record(name, Outcome(result=left, reason=reason, root=root))
        self._ready.clear()
        self._waiting.clear()

    def _queue(self, names: Iterable[str]) -> None:
        for name in list(names):
            del self._waiting[name]
            self._ready.append(name)

    def _start(self, tasks: TaskGroup) -> None:
        while self._ready and len(self._running) < self._jobs:
            name = self._ready.popleft()
            # Entered here, not in the task: a stop before its first step must still reach it.
            self._running[name] = anyio.CancelScope()
            tasks.start_soon(self._run_stage, tasks, name)

    async def _run_stage(self, tasks: TaskGroup, name: str) -> None:
        scope = self._running[name]
        stage = self._stages[name]
        began = self._clock()
        self._emit(StageStarted(stage=name))
        outcome = self._stopped_by
        with scope:
            try:
                with anyio.fail_after(stage.deadline_s + GRACE_S):
                    outcome = await self._execute(
                        stage, {need: self.outcomes[need] for need in stage.needs}
                    )
            except TimeoutError:
                reason = f"ran longer than its deadline of {stage.deadline_s:g} s"
                outcome = Outcome(result=Result.TIMEOUT, reason=reason)
            except Exception as error:  # noqa: BLE001 - what reaches here is our own bug
                outcome = Outcome(
                    result=Result.ERROR,
                    reason=f"penstock itself failed: {type(error).__name__}: {error}",
                    output="".join(traceback.format_exception(error)),
                    is_bug=True,
                )
        if scope.cancelled_caught:
            stopped = self._stopped_by
            blameless = stopped.result is Result.FAILURE
            outcome = dataclasses.replace(
                stopped, result=Result.CANCELLATION if blameless else stopped.result
            )
        del self._running[name]
        self._record(name, dataclasses.replace(outcome, duration_s=self._clock() - began))
        self._follow(name)
        self._start(tasks)

    def _record(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        self._emit(StageFinished(stage=name, outcome=outcome))

    def _follow(self, name: str) -> None:
        """Queue what a passed stage sets free; skip or stop what a failed one holds back."""
        if self._stopped_by.result is not Result.SUCCESS:
            return
        if self.outcomes[name].passed:
            for waiting in self._waiting.values():
                waiting.discard(name)
            self._queue([ready for ready, needs in self._waiting.items() if not needs])
            return
        because = f"because {name} failed"
        for dependant in self._graph.dependants(name):
            if dependant in self._waiting:
                del self._waiting[dependant]
                self._record(dependant, Outcome(result=Result.SKIP, reason=because, root=name))
        if not self._keep_going:
            self.stop(Result.FAILURE, because, root=name)


def verdict(outcomes: Mapping[str, Outcome]) -> tuple[Result, str, int]:
    """Return the result of a run, the stage at fault and the exit code, from all its outcomes.

    A bug of ours outranks a broken engine, which outranks a red gate: 3 > 4 > 1.
    """
    ranks = (
        (lambda o: o.is_bug, 3),
        (lambda o: o.result is Result.ERROR, 4),
        (lambda o: o.result is Result.TIMEOUT, 1),
        (lambda o: o.result is Result.FAILURE, 1),
    )
    for matches, exit_code in ranks:
        for name, outcome in outcomes.items():
            if matches(outcome):
                return outcome.result, name, exit_code
    if any(outcome.passed for outcome in outcomes.values()):
        return Result.SUCCESS, "", 0
    return Result.SKIP, "", 5
