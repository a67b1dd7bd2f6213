"""Plays a recorded run again, without an engine: the same events, the same verdict."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import anyio

from penstock.events import (
    Event,
    RunFinished,
    RunStarted,
    RunStopped,
    StageFinished,
    StageRetried,
    from_dict,
)
from penstock.model import Outcome, Result, Stage
from penstock.runner import Runner, verdict, warnings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

MOST_TURNS = 1000  # of the event loop, until a stage that can begin has begun


def read(path: Path) -> Iterator[Event]:
    """Yield the events of a file; a last line that a crash cut short is left out.

    Raises:
        ValueError: When another line is no event, with its number.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield from_dict(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                message = f"{path}:{number}: {error}"
                raise ValueError(message) from error


def replay(events: Sequence[Event]) -> list[Event]:
    """Run the scheduler over what was recorded and return the events of the stages, and the verdict.

    Each stage ends as it did, in the same order; what stopped the run from outside (an interrupt, a
    deadline, the loss of the engine) stops it again at the same point.
    """
    return anyio.run(partial(_replay, events))


async def _replay(events: Sequence[Event]) -> list[Event]:
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    if started is None:
        message = "the record does not say which stages there are"
        raise ValueError(message)
    made: list[Event] = []
    turns: dict[str, anyio.Event] = {}
    results: dict[str, Outcome] = {}

    async def execute(
        stage: Stage, needed: Mapping[str, Outcome], *, attempt: int, deadline_s: float
    ) -> Outcome:
        del needed, attempt, deadline_s
        turn = turns[stage.name] = anyio.Event()
        with anyio.CancelScope(shield=True):  # it ends when it ended, cancelled or not
            await turn.wait()
        return results[stage.name]

    async def end(name: str, outcome: Outcome) -> None:
        """Let the stage's work, which begins in a task of its own, end now."""
        for _ in range(MOST_TURNS):
            if name in turns:
                break
            await anyio.lowlevel.checkpoint()
        else:
            message = f"the record says that '{name}' ended, and it cannot have begun by then"
            raise ValueError(message)
        results[name] = outcome
        turns.pop(name).set()
        await anyio.lowlevel.checkpoint()

    runner = Runner(
        started.stages,
        execute,
        emit=made.append,
        jobs=started.jobs,
        keep_going=started.keep_going,
        delay_s=lambda _before: 0.0,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        for event in events:
            match event:
                case RunStopped() if event.result is not Result.FAILURE:
                    await anyio.lowlevel.checkpoint()
                    runner.stop(
                        event.result,
                        event.reason,
                        root=event.root,
                        exit_code=event.exit_code,
                        grace_s=event.grace_s,
                        teardown_s=event.teardown_s,
                    )
                case StageRetried():
                    tried = event.attempt
                    await end(
                        event.stage,
                        Outcome(
                            result=tried.result,
                            reason=tried.reason,
                            exit_code=tried.exit_code,
                            fault=tried.fault,
                        ),
                    )
                case StageFinished() if event.stage not in runner.outcomes:
                    await end(event.stage, event.outcome)
        tasks.cancel_scope.cancel()
    ended = verdict(runner.stages, runner.outcomes, runner.stops)
    made.append(
        RunFinished(
            result=ended.result,
            reason=ended.reason,
            root=ended.root,
            exit_code=ended.exit_code,
            duration_s=0.0,
            warnings=warnings(runner.outcomes),
        )
    )
    return made
