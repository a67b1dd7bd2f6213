"""What goes wrong around stages, each on the real engine; the rows are those of `docs/faults.md`."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine


@pytest.mark.fault(4, 5)
def test_cancel_leaves_what_ended_and_starts_nothing(
    project: Project, measured: Callable[[str], None]
) -> None:
    """What had ended keeps its result and its report, what had not begun never begins."""
    project.write("""
@pipeline.stage
def done(python):
    return Command(python, "touch a.txt", reports=[Report("a.txt")])

@pipeline.stage(needs=[done])
def running(python):
    return Command(python, "sleep 71")

@pipeline.stage(needs=[running])
def waiting(python):
    return Command(python, "true")
""")
    run = project.interrupt(signal.SIGINT, lambda events: _started(events, "running"))
    assert run.code == 130
    assert [stage["result"] for stage in run.record["stages"]] == [
        "success",
        "cancellation",
        "cancellation",
    ]
    assert (project.folder / "reports/a.txt").exists()
    events = (project.folder / "reports/events.jsonl").read_text()
    assert _started(events, "running")
    assert not _started(events, "waiting")
    measured("one stage of each kind: success with its report, cancellation, and never started")


def _started(events: str, stage: str) -> bool:
    """Return whether a stage has started."""
    found = [json.loads(line) for line in events.splitlines() if line.endswith("}")]
    return any(e["event"] == "stage_started" and e["stage"] == stage for e in found)


ENDLESS = 30_000_000  # characters without an end of line
JUNIT = (
    '<testsuite name="s" tests="1" time="0.25" timestamp="1999-03-28T02:30:00+14:00">'
    '<testcase classname="c" name="n" time="0.25"/></testsuite>'
)
OPTIONAL = """
from penstock.when import env

@pipeline.stage(allow_failure=True)
def maybe(python):
    return Command(python, "exit 3", shell=True)

@pipeline.stage
def solid(python):
    return Command(python, "true")

@pipeline.stage(needs=[maybe])
def taker(maybe):
    return Command(maybe, "true")

@pipeline.stage(when=env("NEVER_SET", "yes"))
def off(python):
    return Command(python, "true")
"""


@pytest.mark.fault(17, 19, 43, 44)
def test_optional_failure_is_a_warning_and_nothing_else_is_green(
    project: Project, measured: Callable[[str], None]
) -> None:
    """It passes a run that has something required, and no other."""
    project.write(OPTIONAL)
    run = project.run()
    assert run.code == 0
    assert (run.stage("maybe")["result"], run.stage("maybe")["allowed"]) == ("failure", True)
    assert "WARNING" in run.out
    assert run.record["warnings"] == ["maybe"]
    assert run.stage("taker")["result"] == "skip"
    assert run.stage("taker")["reason"] == "because it takes the result of maybe, which failed"
    only_optional = project.run("--only", "maybe")
    assert (only_optional.code, only_optional.record["result"]) == (5, "skip")
    nothing = project.run("--only", "off")
    assert (nothing.code, nothing.record["result"]) == (5, "skip")
    measured(
        "exit 0, result failure, allowed, with a warning\n"
        "skip, 'because it takes the result of maybe, which failed'\n"
        "exit 5 where only optional stages are left, or none"
    )


@pytest.mark.fault(18, 21)
def test_failing_teardown_fails_the_run_and_is_no_headline(
    project: Project, measured: Callable[[str], None]
) -> None:
    """The gate that failed first stays at fault, and a red test is not tried again."""
    project.write("""
import os

@pipeline.stage(retries=2)
def gate(python):
    return Command(python, "exit " + os.environ["GATE"], shell=True)

@pipeline.stage(needs=[gate], always=True)
def clean(python):
    return Command(python, "exit 4", shell=True)
""")
    both = project.run(GATE="3")
    assert (both.code, both.record["root"]) == (1, "gate")
    assert both.stage("gate")["attempts"] == []
    assert both.stage("clean")["exit_code"] == 4
    alone = project.run(GATE="0")
    assert (alone.code, alone.record["root"]) == (1, "clean")
    measured(
        "exit 1 for the teardown alone; behind a failure that one is named\n"
        "a red command with two retries has one attempt"
    )


@pytest.mark.fault(37)
def test_whatever_a_stage_raises_is_its_own_failure(
    project: Project, measured: Callable[[str], None]
) -> None:
    """What ends programs ends the stage only: with file and line, and a record of the others."""
    project.write("""
import asyncio, sys, anyio

class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no words")

@pipeline.stage
def leaves(python):
    sys.exit("done here")

@pipeline.stage
async def leaves_later(python):
    await anyio.to_thread.run_sync(sys.exit)

@pipeline.stage
def interrupts(python):
    raise KeyboardInterrupt

@pipeline.stage
async def cancels(python):
    raise asyncio.CancelledError

@pipeline.stage
def mute(python):
    raise MuteError

async def fails(what):
    raise ValueError(what)

@pipeline.stage
async def several(python):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fails, "one")
        tasks.start_soon(fails, "two")

@pipeline.stage
def twice(python):
    return {1: Command(python, "true"), "1": Command(python, "true")}

