"""What a run is going to do, before any engine is asked. Pure but for asking git."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from penstock.cache import Repository
from penstock.errors import DefinitionError
from penstock.events import Event, StageStarted
from penstock.graph import Graph
from penstock.model import Outcome, Result, Skip
from penstock.purity import begins_early
from penstock.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.config import RunInfo
    from penstock.model import Stage
    from penstock.pipeline import Definition, Pipeline
    from penstock.purity import Conditions
    from penstock.state import State


def _unmet(definition: Definition, run: RunInfo) -> Skip | None:
    """Return why a stage does not run here; a condition may be the author's own."""
    try:
        unmet: object = definition.options["when"].unmet(run)
        if unmet is None or isinstance(unmet, Skip):
            return unmet
        error: Exception = TypeError(f"it returned {unmet!r:.80}, which is no Skip and not None")
    except Exception as caught:  # noqa: BLE001 - whatever the author's own code raises
        error = caught
    words = f"has a condition that cannot be decided: {type(error).__name__}: {error}"
    raise DefinitionError([definition.finding(words)])


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
        speculate: Begin the work of pure stages beside their gates.
        cache: What outlives the engine, where the team has a place for it.
        reuse: Whether verdicts of other runs count.
    """

    pipeline: Pipeline
    stages: Mapping[str, Stage]
    run: RunInfo
    state: State
    jobs: int | None = None
    keep_going: bool = False
    speculate: bool = False
    cache: Repository | None = None
    reuse: bool = False

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
        speculate: bool = False,
        reuse: bool | None = None,
    ) -> Plan:
        """Return the plan for some stages: conditions decided, expected times added."""
        families = {stage.family for stage in chosen.values()}
        decided = {
            name: _unmet(definition, run)
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
        cache = Repository.discover(run.environ)
        # What is released rests on this very run, unless somebody says otherwise.
        is_wanted = not (run.ci and run.on_default_branch) if reuse is None else reuse
        return cls(
            pipeline=pipeline,
            stages=stages,
            run=run,
            state=state,
            jobs=jobs,
            keep_going=keep_going,
            speculate=speculate,
            cache=cache,
            reuse=cache is not None and is_wanted,
        )

    @cached_property
    def graph(self) -> Graph:
        """The needs of the stages."""
        return Graph({name: stage.needs for name, stage in self.stages.items()})

    @cached_property
    def early(self) -> Mapping[str, Conditions]:
        """The stages whose work may begin early, and when."""
        return begins_early(self.pipeline, self.stages) if self.speculate else {}

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Why stages do not run, by name, if all others pass."""
        outcomes = self._rehearsal[0]
        return {n: o.reason for n, o in outcomes.items() if o.result is Result.SKIP}

    @property
    def families(self) -> list[str]:
        """The functions behind the stages that can run."""
        names = (stage.family for stage in self.stages.values() if stage.name not in self.skipped)
        return list(dict.fromkeys(names))

    @property
    def starts_s(self) -> dict[str, float]:
        """When each stage starts if all pass in their known time, in the order of starting."""
        return self._rehearsal[1]

    @cached_property
    def _rehearsal(self) -> tuple[dict[str, Outcome], dict[str, float]]:
        """What becomes of each stage and when it starts, by a clock that is only counted on."""
        now_s = 0.0
        starts_s: dict[str, float] = {}
        running: list[tuple[float, int, str]] = []

        def follow(event: Event) -> None:
            if isinstance(event, StageStarted):
                ends_s = now_s + self.stages[event.stage].expected_s
                heapq.heappush(running, (ends_s, len(starts_s), event.stage))
                starts_s[event.stage] = now_s

        scheduler = Scheduler(self.stages.values(), emit=follow, jobs=self.jobs)
        scheduler.begin()
        while running:
            now_s, _, name = heapq.heappop(running)
            scheduler.end(name, Outcome(result=Result.SUCCESS))
        return scheduler.outcomes, starts_s

    @property
    def expected_s(self) -> float:
        """How long a run takes in which every stage takes its known time."""
        ends_s = (start_s + self.stages[name].expected_s for name, start_s in self.starts_s.items())
        return max(ends_s, default=0.0)
