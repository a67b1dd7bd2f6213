"""Signals to a real run, and code of the author's that will not hear of them."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine import phases
from tests.engine.conftest import ROOT, Project, engine_processes, laptop, settled
from tests.engine.phases import Leftovers, left_on_host

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.engine

SERVED = """
@pipeline.service
def keeper(python):
    return Service(container=python, port=1, args=["sleep", "{service}"], health=Health(command=["true"]))

@pipeline.stage
def work(python, keeper):
    return Command(python, "sleep {command}", services=[keeper])

@pipeline.stage(needs=[work], always=True)
def clean_up(python):
    return Command(python, "echo cleaned", shell=True)
"""
HANGUP = 129


def wait_for(project: Project, *needles: str) -> None:
    """Wait for an event that holds these."""
    events = project.folder / "reports/events.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end:
        lines = events.read_text().splitlines() if events.exists() else []
        if any(all(needle in line for needle in needles) for line in lines):
            return
        time.sleep(0.02)
    raise AssertionError(needles)


def begin(project: Project, *above: str) -> subprocess.Popen[bytes]:
    """Start a run that nobody watches, below other words where they are given."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PYTHONPATH": str(ROOT / "ci"), "PATH": path} | phases.marked(project.folder)
    return subprocess.Popen(
        [*above, sys.executable, "pipeline.py"],
        cwd=project.folder,
        env=laptop() | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.fault(1, 3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_cancels_cleans_up_and_tells(
    project: Project, number: signal.Signals, measured: Callable[[str], None]
) -> None:
    """Teardown stages run, services are gone, and nothing is left on this machine."""
    project.write(SERVED.format(service=f"98{number:02}", command=f"97{number:02}"))
    before = Leftovers.now(project.folder)
    child = project.start(**phases.marked(project.folder))
    wait_for(project, "stage_started", "work")
    wait_for(project, "service_started")
    began = time.monotonic()
    child.send_signal(number)
    out, _ = child.communicate(timeout=60)
    took_s = time.monotonic() - began
    assert child.returncode == 128 + number
    assert took_s < 7.5
    record = phases.record(project.folder)
    results = {stage["name"]: stage["result"] for stage in record["stages"]}
    assert results == {"work": "cancellation", "clean_up": "success"}
    assert f"PIPELINE STOPPED ✗ (interrupted by {number.name})" in out
    assert settled(f"sleep 98{number:02}")
    assert settled(f"sleep 97{number:02}")
    assert left_on_host(before, project.folder) == []
    measured(f"{number.name}: exit {128 + number}, teardown ran, nothing left, within 7.5 s")


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_signal_to_dagger_run_keeps_the_record(
    project: Project, number: signal.Signals, *, group: bool
) -> None:
    """It leaves us without an engine at once, and still all is written and all of us ends."""
    project.write(SERVED.format(service=f"96{number:02}", command=f"95{number:02}"))
    before = Leftovers.now(project.folder)
    child = begin(project, "dagger", "run")
    wait_for(project, "service_started")
    began = time.monotonic()
    if group:  # as a terminal does
        os.killpg(child.pid, number)
    else:
        child.send_signal(number)
    assert child.wait(30) != 0
    assert left_on_host(before, project.folder) == []
    assert time.monotonic() - began < 10
    record = phases.record(project.folder)
    assert record["exit_code"] in {130, 143, 4}
    assert {stage["result"] for stage in record["stages"]} <= {"cancellation", "error", "skip"}
    assert settled(f"sleep 96{number:02}")


@pytest.mark.fault(3)
def test_terminal_that_is_closed_hangs_up(
    project: Project, measured: Callable[[str], None]
) -> None:
    """The run hears of it, cleans up, and writes its record for nobody to see on screen."""
    project.write(SERVED.format(service=9851, command=9751))
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "pipeline.py"],
        cwd=project.folder,
        # Buffered, as it is by default: what is left in there must not change the exit code.
        env=laptop() | {"PYTHONPATH": str(ROOT / "ci"), "TERM": "xterm", "PYTHONUNBUFFERED": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - no thread runs here
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    wait_for(project, "service_started")
    began = time.monotonic()
    os.close(ours)
    assert child.wait(30) == HANGUP
    assert time.monotonic() - began < 7.5
    record = phases.record(project.folder)
    assert record["reason"] == "interrupted by SIGHUP"
    assert record["exit_code"] == HANGUP
    assert settled("sleep 9851")
    measured(f"closed terminal: exit {HANGUP}, a record, within 7.5 s")


def _take_terminal() -> None:
    import fcntl  # noqa: PLC0415 - in the child only
    import termios  # noqa: PLC0415 - in the child only

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_run_under_nohup_goes_on(project: Project) -> None:
    """Who asked for hang-ups to be ignored gets that."""
    project.write("""
@pipeline.stage
def work(python):
    return Command(python, "sleep 3")
""")
    child = begin(project, "nohup")
    wait_for(project, "stage_started")
    child.send_signal(signal.SIGHUP)
    assert child.wait(60) == 0


@pytest.mark.parametrize(
    ("above", "stopped_s"), [((), 1.0), ((), 6.0), (("dagger", "run"), 6.0)], ids=str
)
def test_run_goes_on_after_ctrl_z(
    project: Project, above: tuple[str, ...], stopped_s: float
) -> None:
    """An answer of the engine that waited for us, or for `dagger run`, is an answer."""
    project.write("""
@pipeline.stage
def work(python):
    return Command(python, "sleep 8")

@pipeline.stage(needs=[work])
def after(python):
    return Command(python, "true")
""")
    child = begin(project, *above)
    wait_for(project, "stage_started")
    time.sleep(1)
    child.send_signal(signal.SIGSTOP)
    time.sleep(stopped_s)
    child.send_signal(signal.SIGCONT)
    assert child.wait(60) == 0
    assert phases.record(project.folder)["result"] == "success"


@pytest.mark.fault(2)
@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    "swallows", ["pass", "try:\n            time.sleep(60)\n        except Exception: pass"]
)
def test_code_that_blocks_does_not_keep_ctrl_c_waiting(
    project: Project, kind: str, swallows: str, measured: Callable[[str], None]
) -> None:
    """Whether a stage is a coroutine or not, whatever it catches."""
    project.write(f"""
import time

@pipeline.stage
{kind} blocks(python):
    for _ in range(3):
        {swallows}
        time.sleep(60)
    return Command(python, "true")

@pipeline.stage(always=True, needs=[blocks])
def clean_up(python):
    return Command(python, "true")
""")
    child = project.start()
    wait_for(project, "stage_started")
    time.sleep(0.5)
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 130, out
    assert time.monotonic() - began < 7.5
    assert phases.record(project.folder)["result"] == "cancellation"
    assert "Traceback" not in out
    measured("code that blocks the whole run: interrupted all the same, exit 130 within 7.5 s")


def test_code_that_blocks_for_long_is_ended_and_named(project: Project) -> None:
    """Its own line, and what to do instead; what ran beside it goes on."""
    project.write("""
import time
from penstock import stuck
stuck.HOLD_S = 2.0

@pipeline.stage
async def blocks(python):
    time.sleep(60)

@pipeline.stage
def beside(python):
    return Command(python, "sleep 1")
""")
    run = project.run("--keep-going")
    assert run.code == 1
    assert run.took_s < 30
    line = (project.folder / "pipeline.py").read_text().splitlines().index("    time.sleep(60)") + 1
    words = "TimeoutError: held up the whole run for 2 s: await, or give it to a command"
    assert run.stage("blocks")["reason"] == words
    assert f"pipeline.py:{line}: stage 'blocks' raised {words}" in run.out
    assert run.stage("beside")["result"] == "success"


LEFT = """
import asyncio, threading, time

async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@pipeline.stage
async def leaves(python):
    {what}
    return 1
"""


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("leaves.task = asyncio.create_task(stubborn())", "a task"),
        ("threading.Thread(target=time.sleep, args=(60,)).start()", "a thread"),
    ],
    ids=["task", "thread"],
)
def test_what_will_not_end_does_not_keep_the_run(project: Project, what: str, kind: str) -> None:
    """It is left alone, with a word about it, and the exit code is the run's."""
    project.write(LEFT.format(what=what))
    run = project.run()
    assert run.code == 0
    assert f"WARNING: {kind} that a stage left behind would not end" in run.out
    assert run.took_s < 15


