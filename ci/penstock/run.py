"""One run on the engine, from the plan to the verdict."""

from __future__ import annotations

import logging
import os
import platform
import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

import penstock
from penstock import parent, stuck
from penstock.cache import Cache
from penstock.cli import PROGRAM_VARIABLE, program
from penstock.errors import SIGNALLED_CODE, PenstockError
from penstock.events import EventStream, PastRun, RunFinished, RunStarted, RunStopped, Warned
from penstock.execute import Executor
from penstock.identity import Identities
from penstock.live import Live
from penstock.model import Result
from penstock.query import Queries
from penstock.redact import MIN_BYTES
from penstock.runner import ENGINE_CODE, Runner, verdict, warnings
from penstock.services import ServicePool
from penstock.session import open_session
from penstock.verdicts import Verdicts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack

    from penstock.events import Listener
    from penstock.pipeline import Pipeline
    from penstock.plan import Plan
    from penstock.redact import Redactor

logger = logging.getLogger(__name__)

# Everything after an interrupt has to fit into the 7.5 s that CI hosts leave; this is teardown's.
INTERRUPTED_TEARDOWN_S = 4.0
HANGING = "penstock: {reason}; `dagger run` would hang now, and was ended; see reports/index.html"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    # `nohup` has hang-ups ignored, and so do we; what a shell starts in the background it makes deaf
    # to SIGINT, which CI hosts send all the same.
    is_deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = [number for number in SIGNALS if not (is_deaf and number is signal.SIGHUP)]
    # Signals are heard from here on, also while Dagger is imported in a thread beside the loop.
    with anyio.open_signal_receiver(*wanted) as signals:
        for number in wanted:
            signal.signal(number, stuck.hurry)  # the loop hears of it all the same
        stream = EventStream(redactor, listeners)
        code = await _run(plan, secrets, redactor, stream, signals=signals, afterwards=afterwards)
    if code > SIGNALLED_CODE:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for the impatient
    return code


async def _run(
    plan: Plan,
    secrets: Mapping[tuple[str, str], str],
    redactor: Redactor,
    stream: EventStream,
    *,
    signals: AsyncIterator[signal.Signals],
    afterwards: ExitStack,
) -> int:
    surroundings, state = plan.run, plan.state
    began = time.monotonic()
    unmasked = _mask(secrets, redactor)
    started = _started(plan)
    stream.emit(started)
    for what in unmasked:
        words = f"{what} is shorter than {MIN_BYTES} bytes and is not masked"
        stream.emit(Warned(message=words))
    async with anyio.create_task_group() as tasks:
        live = Live(surroundings.id, stream.emit, redactor)
        pool = ServicePool(tasks, live)
        queries = Queries()
        cache = Cache(plan.cache, Identities(queries), stream.emit) if plan.cache else None
        verdicts = Verdicts(cache, surroundings, plan.reuse) if cache else None
        executor = Executor(
            plan.pipeline,
            dict(plan.stages),
            surroundings,
            pool,
            state,
            redactor,
            live,
            secrets,
            queries,
            verdicts,
        )
        runner = Runner(
            plan.stages.values(),
            executor,
            emit=stream.emit,
            jobs=plan.jobs,
            keep_going=plan.keep_going,
            deadline_s=plan.pipeline.deadline_s,
            teardown_s=plan.pipeline.teardown_s,
        )
        stream.listen(executor.release)
        if verdicts:
            stream.listen(verdicts.keep)
        codes: list[int] = []  # the exit code, once the verdict is said
        connecting, exporting = anyio.CancelScope(), anyio.CancelScope()
        tasks.start_soon(stuck.keep_quiet)
        tasks.start_soon(_heed, signals, runner, codes, [connecting, exporting])
        lost = partial(RunStopped, result=Result.ERROR, exit_code=ENGINE_CODE, teardown_s=0.0)
        advice = _advice(plan.pipeline)
        above = parent.dagger_run()

        def lose(reason: str) -> None:
            if codes:
                return
            interrupted = any(stop.result is Result.CANCELLATION for stop in runner.stops)
            runner.stop(lost(reason=reason))
            if above and not interrupted:
                afterwards.callback(parent.end, above, HANGING.format(reason=reason))

        def finish() -> int:
            if not codes:
                took_s = round(time.monotonic() - began, 3)
                codes.append(_finish(plan, runner, started, stream, took_s))
            return codes[0]

        try:
            async with open_session(
                emit=stream.emit,
                on_lost=lose,
                connecting=connecting,
                advice=advice,
                above=above,
            ):
                tasks.start_soon(live.follow)
                with cache.active() if cache else nullcontext():
                    await runner.run()
                await pool.stop_all()
                if cache and not any(stop.exit_code for stop in runner.stops):
                    finish()  # who waits for the verdict waits for nothing else
                    with exporting:
                        afterwards.callback(_say, redactor.mask(await cache.export()))
        except PenstockError as error:
            lose(str(error))
        tasks.cancel_scope.cancel()
    return finish()


def _finish(
    plan: Plan, runner: Runner, started: RunStarted, stream: EventStream, took_s: float
) -> int:
    """Remember a run, say how it ended, and return the exit code."""
    state, outcomes = plan.state, runner.outcomes
    ended = verdict(runner.stages, outcomes, runner.stops)
    state.durations_s |= {
        name: o.duration_s for name, o in outcomes.items() if o.passed and not o.cached
    }
    state.failed = [n for n, o in outcomes.items() if not o.passed and not runner.stages[n].skip]
    this = PastRun(
        started_at=started.started_at, result=ended.result, duration_s=took_s, commit=started.commit
    )
    state.history.append(asdict(this))
    state.save()
    stream.emit(RunFinished(**vars(ended), duration_s=took_s, warnings=warnings(outcomes)))
    return ended.exit_code


def _say(words: str) -> None:
    if words:
        logger.warning(words)


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


def _advice(pipeline: Pipeline) -> str:
    """Return what to do without an engine: `python3 -m ci` mends it, where there is such a thing."""
    if PROGRAM_VARIABLE in os.environ or (pipeline.root / "ci" / "__main__.py").exists():
        return "`python3 -m ci doctor` says what is wrong, `python3 -m ci setup` mends it"
    return "does Docker run here, or is there another engine for `--engine URL`?"


def _mask(secrets: Mapping[tuple[str, str], str], redactor: Redactor) -> list[str]:
    """Have secrets masked from now on, and return those that are too short for that."""
    redactor.add(os.environ.get("REGISTRY_TOKEN", ""))
    redactor.add(os.environ.get("REGISTRY", "").rpartition("@")[0].rpartition(":")[2])
    return [
        f"secret '{name}' of stage '{stage}'"
        for (stage, name), value in secrets.items()
        if not redactor.add(value)
    ]


async def _heed(
    signals: AsyncIterator[signal.Signals],
    runner: Runner,
    codes: Sequence[int],
    waits: Iterable[anyio.CancelScope],
) -> None:
    """Cancel and clean up at the first signal; a verdict that is said already stands."""
    first = await anext(signals)
    if not codes:
        stop = RunStopped(
            result=Result.CANCELLATION,
            reason=f"interrupted by {first.name}",
            exit_code=SIGNALLED_CODE + first,
            teardown_s=INTERRUPTED_TEARDOWN_S,
        )
        runner.stop(stop)
    for wait in waits:
        wait.cancel()  # a second signal does not come this far: see `stuck.hurry`
