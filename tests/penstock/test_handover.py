from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from penstock.events import StageFinished
from penstock.handover import Handover
from penstock.model import Attempt, Outcome, Result, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from penstock.events import Event
    from penstock.execute import Executor
    from penstock.runner import Tried

STAGE = Stage(name="test", title="test")
PASSED = Outcome(result=Result.SUCCESS)
ATTEMPT = Attempt(result=Result.ERROR, reason="down", duration_s=1.0)


@dataclass
class Worker:
    """An executor whose one stage ends when it is told to."""

    may_end: anyio.Event = field(default_factory=anyio.Event)
    begun: int = 0
    was_cancelled: bool = False
    released: list[str] = field(default_factory=list)
    made_from: dict[str, dict[str, str]] = field(default_factory=dict)

    async def __call__(
        self,
        stage: Stage,
        needed: Mapping[str, Outcome],
        *,
        attempt: int,
        deadline_s: float,
        tried: Tried,
    ) -> Outcome:
        assert (stage, needed, attempt, deadline_s) == (STAGE, {}, 1, 9.0)
        self.begun += 1
        try:
            await self.may_end.wait()
        except anyio.get_cancelled_exc_class():
            self.was_cancelled = True
            raise
        tried(ATTEMPT, 0.5)
        return PASSED

    def release(self, event: Event) -> None:
        assert isinstance(event, StageFinished)
        self.released.append(event.stage)

    @property
    def executor(self) -> Executor:
        return cast("Executor", self)


@pytest.fixture
async def handover() -> AsyncIterator[Handover]:
    async with anyio.create_task_group() as tasks:
        yield Handover(tasks)
        tasks.cancel_scope.cancel()


async def begin(handover: Handover, worker: Worker, told: list[Attempt] | None = None) -> Outcome:
    told = [] if told is None else told
    return await handover.through(worker.executor)(
        STAGE, {}, attempt=1, deadline_s=9.0, tried=lambda attempt, _delay_s: told.append(attempt)
    )


async def cut_off(handover: Handover, worker: Worker, *, keep: bool) -> None:
    """Begin a stage in a run that is stopped at once."""
    async with anyio.create_task_group() as run:
        run.start_soon(begin, handover, worker)
        await anyio.wait_all_tasks_blocked()
        assert handover.running == {"test"}
        if keep:
            handover.keep({"test"}, {"db"})
        run.cancel_scope.cancel()


async def test_stage_is_cancelled_with_its_run(handover: Handover) -> None:
    worker = Worker()
    await cut_off(handover, worker, keep=False)
    assert worker.was_cancelled
    assert handover.running == set()


async def test_kept_stage_goes_on_and_gives_the_next_run_its_outcome(handover: Handover) -> None:
    """It is begun once, and what it tells of itself the next run is told."""
    first, second = Worker(), Worker()
    await cut_off(handover, first, keep=True)
    assert await handover.pass_on() == {"db"}
    told: list[Attempt] = []
    first.may_end.set()
    assert await begin(handover, second, told) == PASSED
    assert (first.begun, second.begun, first.was_cancelled) == (1, 0, False)
    assert told == [ATTEMPT]
    assert handover.kept == set()


async def test_kept_stage_that_the_next_run_never_comes_to_is_ended(handover: Handover) -> None:
    worker = Worker()
    await cut_off(handover, worker, keep=True)
    await handover.pass_on()
    assert not worker.was_cancelled
    assert await handover.pass_on() == set()
    assert worker.was_cancelled


async def test_services_of_a_kept_stage_are_released_when_it_ends(handover: Handover) -> None:
    """Not when the run that was cut off says that it ended there."""
    first, second = Worker(made_from={"lint": {"file a": "1"}}), Worker()
    await cut_off(handover, first, keep=True)
    (hear_before,) = handover.listeners(first.executor)[:1]
    hear_before(StageFinished(stage="test", outcome=PASSED))
    assert first.released == []
    listeners = handover.listeners(second.executor)
    assert second.made_from == first.made_from
    first.may_end.set()
    await begin(handover, second)
    for hear in listeners:
        hear(StageFinished(stage="test", outcome=PASSED))
    assert first.released == second.released == ["test"]


async def test_bug_in_a_kept_stage_is_handed_on(handover: Handover) -> None:
    class Broken(Worker):
        async def __call__(self, *_words: object, **_options: object) -> Outcome:
            message = "a bug"
            raise ZeroDivisionError(message)

    with pytest.raises(ZeroDivisionError, match="a bug"):
        await begin(handover, Broken())
