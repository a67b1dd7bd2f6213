"""Hands stages that a change of files leaves as they are from one run to the next.

A run that is outdated ends at once; what it does for these goes on, and the run behind it, when it
comes to such a stage, waits for the end of that instead of beginning anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from penstock.events import Event, StageFinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from anyio.abc import TaskGroup

    from penstock.events import Listener
    from penstock.execute import Executor
    from penstock.model import Attempt, Outcome, Stage
    from penstock.runner import Execute, Tried


@dataclass
class _Work:
    """What is done for a stage, whichever run waits for it.

    Args:
        executor: Does it.
        tried: Tells of an attempt to the run that waits now.
    """

    executor: Executor
    tried: Tried
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: Outcome | None = None
    error: Exception | None = None

    def tell(self, attempt: Attempt, delay_s: float) -> None:
        """Tell of an attempt to the run that waits by then."""
        self.tried(attempt, delay_s)


class Handover:
    """Does the work of stages, each in a task that may outlive its run.

    Args:
        tasks: Outlives every run.

    Attributes:
        kept: Stages that are on their way from one run to another.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._works: dict[str, _Work] = {}
        self._services: set[str] = set()
        self._is_meant = False
        self.kept: set[str] = set()

    @property
    def running(self) -> set[str]:
        """The stages for which something is done."""
        return {name for name, work in self._works.items() if not work.done.is_set()}

    def keep(self, stages: set[str], services: set[str]) -> None:
        """Let stages, and the services that they use, outlive the run, which is to be stopped next."""
        self.kept, self._services, self._is_meant = stages, services, True

    async def pass_on(self) -> set[str]:
        """Return the services of what goes on; end what was kept for a run that never came to it."""
        if not self._is_meant:
            for name in tuple(self.kept):
                await self._end(name)
            self.kept, self._services = set(), set()
        self._is_meant = False
        return self._services

    def listeners(self, executor: Executor) -> list[Listener]:
        """Return what hears of the end of stages for a run's executor, and those of earlier ones."""
        earlier = {id(work.executor): work.executor for work in self._works.values()}.values()
        for other in earlier:
            executor.made_from.update(other.made_from)

        def listener(of: Executor) -> Listener:
            def hear(event: Event) -> None:
                if not (isinstance(event, StageFinished) and event.stage in self.kept):
                    of.release(event)

            return hear

        return [listener(of) for of in (executor, *earlier)]

    def through(self, executor: Executor) -> Execute:
        """Return what does a stage's work by an executor, unless it goes on from an earlier run."""

        async def carried(
            stage: Stage,
            needed: Mapping[str, Outcome],
            *,
            attempt: int,
            deadline_s: float,
            tried: Tried,
        ) -> Outcome:
            name = stage.name
            if name in self.kept:
                self.kept.discard(name)
                work = self._works[name]
                work.tried = tried
            else:
                work = self._works[name] = _Work(executor, tried)

                async def do() -> Outcome:
                    return await executor(
                        stage,
                        needed,
                        attempt=attempt,
                        deadline_s=deadline_s,
                        tried=work.tell,
                    )

                self._tasks.start_soon(self._do, work, do)
            try:
                await work.done.wait()
            finally:
                if name not in self.kept:
                    await self._end(name)
            if work.error:
                raise work.error
            assert work.outcome  # noqa: S101 - a work that is done and not cancelled has one
            return work.outcome

        return carried

    async def _do(self, work: _Work, do: Callable[[], Awaitable[Outcome]]) -> None:
        try:
            with work.scope:
                work.outcome = await do()
        except Exception as error:  # noqa: BLE001 - handed to the run
            work.error = error
        finally:
            work.done.set()

    async def _end(self, name: str) -> None:
        work = self._works.pop(name)
        work.scope.cancel()
        with anyio.CancelScope(shield=True):
            await work.done.wait()
