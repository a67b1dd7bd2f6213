"""One run on the engine, from the plan to the verdict."""

from __future__ import annotations

import os
import platform
import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio

import penstock
from penstock.cache import Cache
from penstock.cli import program
from penstock.errors import SIGNALLED_CODE
from penstock.events import EventStream, PastRun, RunFinished, RunStarted, Warned
from penstock.execute import Executor
from penstock.identity import Identities
from penstock.line import heard, on_line
from penstock.model import Result
from penstock.query import Queries
from penstock.redact import MIN_BYTES
from penstock.runner import Runner, verdict, warnings
from penstock.services import ServicePool
from penstock.speculation import Speculation
from penstock.verdicts import Verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack

    from penstock.events import Listener
    from penstock.line import Line
    from penstock.plan import Plan
    from penstock.redact import Redactor


async def run(
    plan: Plan,
    secrets: Mapping[tuple[str, str], str],
    redactor: Redactor,
    listeners: Sequence[Listener],
    afterwards: ExitStack,
) -> int:
    """Run the stages of a plan and return the exit code.

    Args:
        plan: What to do.
        secrets: Values by stage and parameter name.
        redactor: Learns the secrets; every output goes through it.
        listeners: Show the run.
        afterwards: Takes what has to be done when all of it is shown.
    """
    with heard() as signals:
        async with on_line(plan.pipeline, signals, redactor, afterwards) as line:
            this = Run(plan, secrets, line, listeners)
            await this.work()
        code = this.finish()
    if code > SIGNALLED_CODE:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for the impatient
    return code


class Run:
    """One run, from the plan to the verdict.

    Args:
        plan: What to do.
        secrets: Values by stage and parameter name.
        line: To the engine; from now on this is its run.
        listeners: Show the run.
    """

    def __init__(
        self,
        plan: Plan,
        secrets: Mapping[tuple[str, str], str],
        line: Line,
        listeners: Sequence[Listener],
    ) -> None:
        self._began = time.monotonic()
        self._plan = plan
        self._line = line
        unmasked = _mask(secrets, line.redactor)
        self.stream = EventStream(line.redactor, listeners)
        self._started = _started(plan)
        self.stream.emit(self._started)
        for what in unmasked:
            words = f"{what} is shorter than {MIN_BYTES} bytes and is not masked"
            self.stream.emit(Warned(message=words))
        self._pool = ServicePool(line.tasks, line.live)
        line.pools.append(self._pool)
        queries, handover = Queries(), line.handover
        self._cache, self._verdicts = None, None
        if plan.cache:
            self._cache = Cache(plan.cache, Identities(queries), self.stream.emit)
            if not handover:  # who watches is told of every run as it is
                self._verdicts = Verdicts(self._cache, plan.run, plan.reuse)
        executor = self._executor = Executor(
            plan.pipeline,
            dict(plan.stages),
            plan.run,
            self._pool,
            plan.state,
            line.redactor,
            line.live,
            secrets,
            queries=queries,
            verdicts=self._verdicts,
            reads=line.reads,
        )
        line.live.run_id = plan.run.id
        self.runner = Runner(
            plan.stages.values(),
            handover.through(executor) if handover else executor,
            emit=self.stream.emit,
            jobs=plan.jobs,
            keep_going=plan.keep_going,
            deadline_s=plan.pipeline.deadline_s,
            teardown_s=plan.pipeline.teardown_s,
        )
        for listener in handover.listeners(executor) if handover else [executor.release]:
            self.stream.listen(listener)
        if self._verdicts:
            self.stream.listen(self._verdicts.keep)
        self._code: int | None = None
        line.run = self

    async def work(self) -> None:
        """Run the stages.

        Raises:
            EngineError: When no engine can be reached.
        """
        await self._line.open()
        with self._cache.active() if self._cache else nullcontext():
            async with anyio.create_task_group() as early:
                if self._plan.early:
                    begins = Speculation(
                        self._plan.early,
                        self.runner,
                        self._executor,
                        emit=self.stream.emit,
                        tasks=early,
                        jobs=self._plan.jobs,
                    )
                    self.stream.listen(begins)
                await self.runner.run()
                early.cancel_scope.cancel()
        handover = self._line.handover
        spared = await handover.pass_on() if handover else set()
        for pool in self._line.pools:
            await pool.stop_all(spared=spared)
        self._line.pools = [pool for pool in self._line.pools if pool.is_at_work]
        if self._cache and not handover and not any(stop.exit_code for stop in self.runner.stops):
            self.finish()  # who waits for the verdict waits for nothing else
            self._line.say(await self._line.exported(self._cache.export))

    def finish(self) -> int:
        """Tell and remember the verdict, once, and return its exit code."""
        if self._code is not None:
            return self._code
        runner, state = self.runner, self._plan.state
        outcomes = runner.outcomes
        ended = verdict(runner.stages, outcomes, runner.stops)
        took = round(time.monotonic() - self._began, 3)
        state.durations_s |= {
            name: o.duration_s
            for name, o in outcomes.items()
            if o.passed and not o.cached and name not in self._plan.early
        }
        state.failed = [
            n for n, o in outcomes.items() if not o.passed and not runner.stages[n].skip
        ]
        this = PastRun(
            started_at=self._started.started_at,
            result=ended.result,
            duration_s=took,
            commit=self._started.commit,
        )
        state.history.append(asdict(this))
        state.save()
        self.stream.emit(RunFinished(**vars(ended), duration_s=took, warnings=warnings(outcomes)))
        self._line.run = None
        self._code = ended.exit_code
        return self._code


def _started(plan: Plan) -> RunStarted:
    return RunStarted(
        pipeline=plan.pipeline.name,
        run_id=plan.run.id,
        commit=plan.run.commit,
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        stages=tuple(plan.stages.values()),
        reproduce=program(plan.pipeline),
        jobs=plan.jobs,
        keep_going=plan.keep_going,
        branch=plan.run.branch,
        environment=_environment(),
        history=tuple(_past(plan.state.history)),
    )


def _past(history: Iterable[dict[str, Any]]) -> Iterator[PastRun]:
    """Yield the runs before this one, as far as the memory has them whole."""
    for entry in history:
        with suppress(KeyError, TypeError, ValueError):
            yield PastRun(
                started_at=str(entry["started_at"]),
                result=Result(entry["result"]),
                duration_s=float(entry["duration_s"]),
                commit=str(entry.get("commit", "")),
            )


def _environment() -> tuple[tuple[str, str], ...]:
    """Return what people ask for first when two machines disagree."""
    return (
        ("penstock", penstock.__version__),
        ("Python", platform.python_version()),
        ("System", platform.platform()),
        ("CPUs", str(os.cpu_count())),
        ("CI", os.environ.get("CI", "no")),
    )


def _mask(secrets: Mapping[tuple[str, str], str], redactor: Redactor) -> list[str]:
    """Have secrets masked from now on, and return those that are too short for that."""
    redactor.add(os.environ.get("REGISTRY_TOKEN", ""))
    redactor.add(os.environ.get("REGISTRY", "").rpartition("@")[0].rpartition(":")[2])
    return [
        f"secret '{name}' of stage '{stage}'"
        for (stage, name), value in secrets.items()
        if not redactor.add(value)
    ]