@pytest.mark.fault(35)
def test_interrupting_one_run_leaves_another_alone(
    project: Project, tmp_path_factory: pytest.TempPathFactory, measured: Callable[[str], None]
) -> None:
    """Two checkouts, one engine, the very same services and commands at the same time."""
    body = """
@pipeline.service
def db(python):
    return postgres_service("15-alpine", database="d")

@pipeline.stage
def count(python, db):
    wait = "sleep 8; psql -h db -U postgres -d d -tAc 'create table own (); select 1' || test ! -e /no-psql"
    variables = {"PGPASSWORD": "postgres", "SALT": "{salt}"}
    return Command(db.container, wait, env=variables, shell=True, services=[db])
""".replace("{salt}", project.salt)
    other = Project(tmp_path_factory.mktemp("other"), project.salt)
    children = []
    for one in (project, other):
        one.write(body)
        children.append(begin(one))
        wait_for(one, "service_started")
        time.sleep(1)  # its command is asked for: the second one is the first's to the engine
    children[0].send_signal(signal.SIGINT)
    assert children[0].wait(30) == 130
    assert children[1].wait(60) == 0
    assert phases.record(other.folder)["result"] == "success"
    measured("two checkouts: the one interrupted exits 130, the other passes")


UNHEEDING = """
import anyio, asyncio, time

async def swallow():
    end = time.monotonic() + 25
    while time.monotonic() < end:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass

@STAGE
async def stubborn(python):
    {what}
"""


