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
    StagesAdded,
    StageStarted,
    from_dict,
)
from penstock.model import Outcome, Result, Stage
from penstock.runner import Runner, verdict, warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

SCHEDULED = (RunStopped, StagesAdded, StageFinished, StageRetried, StageStarted)
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
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    if started is None:
        message = "the record does not say which stages there are"
        raise ValueError(message)
    return anyio.run(partial(_Player(started).play, events))


class _Player:
    """A run in which each stage ends when the record says so.

    Args:
        started: The beginning of the record.
    """

    def __init__(self, started: RunStarted) -> None:
        self._made: list[Event] = []
        self._seen = 0  # events of the record that the scheduler has to make again
        self._outcomes: dict[str, Outcome] = {}
        self._turns: dict[str, tuple[anyio.Event, anyio.CancelScope]] = {}
        self._runner = Runner(
            started.stages,
            self._execute,
            emit=self._made.append,
            jobs=started.jobs,
            keep_going=started.keep_going,
            delay_s=lambda _before: 0.0,
        )

    async def play(self, events: Sequence[Event]) -> list[Event]:
        problem = ""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._runner.run)
            for event in events:
                problem = problem or await self._take(event)
                self._seen += isinstance(event, SCHEDULED)
            for _, shield in self._turns.values():
                shield.shield = False  # what a crash cut short has no end in the record
            tasks.cancel_scope.cancel()
        if problem:
            raise ValueError(problem)
        runner = self._runner
        ended = verdict(runner.stages, runner.outcomes, runner.stops)
        finished = RunFinished(
            result=ended.result,
            reason=ended.reason,
            root=ended.root,
            exit_code=ended.exit_code,
            duration_s=0.0,
            warnings=warnings(runner.outcomes),
        )
        return [*self._made, finished]

    async def _execute(
        self, stage: Stage, needed: Mapping[str, Outcome], *, attempt: int, deadline_s: float
    ) -> Outcome:
        del needed, attempt, deadline_s
        turn = anyio.Event()
        with anyio.CancelScope(shield=True) as shield:  # it ends when it ended, cancelled or not
            self._turns[stage.name] = (turn, shield)
            await turn.wait()
        return self._outcomes[stage.name]

    async def _take(self, event: Event) -> str:
        """Let an event happen again; return what is wrong with it."""
        match event:
            case RunStopped() if event.result is not Result.FAILURE:
                await _until(self._is_settled)
                fields = ("root", "exit_code", "grace_s", "teardown_s")
                options = {name: getattr(event, name) for name in fields}
                self._runner.stop(event.result, event.reason, **options)
            case StageRetried():
                tried = event.attempt
                outcome = Outcome(
                    result=tried.result,
                    reason=tried.reason,
                    exit_code=tried.exit_code,
                    fault=tried.fault,
                )
                return await self._end(event.stage, outcome)
            case StageFinished():
                return await self._end(event.stage, event.outcome)
        return ""

    def _is_settled(self) -> bool:
        """Whether every stage that was started is at its work, where a stop finds it."""
        started = {event.stage for event in self._made if isinstance(event, StageStarted)}
        return len(self._made) >= self._seen and self._turns.keys() >= (
            started - self._runner.outcomes.keys()
        )

    async def _end(self, name: str, outcome: Outcome) -> str:
        outcomes = self._runner.outcomes
        if not await _until(lambda: name in self._turns or name in outcomes):
            return f"the record says that '{name}' ended, and it cannot have begun by then"
        if name not in outcomes:  # else it was skipped, as in the record
            before = len(self._made)
            self._outcomes[name] = outcome
            turn, _ = self._turns.pop(name)
            turn.set()
            await _until(lambda: len(self._made) > before)
        return ""


async def _until(condition: Callable[[], bool]) -> bool:
    for _ in range(MOST_TURNS):
        if condition():
            return True
        await anyio.lowlevel.checkpoint()
    return False
