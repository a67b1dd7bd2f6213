"""What a run is going to do, before any engine is asked. Pure but for asking git."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from penstock.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.config import RunInfo
    from penstock.model import Stage
    from penstock.pipeline import Pipeline
    from penstock.state import State


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that has not begun.

    Args:
        pipeline: What is run.
        stages: Those that were selected, by name, with the decisions to skip some.
        run: The surroundings.
        state: What earlier runs left.
        jobs: Most stages at a time.
        keep_going: Run all that is still possible after a failure.
    """

    pipeline: Pipeline
    stages: Mapping[str, Stage]
    run: RunInfo
    state: State
    jobs: int | None = None
    keep_going: bool = False

    @classmethod
    def make(
        cls,
        pipeline: Pipeline,
        chosen: Mapping[str, Stage],
        run: RunInfo,
        state: State,
        *,
        jobs: int | None = None,
        keep_going: bool = False,
    ) -> Plan:
        """Return the plan for some stages: conditions decided, expected times added."""
        families = {stage.family for stage in chosen.values()}
        decided = {
            name: definition.options["when"].unmet(run)
            for name, definition in pipeline.definitions.items()
            if name in families and "when" in definition.options
        }
        stages = {
            name: replace(
                stage,
                skip=stage.skip or decided.get(stage.family),
                expected_s=state.durations_s.get(name, 0.0),
            )
            for name, stage in chosen.items()
        }
        return cls(
            pipeline=pipeline, stages=stages, run=run, state=state, jobs=jobs, keep_going=keep_going
        )

    @cached_property
    def graph(self) -> Graph:
        """The needs of the stages."""
        return Graph({name: stage.needs for name, stage in self.stages.items()})

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Why stages do not run, by name, if all others pass."""
        reasons: dict[str, str] = {}
        for name, stage in self.stages.items():
            ending = deque([(name, stage.skip.reason, "")] if stage.skip else ())
            while ending:
                name, reason, root = ending.popleft()  # noqa: PLW2901 - along the needs
                if name not in reasons:
                    reasons[name] = reason
                    because = f"because {root or name} was skipped"
                    ending += [(u, because, root or name) for u in self._held_back(name, root)]
        return reasons

    def _held_back(self, name: str, root: str) -> list[str]:
        """Return the stages that do not run because of one that does not, as the runner has it."""
        stage = self.stages[name]
        lets_by = stage.skip and not stage.skip.holds and not root and not stage.gate
        users = [self.stages[user] for user in self.graph.users[name]]
        return [u.name for u in users if name in u.takes or not (u.always or lets_by)]

    @property
    def families(self) -> list[str]:
        """The functions behind the stages that can run."""
        names = (stage.family for stage in self.stages.values() if stage.name not in self.skipped)
        return list(dict.fromkeys(names))

    @cached_property
    def starts_s(self) -> dict[str, float]:
        """When each stage starts if all pass in their known time, in the order of starting.

        Goes the runner's way, by a clock of its own; a test holds both to the same order.
        """
        left = self.graph.remaining({name: s.expected_s for name, s in self.stages.items()})
        rank = {name: (-left[name], place) for place, name in enumerate(self.stages)}
        waiting = {
            name: set(stage.needs).difference(self.skipped)
            for name, stage in self.stages.items()
            if name not in self.skipped
        }
        ready = [(rank[name], name) for name, needs in waiting.items() if not needs]
        heapq.heapify(ready)
        running: list[tuple[float, int, str]] = []
        locked: set[str] = set()
        starts_s: dict[str, float] = {}
        now_s = 0.0
        while ready or running:
            locked_out = []
            while ready and (self.jobs is None or len(running) < self.jobs):
                entry = heapq.heappop(ready)
                stage = self.stages[entry[1]]
                if locked.intersection(stage.uses):
                    locked_out.append(entry)
                    continue
                locked.update(stage.uses)
                heapq.heappush(running, (now_s + stage.expected_s, len(starts_s), stage.name))
                starts_s[stage.name] = now_s
            for entry in locked_out:
                heapq.heappush(ready, entry)
            now_s, _, ended = heapq.heappop(running)
            locked.difference_update(self.stages[ended].uses)
            for user in self.graph.users[ended]:
                if user in waiting:
                    waiting[user].discard(ended)
                    if not waiting[user]:
                        heapq.heappush(ready, (rank[user], user))
        return starts_s

    @property
    def expected_s(self) -> float:
        """How long a run takes in which every stage takes its known time."""
        ends_s = (start_s + self.stages[name].expected_s for name, start_s in self.starts_s.items())
        return max(ends_s, default=0.0)
