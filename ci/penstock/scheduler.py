"""Decides what runs when: a ready-queue, fail-fast with the root cause, one result for each stage.

Pure: it neither waits nor works. Who drives it hears from its events what begins and what a stop
cuts short, and tells it what ended: the runner in real time, a plan by a clock of its own, a replay
by what was recorded.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.events import Event, RunStopped, StageFinished, StagesAdded, StageStarted
from penstock.graph import Graph
from penstock.model import BROKEN, Outcome, Result, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Scheduler:
    """The order of one run, and what follows from each result.

    Args:
        stages: In definition order.
        emit: Takes every event; `StageStarted` means that the stage has to run now.
        jobs: Most stages at a time; `None` sets no limit.
        keep_going: Run all that is still possible after a failure.
        clock: Seconds, for what a stop leaves to teardown stages.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        *,
        emit: Callable[[Event], None],
        jobs: int | None = None,
        keep_going: bool = False,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.stages = {stage.name: stage for stage in stages}
        graph = Graph({name: stage.needs for name, stage in self.stages.items()})
        left = graph.remaining({name: stage.expected_s for name, stage in self.stages.items()})
        # What has the longest way behind it goes first; then the author's order.
        self._rank = {name: (-left[name], place) for place, name in enumerate(self.stages)}
        self._users = graph.users
        self._waiting = {name: set(stage.needs) for name, stage in self.stages.items()}
        self._ready: list[tuple[tuple[float, int], str]] = []
        self._locked: set[str] = set()
        self._has_begun = False
        self._emit = emit
        self._jobs = jobs
        self._keep_going = keep_going
        self._clock = clock
        self.ends_at = math.inf
        self.running: set[str] = set()
        self.stops: list[RunStopped] = []
        self.outcomes: dict[str, Outcome] = {}

    def begin(self) -> None:
        """Skip what was decided to be skipped, and start what needs nothing."""
        for name, stage in self.stages.items():
            if stage.skip:
                self._settle(name, Outcome(result=Result.SKIP, reason=stage.skip.reason))
        for name in [name for name, needs in self._waiting.items() if not needs]:
            self._make_ready(name)
        self._start()

    def end(self, name: str, outcome: Outcome) -> None:
        """Take the result of a stage that ran, and start what can run now."""
        self.running.remove(name)
        self._locked.difference_update(self.stages[name].uses)
        self._settle(name, outcome)
        self._start()

    def stop(self, stop: RunStopped) -> None:
        """Start nothing more but teardown stages.

        The first stop gives what it ends its reason; a later one can only shorten what is left.
        """
        if stop.teardown_s is not None:
            is_bounded = any(stop.teardown_s is not None for stop in self.stops)
            left = self.ends_at if is_bounded else math.inf  # else it is the run's own deadline
            self.ends_at = min(left, self._clock() + stop.teardown_s)
        self.stops.append(stop)
        self._emit(stop)
        for name in self.stages:
            if name not in self.running and not self.tears_down(name):
                self._settle(name, self._left())
        self._start()

    def tears_down(self, name: str) -> bool:
        """Return whether a stage runs even now that the run was stopped."""
        return self.stages[name].always and self._has_begun and self.ends_at > self._clock()

    def _left(self) -> Outcome:
        """Return the outcome of a stage that a stop left behind."""
        stop = self.stops[-1]
        result = Result.CANCELLATION if stop.result is Result.CANCELLATION else Result.SKIP
        return Outcome(result=result, reason=stop.reason, root=stop.root)

    def _leaves(self, name: str) -> bool:
        """Return whether it is a stop that keeps a stage from starting, whatever else it lacks."""
        if not self.stops:
            return False
        return not self.stages[name].always or self.stops[-1].result is not Result.FAILURE

    def _make_ready(self, name: str) -> None:
        del self._waiting[name]
        if self.stops and not self.tears_down(name):
            self._settle(name, self._left())
        else:
            heapq.heappush(self._ready, (self._rank[name], name))

    def _start(self) -> None:
        """Start what is ready, as far as there is room and its locks are free."""
        locked_out = []
        while self._ready and (self._jobs is None or len(self.running) < self._jobs):
            entry = heapq.heappop(self._ready)
            stage = self.stages[entry[1]]
            if stage.name in self.outcomes:
                continue
            if self._locked.intersection(stage.uses):
                locked_out.append(entry)
                continue
            self._locked.update(stage.uses)
            self.running.add(stage.name)
            self._has_begun = True
            self._emit(StageStarted(stage=stage.name))
        for entry in locked_out:
            heapq.heappush(self._ready, entry)

    def _settle(self, name: str, outcome: Outcome) -> None:
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
                        ending.append((user, self._left() if self._leaves(user) else because))
                    elif not self._waiting[user]:
                        self._make_ready(user)
            if is_broken and not (outcome.allowed or self._keep_going or self.stops):
                reason = f"because {name} failed"
                self.stop(RunStopped(result=Result.FAILURE, reason=reason, root=name))

    def _held_back(self, user: Stage, *, by: str) -> Outcome | None:
        """Return the skip of a stage whose need did not give what it has to; else nothing."""
        stage, outcome = self.stages[by], self.outcomes[by]
        lets_by = stage.skip and not stage.skip.holds and not outcome.root and not stage.gate
        would_run = user.always or outcome.allowed or lets_by
        if outcome.passed or (would_run and by not in user.takes):
            return None
        root = outcome.root or by
        happened = "was skipped" if self.outcomes[root].result is Result.SKIP else "failed"
        reason = f"because {root} {happened}"
        if would_run:
            which = "which" if root == by else f"and {root}"
            reason = f"because it takes the result of {by}, {which} {happened}"
        return Outcome(result=Result.SKIP, reason=reason, root=root)

    def _add(self, parent: str, spawned: Iterable[Stage]) -> None:
        """Add stages that a stage found out; what needs that one needs them too."""
        self._emit(StagesAdded(stages=tuple(spawned)))
        users = [user for user in self._users[parent] if user in self._waiting]
        names = tuple(stage.name for stage in spawned)
        for stage in spawned:
            self.stages[stage.name] = stage
            self._users[stage.name] = users
            self._rank[stage.name] = self._rank[parent]
            self._waiting[stage.name] = set()
        for user in users:
            taker = self.stages[user]
            takes = taker.takes + names if parent in taker.takes else taker.takes
            self.stages[user] = replace(taker, needs=taker.needs + names, takes=takes)
            self._waiting[user].update(names)
        for name in names:
            self._make_ready(name)