@pytest.mark.parametrize(
    "what", ["await swallow()", "await anyio.to_thread.run_sync(time.sleep, 25)"]
)
def test_stage_that_does_not_heed_its_deadline_is_left_behind(project: Project, what: str) -> None:
    """Its result is what its deadline says, and nothing waits for it."""
    body = UNHEEDING.format(what=what).replace("@STAGE", "@pipeline.stage(deadline_s=1)")
    project.write(body)
    run = project.run()
    assert run.stage("stubborn")["result"] == "timeout"
    assert run.code == 1
    assert run.took_s < 20


def test_teardown_that_blocks_is_bounded_after_a_signal(project: Project) -> None:
    """It has its seconds, and then somebody waits for the end of all."""
    project.write("""
import time

@pipeline.stage
def work(python):
    return Command(python, "sleep 60")

@pipeline.stage(needs=[work], always=True)
def clean_up(python):
    time.sleep(60)
""")
    child = project.start()
    wait_for(project, "stage_started")
    time.sleep(1)
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert time.monotonic() - began < 7.5


@pytest.mark.fault(39)
@pytest.mark.parametrize("above", [(), ("dagger", "run")], ids=["plain", "dagger-run"])
def test_killed_run_leaves_nothing(
    project: Project, above: tuple[str, ...], measured: Callable[[str], None]
) -> None:
    """The engine ends what it did for it, and the next run says what happened."""
    number = 53 + len(above)
    project.write(SERVED.format(service=f"98{number}", command=f"97{number}"))
    (project.folder / "reports/.incoming-half").mkdir(parents=True)
    before = Leftovers.now(project.folder)
    child = begin(project, *above)
    wait_for(project, "service_started")
    # What is being set up at that very moment has its deadline only.
    wait_until(lambda: f"sleep 97{number}" in engine_processes())
    child.kill()
    child.wait()
    assert settled(f"sleep 98{number}")
    assert settled(f"sleep 97{number}")
    pid = (project.folder / ".penstock/lock").read_text()
    assert left_on_host(before, project.folder) == []
    if above:  # the child notices, and ends by itself, with a record
        assert phases.record(project.folder)["exit_code"] == 4
        measured("`dagger run` killed: our program ends by itself, nothing left in the engine")
        return
    project.write("""
@pipeline.stage
def green(python):
    return Command(python, "true")
""")
    run = project.run()
    assert run.code == 0
    assert f"the last run (process {pid}) was ended before its own end" in run.out
    assert "unfinished files removed: 1" in run.out
    assert "before its own end" not in project.run().out
    measured("nothing left in the engine within 10 s, and the next run says what it removed")
