"""Runs stages in real time: deadlines, further attempts, cuts; the order is the scheduler's.

Knows nothing of Dagger, of files or of functions: a stage is data, what it does is a callable,
what happened is an event.
"""

from __future__ import annotations

import math
import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import anyio

from penstock.events import Event, RunStopped, StageRetried, StageStarted
from penstock.model import BROKEN, Attempt, Outcome, Result, Stage
from penstock.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# A command ends at its deadline inside its container, where its reports survive; only what never
# came that far, or does not heed it, is cut off from outside after this much longer.
GRACE_S = 15.0
TEARDOWN_GRACE_S = 1.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
FAILURE_CODE, BUG_CODE, ENGINE_CODE, NOTHING_CODE, TIMEOUT_CODE = 1, 3, 4, 5, 124
# By how many kinds of endings an exit code is outranked; that of an interrupt by none.
OUTRANKED = {BUG_CODE: 1, ENGINE_CODE: 2, TIMEOUT_CODE: 3, FAILURE_CODE: 4}


Tried = Callable[[Attempt, float], None]
"""Is told of an attempt that failed, and of the seconds until the next one."""


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    Args:
        result: One of the six words.
        root: The stage at fault.
        reason: In words.
        exit_code: Of the process.
    """

    result: Result
    root: str
    reason: str
    exit_code: int


class Execute(Protocol):
    """Does a stage's work."""

    async def __call__(
        self,
        stage: Stage,
        needed: Mapping[str, Outcome],
        *,
        attempt: int,
        deadline_s: float,
        tried: Tried,
    ) -> Outcome:
        """Return what became of it.

        Args:
            stage: The stage.
            needed: The outcomes of all that it needs.
            attempt: 1 for the first try.
            deadline_s: When it has to be at its end, in seconds from now.
            tried: Told of what it tries again by itself.
        """


