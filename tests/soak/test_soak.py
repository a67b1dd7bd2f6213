"""Sixty runs in a row, most of them disturbed: nothing may pile up."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from statistics import linear_regression
from typing import TYPE_CHECKING

import pytest

from tests.engine import phases
from tests.engine.conftest import Project, heard, project
from tests.engine.own import NAME, OwnEngine
from tests.engine.phases import Leftovers, left_on_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["heard", "project"]

pytestmark = pytest.mark.engine

RUNS = int(os.environ.get("SOAK_RUNS", "60"))
WARM_UP = 10
# What the engine's cache may take, and what lies beside it or waits for the next cleaning.
MOST_MB, SLACK_MB = 700, 300
PIPELINE = """
import os, random

@pipeline.service
def keeper(python):
    words = ["sh", "-c", "sleep 3; exit 9"] if os.environ["FAULT"] == "death" else ["sleep", "941"]
    return Service(container=python, port=1, args=words, health=Health(command=["true"]))

@pipeline.stage
def quick(python):
    return Command(python, f"echo {os.environ['NUMBER']} > x; head -c 20M /dev/urandom > y", shell=True, reports=[Report("x"), Report("y")])

@pipeline.stage(deadline_s=4 if os.environ["FAULT"] == "deadline" else 60)
def work(python, keeper):
    lasts = 30 if os.environ["FAULT"] in ("deadline", "death") else 4
    return Command(python, f"sleep {lasts}; echo {os.environ['NUMBER']}", shell=True, services=[keeper])

@pipeline.stage
def red(python):
    return Command(python, f"sleep 2; test {os.environ['FAULT']} != red; : {os.environ['NUMBER']}", shell=True)

@pipeline.stage(needs=[work], always=True)
def clean_up(python):
    return Command(python, f"echo cleaned {os.environ['NUMBER']}", shell=True)
"""
# What is done to a run, and the exit codes that may follow: a signal may come when all is over, but
# at least half of each has to be in time.
FAULTS: dict[str, tuple[signal.Signals | None, tuple[int, ...]]] = {
    "none": (None, (0,)),
    "red": (None, (1,)),
    "deadline": (None, (1,)),
    "death": (None, (4,)),
    "int": (signal.SIGINT, (130, 0)),
    "term": (signal.SIGTERM, (143, 0)),
    "hup": (signal.SIGHUP, (129, 0)),
    "kill": (signal.SIGKILL, (-9, 0)),
}
# After the rest, as each begins the engine's memory anew, which would hide a slope.
RESTARTS = int(os.environ.get("SOAK_RESTARTS", "6"))


@dataclass(frozen=True)
class Sample:
    """What there is after a run."""

    client_mb: float
    engine_mb: float
    descriptors: int
    processes: int
    disk_mb: float


@pytest.fixture
def small_engine() -> Iterator[OwnEngine]:
    """An engine whose cache the runs fill several times over."""
    engine = OwnEngine(f"{NAME}-small", most=f"{MOST_MB}MB")
    engine.ready()
    yield engine
    engine.remove()


def test_nothing_piles_up(
    project: Project, small_engine: OwnEngine, record_property: Callable[[str, object], None]
) -> None:
    """No slope in memory, descriptors and processes; the disk holds what its bound allows."""
    project.write(PIPELINE)
    chance = random.Random(7)  # noqa: S311 - repeatable
    before = Leftovers.now(project.folder)
    samples = []
    codes = defaultdict(list)
    for number in range(RUNS):
        fault = chance.choice(list(FAULTS))
        code = disturbed(project, small_engine, fault, number, chance.uniform(0.0, 6.0))
        assert code in FAULTS[fault][1], (fault, code)
        codes[fault].append(code)
        left = left_on_host(before, project.folder)
        # What was being exported when it was killed is removed by the next run.
        assert [one for one in left if fault != "kill" or "/.incoming-" not in one] == []
        samples.append(sample(small_engine))
        print(f"{number:2} {fault:9} {code:4} {samples[-1]}", flush=True)  # noqa: T201 - half an hour
    for fault, ends in codes.items():
        assert ends.count(FAULTS[fault][1][0]) * 2 >= len(ends), (fault, ends)
    steady = samples[WARM_UP:]
    for name, most in (
        ("client_mb", 20),
        ("engine_mb", 200),
        ("descriptors", 20),
        ("processes", 3),
    ):
        values = [getattr(one, name) for one in steady]
        slope = linear_regression(range(len(values)), values).slope
        record_property(name, f"{values[0]:.0f} to {values[-1]:.0f}, {slope:+.2f} a run")
        print(f"{name}: {values[0]:.0f} to {values[-1]:.0f}, {slope:+.2f} a run")  # noqa: T201 - the figures
        assert slope * len(values) < most, (name, values)
    assert max(one.disk_mb for one in steady) < MOST_MB + SLACK_MB
    assert RUNS * 20 > MOST_MB, "the cache was never full"
    restarted = []
    for number in range(RUNS, RUNS + RESTARTS):
        code = disturbed(project, small_engine, "engine", number, chance.uniform(0.0, 3.0))
        assert code == 4
        assert left_on_host(before, project.folder) == []
        small_engine.ready()
        assert disturbed(project, small_engine, "none", number, 0.0) == 0
        restarted.append(sample(small_engine))
        print(f"{number:2} engine    {code:4} {restarted[-1]}", flush=True)  # noqa: T201 - half an hour
    most_mb = max(one.disk_mb for one in restarted)
    assert most_mb < MOST_MB + SLACK_MB, "what an engine that died left is never cleaned"
    assert restarted[-1].processes <= restarted[0].processes


def disturbed(project: Project, engine: OwnEngine, fault: str, number: int, after_s: float) -> int:
    """Run once, with one fault; `engine` is the engine's death."""
    mark = {"FAULT": fault, "NUMBER": f"{number}{project.salt}"} | phases.marked(project.folder)
    events = project.folder / "reports/events.jsonl"
    events.unlink(missing_ok=True)
    child = subprocess.Popen(
        [sys.executable, "pipeline.py"],
        cwd=project.folder,
        env=phases.environment(engine) | mark,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    number_of = FAULTS[fault][0] if fault in FAULTS else None
    if number_of or fault == "engine":
        while not events.exists() and child.poll() is None:
            time.sleep(0.02)
        time.sleep(after_s)
        child.send_signal(number_of) if number_of else engine.kill()
    return child.wait(120)


def sample(engine: OwnEngine) -> Sample:
    """Measure the engine, once what ended has had its time to go, and the clients so far."""
    words = ["docker", "exec", engine.name, "sh", "-c"]

    def inside(line: str) -> str:
        return subprocess.run([*words, line], capture_output=True, text=True, check=True).stdout

    end = time.monotonic() + 10
    while "sleep 941" in engine.processes() and time.monotonic() < end:
        time.sleep(0.2)
    found = inside("pidof dagger-engine").split()[0]
    rss = inside(f"grep VmRSS /proc/{found}/status").split()[1]
    return Sample(
        client_mb=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        engine_mb=int(rss) / 1024,
        descriptors=len(inside(f"ls /proc/{found}/fd").split()),
        processes=len(engine.processes().splitlines()),
        disk_mb=float(inside("du -sm /var/lib/dagger").split()[0]),
    )
