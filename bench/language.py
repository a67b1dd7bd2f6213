"""What the language itself costs: `python bench/language.py`. No engine is asked.

A thousand stages that do nothing, run with every listener, beside as many tasks of anyio that do
nothing; the plan of ten thousand stages; masking.
"""

from __future__ import annotations

import io
import random
import string
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

sys.path.insert(0, str(Path(__file__).parents[1] / "ci"))

from penstock import Pipeline
from penstock.config import RunInfo
from penstock.events import EventStream, RunStarted
from penstock.model import Outcome, Result, Stage
from penstock.plan import Plan
from penstock.redact import Redactor
from penstock.reports import listing
from penstock.reports.console import ConsoleReport
from penstock.reports.record import Record
from penstock.runner import Runner
from penstock.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.events import Listener

STAGES, PLANNED, ROUNDS = 1000, 10_000, 5


async def nothing(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
    """Do a stage's work, which is none."""
    del stage, needed
    return Outcome(result=Result.SUCCESS)


async def bare() -> None:
    """Run as many tasks as there are stages, in anyio alone."""
    async with anyio.create_task_group() as tasks:
        for _ in range(STAGES):
            tasks.start_soon(anyio.lowlevel.checkpoint)


async def staged() -> None:
    """Run the stages, ten chains side by side, with everything that listens."""
    stages = [
        Stage(name=f"s{n}", family=f"s{n}", needs=(f"s{n - 10}",) if n >= 10 else ())
        for n in range(STAGES)
    ]
    with tempfile.TemporaryDirectory() as folder:
        listeners: list[Listener] = [ConsoleReport(io.StringIO()), Record(Path(folder))]
        stream = EventStream(Redactor(), listeners)
        stream.emit(
            RunStarted(
                pipeline="p",
                run_id="1",
                commit="c",
                started_at="t",
                stages=tuple(stages),
                reproduce="r",
            )
        )
        await Runner(stages, nothing, emit=stream.emit).run()


def planned() -> str:
    """Plan a pipeline of many stages, as `--dry-run` does."""
    pipeline = Pipeline("many", root=Path(tempfile.gettempdir()))
    before: list[Callable[..., None]] = []
    for number in range(PLANNED):

        def stage() -> None: ...

        stage.__name__ = f"s{number}"
        pipeline.stage(needs=before[-1:])(stage)
        before.append(stage)
    stages = pipeline.check()
    run = RunInfo.discover(pipeline.root)
    state = State(pipeline.root / ".penstock")
    return listing.dry_run(Plan.make(pipeline, stages, run, state), as_json=False)


def masked() -> float:
    """Return the speed of masking twenty secrets in a log without one, in MB/s."""
    noise = random.Random(7)  # noqa: S311 - made-up secrets
    redactor = Redactor()
    for _ in range(20):
        redactor.add("".join(noise.choices(string.ascii_letters + "-_/+\"' &", k=30)))
    line = "2026-01-01T00:00:00Z INFO tests/app/test_tasks.py::test_pages PASSED [ 12%]\n"
    text = line * 200_000
    began = time.perf_counter()
    redactor.mask(text)
    return len(text) / 1e6 / (time.perf_counter() - began)


def best(work: Callable[[], object]) -> float:
    """Return the shortest of several rounds, in seconds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Print the figures."""
    alone, ours = best(lambda: anyio.run(bare)), best(lambda: anyio.run(staged))
    print(f"{STAGES} stages: {(ours - alone) / STAGES * 1e3:.3f} ms each on top of anyio")
    print(f"{PLANNED} stages planned: {best(planned):.2f} s")
    print(f"masking 20 secrets: {masked():.0f} MB/s")


if __name__ == "__main__":
    main()