class Runner:
    """One run of stages.

    Args:
        stages: In definition order.
        execute: Does a stage's work.
        emit: Takes every event.
        jobs: Most stages at a time; `None` leaves it to the engine.
        keep_going: Run all that is still possible after a failure.
        deadline_s: Bound of the run, in seconds.
        teardown_s: What teardown stages get, all together, once that bound is passed.
        delay_s: Seconds before another attempt, by the number of those before it.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        execute: Execute,
        *,
        emit: Callable[[Event], None],
        jobs: int | None = None,
        keep_going: bool = False,
        deadline_s: float = math.inf,
        teardown_s: float = 60.0,
        delay_s: Callable[[int], float] | None = None,
    ) -> None:
        self._scheduler = Scheduler(
            stages,
            emit=self._follow,
            jobs=jobs,
            keep_going=keep_going,
            clock=anyio.current_time,
        )
        self.stages = self._scheduler.stages
        self.stops = self._scheduler.stops
        self.outcomes = self._scheduler.outcomes
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._cut_by: dict[str, RunStopped] = {}
        self._execute = execute
        self._emit = emit
        self._deadline_s = deadline_s
        self._teardown_s = teardown_s
        self._delay_s = delay_s or backoff_s

    async def run(self) -> dict[str, Outcome]:
        """Run every stage to its one result and return them by name."""
        async with anyio.create_task_group() as self._tasks:
            if self._deadline_s < math.inf:
                self._scheduler.ends_at = anyio.current_time() + self._deadline_s
                self._tasks.start_soon(self._watch_deadline)
            self._scheduler.begin()
            self._leave_when_done()
        return self.outcomes

    def stop(self, stop: RunStopped) -> None:
        """Start nothing more but teardown stages, and cancel what runs.

        The first call gives what it stops its reason; a later one can only shorten what is left.
        """
        self._scheduler.stop(stop)

    async def _watch_deadline(self) -> None:
        await anyio.sleep(self._deadline_s)
        self.stop(
            RunStopped(
                result=Result.TIMEOUT,
                reason=f"because the run's deadline of {self._deadline_s:g} s passed",
                exit_code=TIMEOUT_CODE,
                grace_s=GRACE_S,
                teardown_s=self._teardown_s,
            )
        )

    def _follow(self, event: Event) -> None:
        """Do what the scheduler decided, and hand it on."""
        match event:
            case StageStarted():
                # Made here, not in the task: a stop before its first step must still reach it.
                self._scopes[event.stage] = anyio.CancelScope()
                self._tasks.start_soon(self._run_stage, self.stages[event.stage])
            case RunStopped():
                self._cut(event)
        self._emit(event)

    def _cut(self, stop: RunStopped) -> None:
        """Bound what runs by what a stop leaves it; no time at all is a cancellation."""
        for name, scope in self._scopes.items():
            if self._scheduler.tears_down(name):
                ends_at = self._scheduler.ends_at + TEARDOWN_GRACE_S
            else:
                self._cut_by.setdefault(name, stop)
                ends_at = anyio.current_time() + stop.grace_s
            scope.deadline = min(scope.deadline, ends_at)

    async def _run_stage(self, stage: Stage) -> None:
        attempts: list[Attempt] = []
        outcome: Outcome | None = None
        number = 1

        def tried(attempt: Attempt, delay_s: float) -> None:
            attempts.append(attempt)
            self._emit(StageRetried(stage=stage.name, attempt=attempt, delay_s=delay_s))

        began = time.monotonic()
        with self._scopes[stage.name] as scope:
            outcome = await self._attempt(stage, scope, number, tried)
            while self._tries_again(stage, outcome, number - 1):
                failed = Attempt(
                    result=outcome.result,
                    reason=outcome.reason,
                    exit_code=outcome.exit_code,
                    fault=outcome.fault,
                    duration_s=time.monotonic() - began,
                )
                delay_s = self._delay_s(number)
                tried(failed, delay_s)
                number += 1
                outcome = None
                await anyio.sleep(delay_s)
                began = time.monotonic()
                outcome = await self._attempt(stage, scope, number, tried)
        outcome = outcome or self._cut_off(stage)
        took = time.monotonic() - began
        del self._scopes[stage.name]
        outcome = replace(outcome, duration_s=took, attempts=tuple(attempts))
        self._scheduler.end(stage.name, outcome)
        self._leave_when_done()

    async def _attempt(
        self, stage: Stage, scope: anyio.CancelScope, number: int, tried: Tried
    ) -> Outcome:
        await anyio.lowlevel.checkpoint_if_cancelled()  # stopped before its first step
        now = anyio.current_time()
        deadline_s = max(0.0, min(stage.deadline_s, self._scheduler.ends_at - now))
        if stage.name not in self._cut_by:
            scope.deadline = now + deadline_s + (TEARDOWN_GRACE_S if self.stops else GRACE_S)
        needed = {need: self.outcomes[need] for need in stage.needs}
        try:
            return await self._execute(
                stage, needed, attempt=number, deadline_s=deadline_s, tried=tried
            )
        except Exception as error:  # noqa: BLE001 - what reaches here is our own bug
            return Outcome(
                result=Result.ERROR,
                reason=f"penstock itself failed: {type(error).__name__}: {error}",
                output="".join(traceback.format_exception(error)),
                is_bug=True,
            )

    def _tries_again(self, stage: Stage, outcome: Outcome, before: int) -> bool:
        is_of_class = outcome.fault in stage.retry_on or outcome.exit_code in stage.retry_on
        return is_of_class and before < stage.retries and stage.name not in self._cut_by

    def _cut_off(self, stage: Stage) -> Outcome:
        """Return the outcome of a stage that was ended from outside."""
        if stop := self._cut_by.get(stage.name):
            result = Result.CANCELLATION if stop.result is Result.FAILURE else stop.result
            return Outcome(result=result, reason=stop.reason, root=stop.root)
        words = f"ran longer than its deadline of {stage.deadline_s:g} s"
        if self._scheduler.ends_at <= anyio.current_time():
            words = "ran longer than teardown may take"
        return Outcome(result=Result.TIMEOUT, reason=words)

    def _leave_when_done(self) -> None:
        """End what still waits for the deadline of the run."""
        if len(self.outcomes) == len(self.stages):
            self._tasks.cancel_scope.cancel()


def backoff_s(attempts: int) -> float:
    """Return the seconds before another attempt: doubled each time, bounded, with jitter."""
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempts - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, hides nothing


def warnings(outcomes: Mapping[str, Outcome]) -> tuple[str, ...]:
    """Return the stages whose failure is allowed."""
    return tuple(name for name, outcome in outcomes.items() if outcome.allowed)


def verdict(
    stages: Mapping[str, Stage], outcomes: Mapping[str, Outcome], stops: Sequence[RunStopped] = ()
) -> Verdict:
    """Return how a run ended.

    An interrupt outranks a bug of ours, which outranks a broken engine, which outranks the run's
    deadline, which outranks a red gate: 130/143 > 3 > 4 > 124 > 1. What goes wrong in teardown
    counts only when nothing else did.
    """
    broken = [(n, o) for n, o in outcomes.items() if o.result in BROKEN and not o.allowed]
    blamed = [(name, o) for name, o in broken if not stages[name].always] or broken

    ended = [Verdict(s.result, s.root, s.reason, s.exit_code) for s in stops if s.exit_code]
    for name, o in blamed:
        code = BUG_CODE if o.is_bug else ENGINE_CODE if o.result is Result.ERROR else FAILURE_CODE
        ended.append(Verdict(o.result, name, o.reason, code))
    if ended:
        return min(ended, key=lambda one: OUTRANKED.get(one.exit_code, 0))
    required = [o for n, o in outcomes.items() if not (stages[n].allow_failure or stages[n].always)]
    if any(outcome.passed for outcome in required):
        return Verdict(Result.SUCCESS, "", "", 0)
    return Verdict(Result.SKIP, "", "nothing that is required ran", NOTHING_CODE)