@pipeline.stage
def kind(python):
    return Command

@pipeline.stage
def fine(python):
    return Command(python, "true")
""")
    run = project.run("--keep-going", "-v")
    assert run.code == 1, run.out
    assert run.stage("fine")["result"] == "success"
    source = (project.folder / "pipeline.py").read_text().splitlines()
    for name, words, line in (
        ("leaves", "SystemExit: done here", 'sys.exit("done here")'),
        ("leaves_later", "SystemExit", "run_sync(sys.exit)"),
        ("interrupts", "KeyboardInterrupt", "raise KeyboardInterrupt"),
        ("cancels", "CancelledError", "raise asyncio.CancelledError"),
        ("mute", "MuteError", "raise MuteError"),
        ("several", "ExceptionGroup", "raise ValueError"),
    ):
        stage = run.stage(name)
        assert stage["result"] == "failure", stage
        assert stage["reason"].startswith(words)
        found = stage["findings"]
        assert all(one["file"] == "pipeline.py" for one in found)
        assert all(line in source[one["line"] - 1] for one in found)
        assert len(found) == (2 if name == "several" else 1)
    for name in ("twice", "kind"):
        assert run.stage(name)["result"] == "failure", run.stage(name)
        assert "pipeline.py:" in run.stage(name)["reason"]
    measured(
        "failure with file and line for an exception, several, `sys.exit`, `KeyboardInterrupt`, "
        "`CancelledError`, one without words, and any value that is no work"
    )


@pytest.mark.fault(31)
def test_output_that_is_no_text_is_kept_in_bounded_memory(
    project: Project, measured: Callable[[str], None]
) -> None:
    """Escape codes, broken UTF-8, and 30 MB without an end of line are in the log, in their order."""
    project.write(f"""
import atexit, pathlib, resource

@atexit.register
def note():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pathlib.Path("peak").write_text(str(peak))

@pipeline.stage
def odd(python):
    line = r"printf 'first\\033[31m\\377\\376\\303 red\\n'; head -c {ENDLESS} /dev/zero | tr '\\0' x; printf last"
    return Command(python, line, shell=True)
""")
    run = project.run()
    assert run.code == 0, run.out
    log = (project.folder / "reports/logs/odd.txt").read_bytes()
    assert log.startswith(b"first\x1b[31m")
    assert log.split(b"\n", 1)[0].endswith(b" red")
    assert log.split(b"\n", 1)[1] == b"x" * ENDLESS + b"last"
    assert "\x1b" not in run.out
    assert int((project.folder / "peak").read_text()) * 1024 < 10 * ENDLESS
    events = project.folder / "reports/events.jsonl"
    assert events.stat().st_size < 1_000_000
    measured("the log has all of it in its order; 30 MB without an end take our process < 300 MB")


@pytest.mark.fault(38, 50)
def test_clocks_that_differ_change_neither_order_nor_durations(
    project: Project, measured: Callable[[str], None]
) -> None:
    """The host's clock jumps, summer time begins, and a report is from another year."""
    project.write(f"""
import itertools, time
real, jumps = time.time, itertools.cycle((-3600.0, 86_400.0))
time.time = lambda: real() + next(jumps)

@pipeline.stage
def first(python):
    return Command(python, "sleep 1")

@pipeline.stage(needs=[first])
def test(python):
    text = '''{JUNIT}'''
    made = python.with_new_file("past.xml", text)
    return Command(made, "sleep 1; cp past.xml junit.xml", shell=True, reports=[JUnit("junit.xml")])
""")
    begins = datetime.now(UTC) + timedelta(seconds=4)  # while it runs, by a rule made for that
    run = project.run(TZ=f"XST0XDT,{begins.timetuple().tm_yday - 1}/{begins:%H:%M:%S},0/0")
    assert run.code == 0, run.out
    assert run.record["started_at"].endswith("+00:00")
    stages = run.stage("first"), run.stage("test")
    for stage in stages:
        assert 1 <= stage["duration_s"] < 60
    assert run.record["duration_s"] <= run.took_s
    events = (project.folder / "reports/events.jsonl").read_text().splitlines()
    times_s = [json.loads(line)["at_s"] for line in events]
    assert times_s == sorted(times_s)
    (read,) = [json.loads(line) for line in events if '"tests_read"' in line]
    assert [case["duration_s"] for case in read["cases"]] == [0.25]
    measured("order and durations are ours, a test's duration is its own, dates are in UTC")


def test_log_of_a_command_that_was_cut_off_is_kept(project: Project) -> None:
    """As far as it had come: who stops a test that hangs wants to read where."""
    project.write("""
@pipeline.stage
def slow(python):
    return Command(python, "echo words of slow; exec sleep 60", shell=True)

@pipeline.stage
def bad(python):
    return Command(python, "sleep 3; exit 1", shell=True)
""")
    run = project.run()
    assert run.stage("slow")["result"] == "cancellation"
    kept = (project.folder / "reports/logs/slow.txt").read_text()
    assert kept == "[cut off; up to here it printed]\nwords of slow\n"
