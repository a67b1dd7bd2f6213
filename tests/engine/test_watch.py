"""`--watch`, as somebody uses it who saves files and reads what is printed."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from penstock.session import open_session
from tests.engine import phases
from tests.engine.conftest import settled
from tests.engine.phases import Leftovers, left_on_host

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.engine.conftest import Project
    from tests.engine.own import OwnEngine

pytestmark = pytest.mark.engine

WAITING = "waiting for a change of "
TWO = """
from penstock import Source
app, docs = Source(include=["app"]), Source(include=["docs"])

@pipeline.stage
def test(python):
    files = python.with_directory("/w/app", app.directory().directory("app"))
    return Command(files, "cat app/a.txt; ! grep -q bad app/a.txt", shell=True)

@pipeline.stage
def pages(python):
    files = python.with_directory("/w/docs", docs.directory().directory("docs"))
    return Command(files, "cat docs/d.txt; sleep {pages_s}", shell=True)
"""


@dataclass
class Watched:
    """A pipeline that is watched: what it prints, and its events, round by round."""

    project: Project
    child: subprocess.Popen[str]
    out: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _lines: queue.Queue[str] = field(default_factory=queue.Queue)

    def read(self) -> None:
        assert self.child.stdout
        for line in self.child.stdout:
            self._lines.put(line)
        self._lines.put("")

    def until(self, needle: str, within_s: float = 60) -> str:
        """Return the line that holds this; what is printed before it has been read then."""
        end = time.monotonic() + within_s
        while True:
            line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            assert line, f"{needle!r} never came: {self.out}"
            self.out += line
            if line.startswith("{"):
                self.events.append(json.loads(line))
            if needle in line:
                return line

    def verdict(self) -> dict[str, Any]:
        """Return the record of the round behind which it waits next."""
        self.until(WAITING)
        return phases.record(self.project.folder)

    def results(self) -> dict[str, str]:
        """Return how each stage ended in the round behind which it waits next."""
        told = {True: "cached", False: "executed"}
        return {
            stage["name"]: told[stage.get("cached", False)]
            if stage["result"] == "success"
            else stage["result"]
            for stage in self.verdict()["stages"]
        }

    def save(self, name: str, text: str) -> None:
        """Save a file as editors do: another one is written, and renamed."""
        path = self.project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        beside.write_text(f"{text}\n")
        beside.replace(path)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, and return the exit code."""
        self.child.send_signal(number)
        return self.child.wait(20)


@contextmanager
def watching(project: Project, *argv: str, **env: str) -> Iterator[Watched]:
    child = project.start("--watch", *argv, **phases.marked(project.folder), **env)
    watched = Watched(project, child)
    reader = threading.Thread(target=watched.read, daemon=True)
    reader.start()
    try:
        yield watched
    finally:
        child.kill()
        child.wait()
        reader.join(5)
        if child.stdout:
            child.stdout.close()


def save(project: Project, **files: str) -> None:
    for name, text in files.items():
        path = project.folder / {"app": "app/a.txt", "docs": "docs/d.txt"}[name]
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def two(project: Project) -> Project:
    """A pipeline of two stages that read one folder each."""
    project.write(TWO.replace("{pages_s}", "0"))
    save(project, app="one", docs="page")
    return project


def test_change_gives_a_new_verdict_in_the_same_session(two: Project) -> None:
    """Only what is made from the file runs again; the other one comes from the cache."""
    with watching(two, "--json") as watched:
        assert watched.results() == {"test": "executed", "pages": "executed"}
        watched.save("app/a.txt", "bad")
        assert watched.results() == {"test": "failure", "pages": "cached"}
        watched.save("app/a.txt", "good")
        assert watched.results() == {"test": "executed", "pages": "cached"}
        watched.save("app/a.txt", "one")  # as it was: the engine knows it
        assert watched.results() == {"test": "cached", "pages": "cached"}
        assert watched.end() == 0
    kinds = [event["event"] for event in watched.events]
    assert kinds.count("engine_connected") == 1
    assert kinds.count("run_started") == kinds.count("run_finished") == 4
    assert len({e["run_id"] for e in watched.events if e["event"] == "run_started"}) == 4


