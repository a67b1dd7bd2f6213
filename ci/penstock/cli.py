"""The command line of a pipeline: `python ci/main.py [--only STAGE] [--list] ...`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import anyio

from penstock.config import RunInfo
from penstock.errors import PenstockError, UsageError
from penstock.events import EventStream, RunFinished, RunStarted, StagePlan, Warned
from penstock.model import Result
from penstock.redact import MIN_BYTES, Redactor
from penstock.runner import Runner, verdict
from penstock.session import ENGINE_VARIABLE, open_session
from penstock.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.graph import Graph
    from penstock.model import Outcome
    from penstock.pipeline import Pipeline

SIGNAL_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def main(pipeline: Pipeline, argv: Sequence[str] | None = None) -> int:
    """Run a pipeline's command line and return the exit code.

    0 passed, 1 a stage failed, 2 definition or usage wrong, 3 a bug of ours, 4 engine or service
    lost, 5 nothing selected, 130 and 143 interrupted.
    """
    options = _parser(pipeline).parse_args(argv)
    try:
        graph = pipeline.check()
        if options.only is not None:
            graph = graph.only(options.only)
        if options.list:
            _print_list(pipeline, graph, as_json=options.json)
            return 0
        if options.engine:
            os.environ[ENGINE_VARIABLE] = options.engine
        secrets = _read_secrets(pipeline, graph)
        return anyio.run(partial(_run, pipeline, graph, secrets, options))
    except PenstockError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command line speaks here
        return error.exit_code


def _parser(pipeline: Pipeline) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_program(pipeline), description=f"Run the pipeline '{pipeline.name}'."
    )
    parser.add_argument(
        "--only",
        metavar="STAGE[,STAGE]",
        type=lambda text: [name for name in text.split(",") if name],
        action="extend",
        help="run these stages and what they need",
    )
    parser.add_argument("--list", action="store_true", help="print the stages and run nothing")
    parser.add_argument("--json", action="store_true", help="with --list: for machines")
    parser.add_argument("-j", "--jobs", type=_positive, metavar="N", help="most stages at a time")
    parser.add_argument(
        "--keep-going", action="store_true", help="after a failure run all that is still possible"
    )
    parser.add_argument(
        "--engine", metavar="URL", help="use this engine (tcp, unix, ssh, tls, container, ...)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"{text} is less than 1"
        raise argparse.ArgumentTypeError(message)
    return number


def _program(pipeline: Pipeline) -> str:
    file = pipeline.file
    shown = file.relative_to(pipeline.root) if file.is_relative_to(pipeline.root) else file
    return f"python {shown}"


def _print_list(pipeline: Pipeline, graph: Graph, *, as_json: bool) -> None:
    stages = [pipeline.stages[name] for name in graph.order()]
    if as_json:
        entries = [{"name": s.name, "title": s.title, "needs": list(s.needs)} for s in stages]
        print(json.dumps(entries, indent=2))  # noqa: T201 - the command line speaks here
        return
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        after = f"  (after {', '.join(stage.needs)})" if stage.needs else ""
        print(f"{stage.name:<{width}}  {stage.title}{after}")  # noqa: T201 - the command line speaks here


def _read_secrets(pipeline: Pipeline, graph: Graph) -> dict[tuple[str, str], str]:
    """Read every declared secret of the selected stages before anything starts."""
    return {
        (stage, name): secret.read(name)
        for stage in graph.needs
        for name, secret in pipeline.stages[stage].secrets.items()
    }


async def _run(
    pipeline: Pipeline,
    graph: Graph,
    secrets: Mapping[tuple[str, str], str],
    options: argparse.Namespace,
) -> int:
    """Run the selected stages on the engine and return the exit code."""
    if not graph.needs:
        message = "no stage is selected"
        raise UsageError(message)
    from penstock.execute import Executor
    from penstock.reports.console import ConsoleReport
    from penstock.reports.record import Record
    from penstock.services import ServicePool

    run = RunInfo.discover(pipeline.root)
    redactor = Redactor()
    stream = EventStream(redactor, [ConsoleReport(), Record(run.reports)])
    _mask(secrets, redactor, stream)
    state = State.load(pipeline.root)
    began = time.monotonic()
    stream.emit(_started(pipeline, graph, run))
    interrupted: list[int] = []
    outcomes: dict[str, Outcome] = {}
    failure = ""
    try:
        async with anyio.create_task_group() as tasks:
            pool = ServicePool(tasks, stream.emit)
            executor = Executor(pipeline, run, pool, state, redactor, secrets)
            runner = Runner(
                graph,
                pipeline.stages,
                executor,
                emit=stream.emit,
                jobs=options.jobs,
                keep_going=options.keep_going,
            )
            outcomes = runner.outcomes
            stream.listen(executor.release)
            connecting = anyio.CancelScope()
            tasks.start_soon(_heed_signals, runner, connecting, interrupted)
            on_lost = partial(runner.stop, Result.ERROR)
            async with open_session(emit=stream.emit, on_lost=on_lost, connecting=connecting):
                await runner.run()
                await pool.stop_all()
            tasks.cancel_scope.cancel()
    except* PenstockError as group:
        failure = str(group.exceptions[0])
    result, root, exit_code = verdict(outcomes)
    if failure:
        result, root, exit_code = Result.ERROR, failure, 4
    if interrupted:
        result, exit_code = Result.CANCELLATION, interrupted[0]
    state.durations_s |= {n: o.duration_s for n, o in outcomes.items() if o.passed}
    state.save()
    took = time.monotonic() - began
    stream.emit(RunFinished(result=result, reason=root, exit_code=exit_code, duration_s=took))
    return exit_code


def _started(pipeline: Pipeline, graph: Graph, run: RunInfo) -> RunStarted:
    plans = tuple(
        StagePlan(name, pipeline.stages[name].title, tuple(graph.needs[name]))
        for name in graph.order()
    )
    return RunStarted(
        pipeline=pipeline.name,
        run_id=run.id,
        commit=run.commit,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        stages=plans,
        reproduce=_program(pipeline),
    )


def _mask(secrets: Mapping[tuple[str, str], str], redactor: Redactor, stream: EventStream) -> None:
    for (stage, name), value in secrets.items():
        if not redactor.add(value):
            stream.emit(
                Warned(
                    message=f"secret '{name}' of stage '{stage}' is shorter than {MIN_BYTES} bytes "
                    f"and is not masked"
                )
            )
    if token := os.environ.get("REGISTRY_TOKEN"):
        redactor.add(token)


async def _heed_signals(
    runner: Runner, connecting: anyio.CancelScope, interrupted: list[int]
) -> None:
    """The first signal cancels and cleans up; the second ends the process at once."""
    with anyio.open_signal_receiver(*SIGNAL_CODES) as signals:
        async for received in signals:
            code = SIGNAL_CODES[received]
            if interrupted:
                _leave(code)
            interrupted.append(code)
            runner.stop(Result.CANCELLATION, f"interrupted by {received.name}")
            connecting.cancel()


def _leave(code: int) -> NoReturn:
    """End now; the engine's session ends with us, because it reads our end of a pipe."""
    os._exit(code)
