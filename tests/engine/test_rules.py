"""The rules of the language, on the real engine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine.conftest import laptop, settled

if TYPE_CHECKING:
    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine

SLOW_SERVICE = """
@pipeline.service
def postgres():
    import dataclasses
    made = postgres_service("15-alpine", database="rules")
    return dataclasses.replace(made, args=[*made.args, "-c", "cluster_name={salt}"])
"""


def test_green_command_is_cached_and_red_one_executed_again(project: Project) -> None:
    """A passed result may come from the cache, a failed one never does: its clock moves on."""
    project.write("""
@pipeline.stage
def green(python):
    return Command(python, "date +%s%N")

@pipeline.stage(needs=[green])
def red(python):
    return Command(python, "date +%s%N; exit 7", shell=True)
""")
    first, second = project.run(), project.run()
    assert (first.code, second.code) == (1, 1)
    assert first.stage("green")["cached"] is False
    assert second.stage("green")["cached"] is True
    assert second.stage("red")["cached"] is False
    assert second.stage("red")["exit_code"] == 7
    clocks = [re.findall(r"\| (\d{19})", run.out) for run in (first, second)]
    assert clocks[0] != clocks[1]
    assert "PASSED (cached)" in second.out


def test_red_then_green_by_itself_is_cached_afterwards(project: Project) -> None:
    """A command that failed once and passed when executed again is taken from the cache then."""
    project.write(
        """
@pipeline.stage
def flaky(python):
    cache = dag.cache_volume("flaky-{salt}")
    return Command(python.with_mounted_cache("/c", cache), "test -e /c/x || (touch /c/x; exit 1)", shell=True)
""".replace("{salt}", project.salt)
    )
    runs = [project.run() for _ in range(3)]
    assert [run.code for run in runs] == [1, 0, 0]
    assert [run.stage("flaky")["cached"] for run in runs] == [False, False, True]


@pytest.mark.fault(20)
def test_red_gate_keeps_its_reports_and_stops_what_follows(project: Project) -> None:
    """Reports come out of a failed command; what is behind it names it."""
    project.write("""
COVERAGE = '<coverage lines-valid="100" lines-covered="79"/>'

@pipeline.stage
def test(python):
    made = python.with_new_file("/w/html/index.html", "hi").with_new_file("/w/c.xml", COVERAGE)
    line = "mkfifo html/pipe; ln -s /etc/passwd html/link"
    return Command(made, line, shell=True, reports=[Coverage("c.xml", html="html", at_least=80), Report("absent.txt")])

@pipeline.stage(needs=[test])
def build(python):
    return python
""")
    run = project.run()
    assert run.code == 1
    assert "FAILED ✗ (79% < 80% threshold)" in run.out
    assert "build: SKIPPED (because test failed)" in run.out
    assert "reproduce: python pipeline.py --only test" in run.out
    assert "absent.txt is missing" in run.out
    assert "left out html/pipe" in run.out
    kept = {entry["path"] for entry in run.stage("test")["artifacts"]}
    assert kept == {"c.xml", "html/index.html", "logs/test.txt"}
    assert not any(path.name.startswith(".") for path in (project.folder / "reports").iterdir())


def test_failure_beside_a_starting_service_leaves_nothing(project: Project) -> None:
    """Bare Dagger leaks the service here; we cancel at once and stop it."""
    project.write(
        SLOW_SERVICE.replace("{salt}", project.salt)
        + """
@pipeline.stage
def types(python, postgres):
    return Command(python, "exit 1", shell=True)

@pipeline.stage
def test(python, postgres):
    return Command(python, "sleep 60", services=[postgres])
"""
    )
    run = project.run()
    assert run.code == 1
    assert "test: CANCELLED (because types failed)" in run.out
    assert run.took_s < 30
    assert settled(project.salt)
    assert settled("sleep 60")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_cleans_up_and_tells_by_its_exit_code(
    project: Project, number: signal.Signals, code: int
) -> None:
    """Cancelled, summarised and swept within 7.5 s of the signal."""
    project.write(
        SLOW_SERVICE.replace("{salt}", project.salt)
        + """
@pipeline.stage
def test(python, postgres):
    return Command(python, "sleep 61", services=[postgres])
"""
    )
    run = project.interrupt(number, lambda events: "service_started" in events)
    assert run.code == code
    assert run.took_s < 7.5
    assert run.record["result"] == "cancellation"
    assert settled(project.salt)
    assert settled("sleep 61")


def test_service_that_never_becomes_healthy_is_an_error_of_its_own(project: Project) -> None:
    """By our own clock, named, and no failure of the author's tests."""
    project.write("""
@pipeline.service
def sleeper(python):
    return Service(container=python, port=1, args=["sleep", "62"], health=Health(command=["false"], interval_s=0.5, retries=4))

@pipeline.stage
def test(python, sleeper):
    return Command(python, "true", services=[sleeper])
""")
    run = project.run()
    assert run.code == 4
    assert run.stage("test")["result"] == "error"
    assert "service 'sleeper' never became healthy within 2 s" in run.stage("test")["reason"]
    assert settled("sleep 62")


def test_service_that_exits_names_its_code_and_words(project: Project) -> None:
    """What it printed before it died is shown."""
    project.write("""
@pipeline.service
def broken(python):
    return Service(container=python, port=1, args=["sh", "-c", "echo last words; exit 9"], health=Health(command=["false"]))

@pipeline.stage
def test(python, broken):
    return Command(python, "true", services=[broken])
""")
    run = project.run()
    assert run.code == 4
    assert "exited with exit code 9" in run.stage("test")["reason"]
    assert "last words" in run.out