def test_words_between_rounds(two: Project) -> None:
    """What it waits for, how it ends, and what it was that changed."""
    with watching(two) as watched:
        line = watched.until(WAITING)
        assert line == "waiting for a change of app, docs; Ctrl-C ends it (exit code 0)\n"
        watched.save("app/a.txt", "bad")
        assert watched.until("changed") == "app/a.txt changed\n"
        assert "(exit code 1)" in watched.until(WAITING)
        assert watched.end() == 1


def test_what_nobody_reads_begins_nothing(two: Project) -> None:
    with watching(two) as watched:
        first = watched.verdict()["run_id"]
        for name in ("README.md", "reports/x.html", ".penstock/x", "app/__pycache__/a.pyc"):
            watched.save(name, "x")
        (two.folder / "app/.a.txt.swp").touch()
        time.sleep(1)
        assert phases.record(two.folder)["run_id"] == first


def test_burst_of_changes_is_one_round(two: Project) -> None:
    """As a checkout makes it."""
    with watching(two, "--json") as watched:
        watched.verdict()
        for number in range(200):
            (two.folder / f"app/{number}.txt").write_text("x")
        (two.folder / "docs/d.txt").write_text("other")
        assert watched.results() == {"test": "executed", "pages": "executed"}
        time.sleep(1)
        watched.end()
    assert [event["event"] for event in watched.events].count("run_started") == 2


def test_change_in_the_middle_cancels_what_is_outdated_and_nothing_else(project: Project) -> None:
    """The verdict is of the newest files; a stage that reads others goes on, and is executed once."""
    body = TWO.replace("{pages_s}", "6").replace(
        "! grep", "grep -q wait app/a.txt && sleep 9944; ! grep"
    )
    project.write(body)
    save(project, app="wait", docs="page")
    with watching(project, "--json") as watched:
        watched.until('"stage": "pages"')
        watched.until('"text": "wait')
        began = time.monotonic()
        watched.save("app/a.txt", "newest")
        watched.until('"event": "run_finished"')
        assert time.monotonic() - began < 2
        assert settled("sleep 9944")
        assert watched.results() == {"test": "executed", "pages": "executed"}
        watched.end()
    outputs = [e["text"] for e in watched.events if e["event"] == "output_written"]
    assert outputs.count("page\n") == 1
    first, last = (e for e in watched.events if e["event"] == "run_finished")
    assert (first["result"], first["reason"]) == ("cancellation", "app/a.txt changed")
    assert last["result"] == "success"


async def test_command_that_is_being_killed_is_asked_for_once_more() -> None:
    """After a run was cut off for another one: else it is told to be cancelled, nearly each time."""
    async with open_session(
        emit=lambda _event: None,
        on_lost=lambda _why: None,
        connecting=anyio.CancelScope(),
        advice="",
        above=None,
    ) as session:
        import dagger  # noqa: PLC0415 - costs a second

        base = dagger.dag.container().from_("python:3.11-slim")
        await base.sync()
        for _ in range(4):
            command = base.with_env_variable("SALT", str(time.time_ns())).with_exec(["sleep", "1"])
            with anyio.move_on_after(0.6):
                await command.sync()
            session.cut_at = time.monotonic()
            await command.sync()


def test_same_command_may_be_asked_for_while_it_is_being_cancelled(project: Project) -> None:
    """A file that is saved again as it was: to the engine that is the command that is just killed."""
    project.write(TWO.replace("{pages_s}", "3"))
    save(project, app="one", docs="page")
    with watching(project) as watched:
        for _ in range(4):
            watched.until("pages: started")
            time.sleep(1.2)
            watched.save("docs/d.txt", "page")
        assert watched.results() == {"test": "cached", "pages": "executed"}


SERVED = """
from penstock import Source
app = Source(include=["app"])

@pipeline.service
def db(python):
    return postgres_service("15-alpine", database="d")

@pipeline.stage
def test(python, db):
    files = db.container.with_directory("/w/app", app.directory())
    wait = "psql -h db -U postgres -d d -c 'create table own ()' || test ! -e /no-psql; sleep $(cat /w/app/app/a.txt)"
    return Command(files, wait, env={"PGPASSWORD": "postgres", "SALT": "{salt}"}, shell=True, services=[db])
"""


