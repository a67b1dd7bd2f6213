"""Runs stages: a ready-queue, fail-fast with the root cause, one result for each stage.

Knows nothing of Dagger, of files or of functions: a stage is data, what it does is a callable,
what happened is an event. So a recorded run can be played again.
"""

from __future__ import annotations

import heapq
import math
import random
import time
import traceback
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import anyio

from penstock.events import (
    Event,
    RunStopped,
    StageFinished,
    StageRetried,
    StagesAdded,
    StageStarted,
)
from penstock.graph import Graph
from penstock.model import Attempt, Outcome, Result, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# A command ends at its deadline inside its container, where its reports survive; only what never
# came that far, or does not heed it, is cut off from outside after this much longer.
GRACE_S = 15.0
TEARDOWN_GRACE_S = 1.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
FAILURE_CODE, BUG_CODE, ENGINE_CODE, NOTHING_CODE, TIMEOUT_CODE = 1, 3, 4, 5, 124
BROKEN = frozenset({Result.FAILURE, Result.ERROR, Result.TIMEOUT})


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
        self, stage: Stage, needed: Mapping[str, Outcome], *, attempt: int, deadline_s: float
    ) -> Outcome:
        """Return what became of it.

        Args:
            stage: The stage.
            needed: The outcomes of all that it needs.
            attempt: 1 for the first try.
            deadline_s: When it has to be at its end, in seconds from now.
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
        self.stages = {stage.name: stage for stage in stages}
        graph = Graph({name: stage.needs for name, stage in self.stages.items()})
        left = graph.remaining({name: stage.expected_s for name, stage in self.stages.items()})
        # What has the longest way behind it goes first; then the author's order.
        self._rank = {name: (-left[name], place) for place, name in enumerate(self.stages)}
        self._users = graph.users
        self._waiting = {name: set(stage.needs) for name, stage in self.stages.items()}
        self._ready: list[tuple[tuple[float, int], str]] = []
        self._running: dict[str, anyio.CancelScope] = {}
        self._cut_by: dict[str, RunStopped] = {}
        self._locked: set[str] = set()
        self._execute = execute
        self._emit = emit
        self._jobs = jobs
        self._keep_going = keep_going
        self._deadline_s = deadline_s
        self._teardown_s = teardown_s
        self._delay_s = delay_s or backoff_s
        self._ends_at = math.inf
        self._has_begun = False
        self.stops: list[RunStopped] = []
        self.outcomes: dict[str, Outcome] = {}

    async def run(self) -> dict[str, Outcome]:
        """Run every stage to its one result and return them by name."""
        async with anyio.create_task_group() as self._tasks:
            if not self.stops and self._deadline_s < math.inf:
                self._ends_at = anyio.current_time() + self._deadline_s
                self._tasks.start_soon(self._watch_deadline)
            for name, stage in self.stages.items():
                if stage.skip and name not in self.outcomes:
                    self._end(name, Outcome(result=Result.SKIP, reason=stage.skip.reason))
            for name in [name for name, needs in self._waiting.items() if not needs]:
                self._make_ready(name)
            self._start()
            self._leave_when_done()
        return self.outcomes

    def stop(
        self,
        result: Result,
        reason: str,
        *,
        root: str = "",
        exit_code: int = 0,
        grace_s: float = 0.0,
        teardown_s: float | None = None,
    ) -> None:
        """Start nothing more but teardown stages, and cancel what runs.

        The first call gives what it stops its reason; a later one can only shorten what is left.

        Args:
            result: `failure`, `error`, `timeout` or `cancellation`.
            reason: In words.
            root: The stage at fault.
            exit_code: Of the run, where it does not follow from the results of stages.
            grace_s: How long what runs may still take.
            teardown_s: What teardown stages get, all together; `None` leaves them what they had.
        """
        now = anyio.current_time()
        if teardown_s is not None:
            self._ends_at = min(self._ends_at if self.stops else math.inf, now + teardown_s)
        stop = RunStopped(
            result=result,
            reason=reason,
            root=root,
            exit_code=exit_code,
            grace_s=grace_s,
            teardown_s=teardown_s,
        )
        self.stops.append(stop)
        self._emit(stop)
        for name, scope in self._running.items():
            if self._tears_down(name):
                scope.deadline = min(scope.deadline, self._ends_at + TEARDOWN_GRACE_S)
            else:
                self._cut_by.setdefault(name, stop)
                if grace_s:
                    scope.deadline = min(scope.deadline, now + grace_s)
                else:
                    scope.cancel()
        for name in [n for n in self.stages if n not in self.outcomes and n not in self._running]:
            if not self._tears_down(name):
                self._end(name, self._left(name))
        self._start()

    def _tears_down(self, name: str) -> bool:
        """Return whether a stage runs even now that the run was stopped."""
        has_time = self._ends_at > anyio.current_time()
        return self.stages[name].always and has_time and (self._has_begun or name in self._running)

    def _left(self, name: str) -> Outcome:
        """Return the outcome of a stage that a stop left behind."""
        stop = self._cut_by.get(name, self.stops[-1])
        result = Result.CANCELLATION if stop.result is Result.CANCELLATION else Result.SKIP
        return Outcome(result=result, reason=stop.reason, root=stop.root)

    async def _watch_deadline(self) -> None:
        await anyio.sleep(self._deadline_s)
        self.stop(
            Result.TIMEOUT,
            f"because the run's deadline of {self._deadline_s:g} s passed",
            exit_code=TIMEOUT_CODE,
            grace_s=GRACE_S,
            teardown_s=self._teardown_s,
        )

    def _make_ready(self, name: str) -> None:
        del self._waiting[name]
        if self.stops and not self._tears_down(name):
            self._end(name, self._left(name))
        else:
            heapq.heappush(self._ready, (self._rank[name], name))

    def _start(self) -> None:
        """Start what is ready, as far as there is room and its locks are free."""
        locked_out = []
        while self._ready and (self._jobs is None or len(self._running) < self._jobs):
            entry = heapq.heappop(self._ready)
            stage = self.stages[entry[1]]
            if stage.name in self.outcomes:
                continue
            if self._locked.intersection(stage.uses):
                locked_out.append(entry)
                continue
            self._locked.update(stage.uses)
            # Made here, not in the task: a stop before its first step must still reach it.
            self._running[stage.name] = anyio.CancelScope()
            self._has_begun = True
            self._emit(StageStarted(stage=stage.name))
            self._tasks.start_soon(self._run_stage, stage)
        for entry in locked_out:
            heapq.heappush(self._ready, entry)

    async def _run_stage(self, stage: Stage) -> None:
        scope = self._running[stage.name]
        attempts: list[Attempt] = []
        outcome: Outcome | None = None
        began = time.monotonic()
        with scope:
            while outcome is None:
                began = time.monotonic()
                outcome = await self._attempt(stage, scope, len(attempts) + 1)
                if self._tries_again(stage, outcome, len(attempts)):
                    took = time.monotonic() - began
                    delay_s = self._delay_s(len(attempts) + 1)
                    attempts.append(
                        Attempt(
                            result=outcome.result,
                            reason=outcome.reason,
                            exit_code=outcome.exit_code,
                            fault=outcome.fault,
                            duration_s=took,
                        )
                    )
                    self._emit(
                        StageRetried(stage=stage.name, attempt=attempts[-1], delay_s=delay_s)
                    )
                    outcome = None
                    await anyio.sleep(delay_s)
        outcome = outcome or self._cut_off(stage)
        del self._running[stage.name]
        self._locked.difference_update(stage.uses)
        took = time.monotonic() - began
        self._end(stage.name, replace(outcome, duration_s=took, attempts=tuple(attempts)))
        self._start()
        self._leave_when_done()

    async def _attempt(self, stage: Stage, scope: anyio.CancelScope, number: int) -> Outcome:
        await anyio.lowlevel.checkpoint_if_cancelled()  # stopped before its first step
        now = anyio.current_time()
        deadline_s = max(0.0, min(stage.deadline_s, self._ends_at - now))
        if stage.name not in self._cut_by:
            scope.deadline = now + deadline_s + (TEARDOWN_GRACE_S if self.stops else GRACE_S)
        needed = {need: self.outcomes[need] for need in stage.needs}
        try:
            return await self._execute(stage, needed, attempt=number, deadline_s=deadline_s)
        except Exception as error:  # noqa: BLE001 - what reaches here is our own bug
            return Outcome(
                result=Result.ERROR,
                reason=f"penstock itself failed: {type(error).__name__}: {error}",
                output="".join(traceback.format_exception(error)),
                is_bug=True,
            )

    def _tries_again(self, stage: Stage, outcome: Outcome, before: int) -> bool:
        faults = (outcome.fault, outcome.exit_code or None)
        is_of_class = any(fault in stage.retry_on for fault in faults if fault is not None)
        is_wanted = not outcome.passed and stage.name not in self._cut_by
        return is_wanted and before < stage.retries and is_of_class

    def _cut_off(self, stage: Stage) -> Outcome:
        """Return the outcome of a stage that was ended from outside."""
        stop = self._cut_by.get(stage.name)
        if stop:
            result = Result.CANCELLATION if stop.result is Result.FAILURE else stop.result
            return Outcome(result=result, reason=stop.reason, root=stop.root)
        words = f"ran longer than its deadline of {stage.deadline_s:g} s"
        if self.stops and self._ends_at <= anyio.current_time():
            words = "ran longer than teardown may take"
        return Outcome(result=Result.TIMEOUT, reason=words)

    def _end(self, name: str, outcome: Outcome) -> None:
        """Give a stage its one result; set free, skip or stop what depends on it."""
        ending = deque([(name, outcome)])
        while ending:
            name, outcome = ending.popleft()
            if name in self.outcomes:
                continue
            is_broken = outcome.result in BROKEN
            if is_broken and self.stages[name].allow_failure and not outcome.is_bug:
                outcome = replace(outcome, allowed=True)
            self._waiting.pop(name, None)
            self.outcomes[name] = outcome
            self._emit(StageFinished(stage=name, outcome=outcome))
            if outcome.spawned:
                self._add(name, outcome.spawned)
            for user in self._users[name]:
                if user in self._waiting:
                    self._waiting[user].discard(name)
                    if because := self._held_back(self.stages[user], by=name):
                        del self._waiting[user]  # at once: a stop must not start it any more
                        ending.append((user, self._left(user) if self.stops else because))
                    elif not self._waiting[user]:
                        self._make_ready(user)
            if is_broken and not (outcome.allowed or self._keep_going or self.stops):
                self.stop(Result.FAILURE, f"because {name} failed", root=name)

    def _held_back(self, user: Stage, *, by: str) -> Outcome | None:
        """Return the skip of a stage whose need did not give what it has to; else nothing."""
        stage, outcome = self.stages[by], self.outcomes[by]
        if by not in user.takes:
            lets_by = stage.skip and not stage.skip.holds and not outcome.root and not stage.gate
            if user.always or outcome.allowed or lets_by:
                return None
        if outcome.passed:
            return None
        root = outcome.root or by
        happened = "was skipped" if self.outcomes[root].result is Result.SKIP else "failed"
        return Outcome(result=Result.SKIP, reason=f"because {root} {happened}", root=root)

    def _add(self, parent: str, spawned: Iterable[Stage]) -> None:
        """Add stages that a stage found out; what needs that one needs them too."""
        self._emit(StagesAdded(stages=tuple(spawned)))
        users = [user for user in self._users[parent] if user in self._waiting]
        for stage in spawned:
            self.stages[stage.name] = stage
            self._users[stage.name] = users
            self._rank[stage.name] = self._rank[parent]
            self._waiting[stage.name] = set()
            for user in users:
                self._waiting[user].add(stage.name)
        names = tuple(stage.name for stage in spawned)
        for user in users:
            taker = self.stages[user]
            takes = taker.takes + names if parent in taker.takes else taker.takes
            self.stages[user] = replace(taker, needs=taker.needs + names, takes=takes)
        for name in names:
            self._make_ready(name)

    def _leave_when_done(self) -> None:
        if not self._running and len(self.outcomes) == len(self.stages):
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

    def stopped_by(result: Result) -> list[Verdict]:
        found = [stop for stop in stops if stop.result is result]
        return [Verdict(result, stop.root, stop.reason, stop.exit_code) for stop in found]

    def ended_by(exit_code: int, matches: Callable[[Outcome], bool]) -> list[Verdict]:
        found = [(name, o) for name, o in blamed if matches(o)]
        return [Verdict(o.result, name, o.reason, exit_code) for name, o in found]

    ranked = [
        *stopped_by(Result.CANCELLATION),
        *ended_by(BUG_CODE, lambda o: o.is_bug),
        *stopped_by(Result.ERROR),
        *ended_by(ENGINE_CODE, lambda o: o.result is Result.ERROR),
        *stopped_by(Result.TIMEOUT),
        *ended_by(FAILURE_CODE, lambda _: True),
    ]
    if ranked:
        return ranked[0]
    required = [o for n, o in outcomes.items() if not (stages[n].allow_failure or stages[n].always)]
    if any(outcome.passed for outcome in required):
        return Verdict(Result.SUCCESS, "", "", 0)
    return Verdict(Result.SKIP, "", "nothing that is required ran", NOTHING_CODE)
