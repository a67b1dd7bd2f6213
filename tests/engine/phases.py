"""A pipeline with a stage for each phase that an engine can be lost in, or a run interrupted in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.engine.conftest import ROOT, laptop

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

    from tests.engine.conftest import Project
    from tests.engine.own import OwnEngine

PIPELINE = """
@pipeline.stage
def pull():
    return dag.container().from_("postgres:15-alpine")

@pipeline.service
def slow(python):
    health = Health(command=["sh", "-c", "test -e /up || { sleep 3; touch /up; }"], timeout_s=9.0)
    return Service(container=python, port=1, args=["sleep", "971"], health=health)

@pipeline.stage
def serve(python, slow):
    return Command(python, "true", services=[slow])

@pipeline.stage
def command(python):
    return Command(python, "sleep 972")

@pipeline.stage
def export(python):
    many = "mkdir big; for i in $(seq 20); do head -c 20M /dev/urandom > big/$i; done"
    return Command(python, many, shell=True, reports=[Report("big")])

@pipeline.stage
async def publish(python, registry):
    image = python.with_exec(["sh", "-c", "head -c 60M /dev/urandom > /big"])
    return await registry.push(image, tags=["one", "two"])

@pipeline.stage
def green(python):
    return Command(python, "true")

@pipeline.stage(needs=[green], always=True)
def teardown(python):
    return Command(python, "sleep 4")

@pipeline.stage
def next_one(python):
    return Command(python, "true")
"""
# By phase: which stages run, and what has happened when it begins.
PHASES = {
    "connect": ("green", "run_started"),
    "pull": ("pull", '"stage_started".*"stage": "pull"'),
    "service": ("serve", '"stage_started".*"stage": "serve"'),
    "command": ("command", '"stage_started".*"stage": "command"'),
    "export": ("export", "[.]incoming-"),
    "publish": ("publish", '"service_started".*"service": "registry"'),
    "teardown": ("teardown", '"stage_started".*"stage": "teardown"'),
    "report": ("green", '"stage_finished".*"stage": "green"'),
}
LONGEST_S = 60.0
MARK = "PENSTOCK_TEST_FOLDER"
KEPT = (".penstock", ".gitignore")


@dataclass(frozen=True)
class Ending:
    """How a run ended that was disturbed."""

    code: int
    took_s: float
    out: str
    record: dict[str, Any]


def write(project: Project) -> None:
    """Write the pipeline; what it imports before it runs is no more than has to be."""
    project.write(PIPELINE)
    file = project.folder / "pipeline.py"
    text = file.read_text().replace("import dagger\nfrom dagger import dag\n", "")
    text = text.replace("python:3.11-slim", "redis:7-alpine")  # the smallest of all
    file.write_text(text.replace("    return dag.", "    from dagger import dag\n    return dag."))


def start(project: Project, engine: OwnEngine, phase: str, *above: str) -> subprocess.Popen[str]:
    """Begin a run, below other words where they are given, and return when the phase has begun."""
    stages, needle = PHASES[phase]
    if phase == "pull":
        forget_images(engine)
    if (events := project.folder / "reports/events.jsonl").exists():
        events.unlink()
    with (project.folder / "out.txt").open("w") as out:
        child = subprocess.Popen(
            [*above, sys.executable, "pipeline.py", "--only", stages],
            cwd=project.folder,
            env=environment(engine) | {MARK: str(project.folder)},
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    end = time.monotonic() + LONGEST_S
    while not re.search(needle, _seen(project.folder)) and child.poll() is None:
        if time.monotonic() > end:
            child.kill()
            raise AssertionError((project.folder / "out.txt").read_text())
        time.sleep(0.01)
    return child


def environment(engine: OwnEngine) -> dict[str, str]:
    """Return what a run at a terminal sees, with this engine."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return laptop() | {
        "PYTHONPATH": str(ROOT / "ci"),
        "_EXPERIMENTAL_DAGGER_RUNNER_HOST": engine.url,
        "DAGGER_PROGRESS": "plain",
        "PATH": path,
    }


def forget_images(engine: OwnEngine) -> None:
    """Have the engine pull again."""
    words = ["dagger", "core", "engine", "local-cache", "prune"]
    subprocess.run(words, env=environment(engine), check=True, capture_output=True)


def ended(project: Project, child: subprocess.Popen[str], since: float) -> Ending:
    """Wait for the end and return it, timed from an instant of the monotonic clock."""
    try:
        child.wait(LONGEST_S)
    finally:
        child.kill()
        child.wait()
    took_s = time.monotonic() - since
    out = (project.folder / "out.txt").read_text(errors="replace")
    return Ending(child.returncode, took_s, out, record(project.folder))


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "reports/run.json").read_text()))


def lose(project: Project, engine: OwnEngine, how: str, child: subprocess.Popen[str]) -> Ending:
    """Kill or pause the engine under a run."""
    since = time.monotonic()
    getattr(engine, how)()
    return ended(project, child, since)


def interrupt(project: Project, number: signal.Signals, child: subprocess.Popen[str]) -> Ending:
    """Send a signal to a run."""
    since = time.monotonic()
    child.send_signal(number)
    return ended(project, child, since)


def _seen(folder: Path) -> str:
    """Return what has happened so far, and which unfinished files lie in the reports."""
    events = folder / "reports/events.jsonl"
    files = " ".join(path.name for path in events.parent.glob(".*"))
    return files + (events.read_text(errors="replace") if events.exists() else "")


def left_on_host(before: Leftovers, folder: Path) -> list[str]:
    """Return the processes, sockets, temporary files, containers and volumes that are new."""
    end = time.monotonic() + 10
    while (left := Leftovers.now(folder).beyond(before)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


@dataclass(frozen=True)
class Leftovers:
    """What a run could leave on this machine."""

    things: frozenset[str]

    @classmethod
    def now(cls, folder: Path) -> Leftovers:
        things = set(_processes(folder))
        for words in (["docker", "ps", "-aq"], ["docker", "volume", "ls", "-q"]):
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            things |= {f"{words[1]} {line}" for line in done.stdout.split()}
        for top in (folder, folder / "reports", folder / ".penstock"):
            things |= {str(path) for path in top.glob(".*") if path.name not in KEPT}
        return cls(frozenset(things))

    def beyond(self, before: Leftovers) -> list[str]:
        return sorted(self.things - before.things)


def _processes(folder: Path) -> Iterator[str]:
    """Yield all that was begun with a project's environment, whoever its parent is by now."""
    mark = f"{MARK}={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                yield f"{process.name} {(process / 'cmdline').read_text()}"