def test_service_that_dies_in_use_is_named_and_is_not_shown_as_healthy(project: Project) -> None:
    """By its own name, and not by the engine's."""
    project.write("""
@pipeline.service
def mortal(python):
    return Service(container=python, port=1, args=["sh", "-c", "sleep 2; exit 9"], health=Health(command=["true"]))

@pipeline.stage
def test(python, mortal):
    return Command(python, "sleep 60", services=[mortal])
""")
    run = project.run()
    words = "exited with exit code 9 while it was in use"
    assert run.code == 4
    assert run.stage("test")["reason"] == f"service 'mortal' {words}"
    assert run.stage("test")["fault"] == "service"
    assert [(s["result"], s["reason"]) for s in run.record["services"]] == [
        ("error", f"service: {words}")
    ]


def test_command_may_take_longer_than_half_a_minute(project: Project) -> None:
    """A Go whose HTTP server forgets to lift its read deadline ends every request after 30 s."""
    project.write("""
@pipeline.stage
def slow(python):
    return Command(python, "sleep 32")
""")
    assert project.run().code == 0


@pytest.mark.fault(15)
def test_deadline_ends_the_command_and_keeps_its_reports(project: Project) -> None:
    """Past its deadline the result is `timeout`, and what was written is there."""
    project.write("""
@pipeline.stage(deadline_s=1)
def slow(python):
    return Command(python, "echo half > half.txt; exec sleep 63", shell=True, reports=[Report("half.txt")])

@pipeline.stage(needs=[slow])
def after(python):
    return Command(python, "true")
""")
    run = project.run()
    assert run.code == 1
    assert run.stage("slow")["result"] == "timeout"
    assert run.stage("after")["reason"] == "because slow failed"
    assert (project.folder / "reports/half.txt").read_text() == "half\n"


def test_secret_reaches_the_stage_and_nothing_else(project: Project) -> None:
    """Printed plain, in base64 and reversed, it stands in no output and no file of ours."""
    project.write("""
@pipeline.stage(secrets={"token": Secret.env("DEMO_TOKEN")})
def leak(python, token):
    line = 'echo $T; echo $T | base64; echo $T | rev; test "$T" = correct-horse-battery && exit 1'
    return Command(python.with_secret_variable("T", token), line, shell=True)
""")
    run = project.run(DEMO_TOKEN="correct-horse-battery")
    files = [p for p in project.folder.rglob("*") if p.is_file() and p.name != "pipeline.py"]
    texts = [run.out, *(path.read_text(errors="replace") for path in files)]
    for form in ("correct-horse", "Y29ycmVjdC1ob3JzZ", "yrettab-esroh"):
        assert not any(form in text for text in texts)
    assert "exit code 1" in run.stage("leak")["reason"]
    missing = project.run()
    assert missing.code == 2
    assert "'token', which has no value: set the environment variable DEMO_TOKEN" in missing.out


def test_push_is_rehearsed_once_per_image(project: Project) -> None:
    """Both tags lead to one digest in a throw-away registry, which is gone afterwards."""
    project.write(
        """
@pipeline.stage
def build(python):
    return python.with_new_file("/x", "{salt}")

@pipeline.stage(needs=[build])
async def push(build, registry, commit):
    return await registry.push(build, tags=[commit, "latest"])
""".replace("{salt}", project.salt)
    )
    first, second = project.run(), project.run()
    assert (first.code, second.code) == (0, 0)
    assert first.out.count("Pushed (rehearsal): localhost:5000/demo:") == 2
    assert first.stage("push")["cached"] is False
    assert second.stage("push")["cached"] is True
    assert settled("/etc/docker/registry/config.yml")


@pytest.mark.fault(37)
def test_exception_of_the_author_names_the_line(project: Project) -> None:
    """A stage that raises fails with the place in the author's file, and not as our bug."""
    project.write("""
@pipeline.stage
def broken(python):
    return {}["nothing"]

@pipeline.stage
def odd(python):
    return 42
""")
    run = project.run("--keep-going")
    assert run.code == 1
    assert re.search(r"pipeline\.py:\d+: stage 'broken' raised KeyError", run.out)
    assert "stage 'odd' returned int; return a Command, a container or a dict of them" in run.out


def test_missing_image_is_an_error_of_the_infrastructure(project: Project) -> None:
    """An image that does not exist is no failed test: exit 4."""
    project.write("""
@pipeline.stage
def pull():
    return dag.container().from_("python:no-such-tag")
""")
    run = project.run()
    assert run.code == 4
    assert "no-such-tag" in run.stage("pull")["reason"]


def test_unreachable_engine_says_what_to_do(project: Project) -> None:
    """No traceback: which engine, and the next step."""
    project.write("""
@pipeline.stage
def lint(python):
    return Command(python, "true")
""")
    run = project.run("--engine", "tcp://127.0.0.1:9")
    assert run.code == 4
    assert "cannot reach the Dagger engine" in run.out
    assert "another engine for `--engine URL`?" in run.out
    assert "Traceback" not in run.out


@pytest.mark.parametrize("words", [["dagger", "run", "python"], ["python"]])
def test_same_outcome_under_dagger_run_and_from_another_folder(
    project: Project, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`dagger run python pipeline.py` and plain `python`, from anywhere, are one thing."""
    project.write("""
@pipeline.stage
def lint(python):
    return Command(python, "true")
""")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    root = Path(__file__).parents[2]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = laptop() | {"PYTHONPATH": str(root / "ci"), "DAGGER_PROGRESS": "plain", "PATH": path}
    program = shutil.which(words[0], path=path)
    assert program is not None
    argv = [program, *words[1:], str(project.folder / "pipeline.py")]
    done = subprocess.run(argv, cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "All stages passed" in done.stdout + done.stderr
    assert (project.folder / "reports/run.json").exists()
