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
from tests.engine.own import docker

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

    from tests.engine.conftest import Project
    from tests.engine.own import OwnEngine

PIPELINE = """
async def stay(name):
    import anyio, pathlib
    pathlib.Path(name).touch()
    await anyio.sleep(900)

@pipeline.stage
async def pull():
    from dagger import dag
    await dag.container().from_("postgres:15-alpine").sync()
    await stay("pulled")

@pipeline.service
def slow(python):
    health = Health(command=["sh", "-c", "test -e /up || { sleep 6; touch /up; }"], timeout_s=9.0)
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
    await registry.push(image, tags=["one", "two"])
    await stay("pushed")

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


@dataclass(frozen=True)
class Phase:
    """A part of a run.

    Args:
        stage: The one that is run.
        begins: A pattern in what has happened when it has begun.
        ends: And when it is over.
        instants_s: To disturb it at, after it began; all of them before it is over.
    """

    stage: str
    begins: str
    ends: str
    instants_s: tuple[float, float, float] = (0.0, 0.3, 1.0)


def _started(stage: str) -> str:
    return f'"stage_started".*"stage": "{stage}"'


PHASES = {
    "connect": Phase("command", "run_started", "stage_started", (0.0, 0.15, 0.4)),
    "pull": Phase("pull", _started("pull"), "file pulled|stage_finished", (0.0, 0.15, 0.4)),
    "service": Phase("serve", _started("serve"), "service_started"),
    "command": Phase("command", _started("command"), "stage_finished"),
    "export": Phase("export", "file [.]incoming-", "stage_finished", (0.0, 0.15, 0.4)),
    "publish": Phase(
        "publish",
        '"service_started".*"service": "registry"',
        "file pushed|stage_finished",
        (0.0, 0.15, 0.4),
    ),
    "teardown": Phase("teardown", _started("teardown"), '"stage_finished".*"stage": "teardown"'),
    "report": Phase("green", '"stage_finished".*"stage": "green"', "run_finished"),
}
LONGEST_S = 60.0
OWN = "penstock-hurt"  # what the names of engines begin with that tests make
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
    these = PHASES[phase]
    if phase == "pull":
        forget_images(engine)
    for name in ("reports/events.jsonl", "pulled", "pushed"):
        (project.folder / name).unlink(missing_ok=True)
    with (project.folder / "out.txt").open("w") as out:
        child = subprocess.Popen(
            [*above, sys.executable, "pipeline.py", "--only", these.stage],
            cwd=project.folder,
            env=environment(engine) | marked(project.folder),
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    end = time.monotonic() + LONGEST_S
    while not re.search(these.begins, _seen(project.folder)) and child.poll() is None:
        if time.monotonic() > end:
            child.kill()
            raise AssertionError((project.folder / "out.txt").read_text())
        time.sleep(0.01)
    return child


def is_over(project: Project, phase: str) -> bool:
    """Return whether a phase has ended that had begun."""
    return bool(re.search(PHASES[phase].ends, _seen(project.folder)))


def marked(folder: Path) -> dict[str, str]:
    """Return the variables by which what a run leaves is known: its processes, temporary files."""
    temporary = _temporary(folder)
    temporary.mkdir(exist_ok=True)
    return {MARK: str(folder), "TMPDIR": str(temporary)}


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
    """Return what has happened so far, and which files lie there and, unfinished, in the reports."""
    events = folder / "reports/events.jsonl"
    found = (*folder.glob("p*ed"), *events.parent.glob(".*"))
    files = "".join(f"file {path.name}\n" for path in found)
    return files + (events.read_text(errors="replace") if events.exists() else "")


def left_on_host(before: Leftovers, folder: Path) -> list[str]:
    """Return the processes, temporary files, sockets, containers and volumes that are new."""
    end = time.monotonic() + 10
    while (left := Leftovers.now(folder).beyond(before)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


@dataclass(frozen=True)
class Leftovers:
    """What a run could leave on this machine.

    A socket without a path ends with the processes that hold it; one with a path is a file.
    """

    things: frozenset[str]

    @classmethod
    def now(cls, folder: Path) -> Leftovers:
        things = set(_processes(folder))
        things |= set(_containers_and_volumes())
        things |= {str(path) for path in _temporary(folder).rglob("*")}
        for top in (folder, folder / "reports", folder / ".penstock"):
            things |= {str(path) for path in top.glob(".*") if path.name not in KEPT}
        return cls(frozenset(things))

    def beyond(self, before: Leftovers) -> list[str]:
        return sorted(self.things - before.things)


def _temporary(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.tmp")


def _containers_and_volumes() -> Iterator[str]:
    """Yield those that are no test's own engine, which another test may make at any time."""
    volumes = docker("volume", "ls", "--quiet").split()
    of_tests: set[str] = set()
    for line in docker("ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.Mounts}}").split(
        "\n"
    ):
        name, _, mounts = line.partition(" ")
        if name.startswith(OWN):
            of_tests |= set(mounts.split(","))
        elif name:
            yield f"container {name}"
    for volume in volumes:
        if volume not in of_tests and not volume.startswith(OWN):
            yield f"volume {volume}"


def _processes(folder: Path) -> Iterator[str]:
    """Yield all that was begun with a project's environment, or is in it, whoever its parent is."""
    mark = f"{MARK}={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            begun_here = mark in (process / "environ").read_bytes().split(b"\0")
            if begun_here or (process / "cwd").readlink().is_relative_to(folder):
                yield f"{process.name} {(process / 'cmdline').read_text()}"
