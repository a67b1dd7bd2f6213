"""Pipelines run as a user runs them: a file, a process, the real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.own import OwnEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
HEADER = """
from __future__ import annotations
from penstock import sdk
sdk.load()  # as a run does it; what the pipeline itself imports first is not made lean
import dagger
from dagger import dag
from penstock import Command, Coverage, Health, JUnit, Pipeline, Report, Secret, Service
from penstock.recipes import postgres_service

pipeline = Pipeline("demo")

@pipeline.container
def python():
    return dag.container().from_("python:3.11-slim").with_workdir("/w").with_env_variable("SALT", "{salt}")
"""
FOOTER = """
if __name__ == "__main__":
    raise SystemExit(pipeline.main())
"""


def laptop() -> dict[str, str]:
    """Return the environment without what a CI host or a git hook adds: both change a run."""
    told = ("GITHUB_", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"CI", "PENSTOCK_CACHE"} and not name.startswith(told)
    }


@dataclass(frozen=True)
class Run:
    """What a run of a pipeline left."""

    code: int
    out: str
    record: dict[str, Any]
    took_s: float

    def stage(self, name: str) -> dict[str, Any]:
        (stage,) = [stage for stage in self.record["stages"] if stage["name"] == name]
        return dict(stage)


@dataclass
class Project:
    """A folder with a pipeline in it."""

    folder: Path
    salt: str

    def write(self, body: str) -> None:
        (self.folder / "pyproject.toml").touch()
        header = HEADER.replace("{salt}", self.salt)
        (self.folder / "pipeline.py").write_text(header + body + FOOTER)

    def start(self, *argv: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "pipeline.py", *argv],
            cwd=self.folder,
            env=laptop() | {"PYTHONPATH": str(ROOT / "ci"), "COLUMNS": "80"} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *argv: str, **env: str) -> Run:
        began = time.monotonic()
        return self._wait(self.start(*argv, **env), began)

    def interrupt(self, number: signal.Signals, when: Callable[[str], bool], **env: str) -> Run:
        """Run, send a signal once the events so far satisfy a condition, and wait."""
        child = self.start(**env)
        events = self.folder / "reports/events.jsonl"
        end = time.monotonic() + 60
        while time.monotonic() < end and not (events.exists() and when(events.read_text())):
            time.sleep(0.02)
        began = time.monotonic()
        child.send_signal(number)
        return self._wait(child, began)

    def _wait(self, child: subprocess.Popen[str], began: float) -> Run:
        out, _ = child.communicate(timeout=180)
        written = self.folder / "reports/run.json"
        record = json.loads(written.read_text()) if written.exists() else {}
        return Run(child.returncode, out, record, time.monotonic() - began)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project; its salt keeps its commands out of other tests' cache."""
    return Project(tmp_path, f"salt{time.time_ns()}")


@pytest.fixture(scope="session", autouse=True)
def heard() -> None:
    """Have signals heard by what is started here, as at a terminal: `nohup` and `&` hand deafness on."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def own_engine() -> Iterator[OwnEngine]:
    """An engine that tests may kill, pause and fill, removed when all of them are done."""
    engine = OwnEngine()
    engine.ready()
    yield engine
    engine.remove()


@pytest.fixture
def hurt(own_engine: OwnEngine) -> Iterator[OwnEngine]:
    """The engine to be hurt, whole before and after."""
    own_engine.ready()
    yield own_engine
    own_engine.ready()


def engine_processes() -> str:
    """Return the command lines of everything that runs inside the engine's container."""
    names = subprocess.run(
        ["docker", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True
    ).stdout.split()
    (engine,) = [name for name in names if name.startswith("dagger-engine-")]
    words = ["docker", "exec", engine, "ps", "-eo", "args"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def settled(needle: str) -> bool:
    """Return whether nothing of that name is left in the engine, within ten seconds."""
    for _ in range(100):
        if needle not in engine_processes():
            return True
        time.sleep(0.1)
    return False
