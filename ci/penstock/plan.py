"""What a run is going to do, before any engine is asked. Pure but for asking git."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from penstock.events import StageStarted
from penstock.graph import Graph
from penstock.model import Outcome, Result, Stage
from penstock.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.config import RunInfo
    from penstock.events import Event
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
        decided = {
            family: definition.options["when"].unmet(run)
            for family, definition in pipeline.definitions.items()
            if "when" in definition.options
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

    @property
    def families(self) -> list[str]:
        """The functions behind the stages that are not skipped."""
        return list(dict.fromkeys(s.family for s in self.stages.values() if not s.skip))

    @property
    def graph(self) -> Graph:
        """The needs of the stages."""
        return Graph({name: stage.needs for name, stage in self.stages.items()})

    def rehearse(self) -> tuple[list[str], dict[str, Outcome]]:
        """Let the scheduler run the plan with stages that all pass at once.

        Returns:
            Names in the order in which they start, and the outcome of every stage.
        """
        order: list[str] = []

        def note(event: Event) -> None:
            if isinstance(event, StageStarted):
                order.append(event.stage)

        runner = Runner(self.stages.values(), _pass, emit=note, jobs=self.jobs)
        return order, anyio.run(runner.run)

    def expected_s(self, ran: Mapping[str, Outcome]) -> float:
        """Return how long a run takes in which every stage takes its known time."""
        known = {name: self.stages[name].expected_s for name, o in ran.items() if o.passed}
        return self.graph.expected_s(known, self.jobs)


async def _pass(
    stage: Stage, needed: Mapping[str, Outcome], *, attempt: int, deadline_s: float
) -> Outcome:
    del stage, needed, attempt, deadline_s
    return Outcome(result=Result.SUCCESS)