def test_service_is_fresh_in_each_round(project: Project) -> None:
    """Also where a round was cut off while it was used; nothing of it is left in the end."""
    project.write(SERVED.replace("{salt}", project.salt))
    save(project, app="0.1")
    before = Leftovers.now(project.folder)
    with watching(project, "--json") as watched:
        assert watched.results() == {"test": "executed"}
        watched.save("app/a.txt", "9945")
        watched.until('"event": "service_started"')
        time.sleep(1)
        watched.save("app/a.txt", "0.2")
        assert watched.results() == {"test": "executed"}
        kinds = [event["event"] for event in watched.events]
        assert kinds.count("service_started") == kinds.count("service_stopped") == 3
        assert watched.end() == 0
    assert left_on_host(before, project.folder) == []
    assert settled("sleep 9945")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_in_the_middle_of_a_round_is_that_of_any_run(
    project: Project, number: signal.Signals
) -> None:
    project.write(TWO.replace("{pages_s}", "9946"))
    save(project, app="one", docs="page")
    before = Leftovers.now(project.folder)
    with watching(project) as watched:
        watched.until("test ....")
        began = time.monotonic()
        assert watched.end(number) == 128 + number
        assert time.monotonic() - began < 7.5
        watched.until(f"PIPELINE STOPPED ✗ (interrupted by {number.name})")
    assert left_on_host(before, project.folder) == []
    assert settled("sleep 9946")


def test_broken_pipeline_is_shown_and_waited_for(two: Project) -> None:
    """Whether Python or we do not understand it; once mended it is loaded anew."""
    file = two.folder / "pipeline.py"
    whole = file.read_text()
    with watching(two) as watched:
        watched.until(WAITING)
        watched.save("pipeline.py", whole + "\n)")
        watched.until("SyntaxError")
        watched.until("error: the pipeline cannot be loaded: waiting until it is mended")
        watched.save("pipeline.py", whole.replace("def test(python)", "def test(pyton)"))
        watched.until("stage 'test' takes 'pyton', which nothing provides; did you mean 'python'?")
        watched.until("waiting until it is mended")
        watched.save("pipeline.py", whole.replace("def test(", "def checks("))
        watched.until("the pipeline itself changed: it is loaded anew, and connects again")
        assert watched.results() == {"checks": "executed", "pages": "cached"}
        assert watched.end() == 0


def test_lost_engine_is_told_while_it_waits(two: Project, hurt: OwnEngine) -> None:
    with watching(two, "--engine", hurt.url) as watched:
        watched.until(WAITING)
        hurt.kill()
        watched.until("error: the engine stopped answering: ")
        assert watched.child.wait(20) == 4


def test_other_run_goes_between_two_rounds(two: Project) -> None:
    """Who waits holds nobody up."""
    with watching(two) as watched:
        watched.until(WAITING)
        assert two.run("--only", "test").code == 0
        watched.save("app/a.txt", "two")
        assert watched.results() == {"test": "executed", "pages": "cached"}


PATTERNS = """
from penstock import Source
from penstock.affected import HostFolder
from pathlib import Path

@pipeline.stage
async def compare():
    root = Path(__file__).parent / "tree"
    files = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    for include, exclude in PATTERNS:
        folder = dag.host().directory(str(root), include=include, exclude=exclude)
        taken = {name for name in await folder.glob("**/*") if not name.endswith("/")}
        held = {f for f in files if HostFolder(root, tuple(include), tuple(exclude)).holds(root / f)}
        assert taken == held, (include, exclude, taken ^ held)
"""


def test_patterns_mean_what_the_engine_takes_them_to_mean(project: Project) -> None:
    patterns = [
        (["app"], []),
        (["*.py"], []),
        (["**/*.py"], []),
        (["app/**"], ["**/data"]),
        (["**"], ["**/*.pyc", "app/api"]),
        (["."], ["*"]),
        ([], ["**/[ab].py"]),
        (["app/?.py", "!app/a.py"], []),
        (["app"], ["app/data", "!app/data/keep.txt"]),
        (["app/data/", "./main.py"], []),
    ]
    project.write(f"PATTERNS = {patterns!r}\n{PATTERNS}")
    for name in (
        "main.py",
        "app/a.py",
        "app/b.py",
        "app/c.pyc",
        "app/api/a.py",
        "app/data/keep.txt",
    ):
        path = project.folder / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    run = project.run()
    assert run.code == 0, run.out
