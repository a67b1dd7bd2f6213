"""`--speculate`: what only makes a container is begun beside its gates, on the real engine."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine import phases
from tests.engine.conftest import engine_processes, settled

if TYPE_CHECKING:
    from tests.engine.conftest import Project, Run
    from tests.engine.own import OwnEngine

pytestmark = pytest.mark.engine

# Both take about as long, so that one behind the other is told from one beside the other.
PIPELINE = """
@pipeline.stage
def test(python):
    return Command(python, "GATE; date +%s.%N", shell=True)

@pipeline.stage(needs=[test])
def build(python) -> Container:
    print("build was called")
    return python.with_exec(["sh", "-c", "date +%s.%N > /began; BUILD; : {salt}"])

@pipeline.stage(needs=[build])
async def push(build, registry):
    print("began", await build.file("/began").contents())
    return await registry.push(build, tags=["latest"])
"""


def write(project: Project, *, gate: str = "sleep 6", build: str = "sleep 7") -> None:
    body = PIPELINE.replace("GATE", gate).replace("BUILD", build)
    project.write(body.replace("{salt}", project.salt))


def early(project: Project, stage: str = "build") -> list[str]:
    """Return what happened early of a stage."""
    return [name for name, of in told(project) if name.startswith("early") and of == stage]


def told(project: Project) -> dict[tuple[str, str], float]:
    """Return when each thing happened to a stage, in order."""
    lines = (project.folder / "reports/events.jsonl").read_text().splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return {(e["event"], e["stage"]): e["at_s"] for e in events if "stage" in e}


def began_before_the_gate_ended(run: Run, project: Project) -> bool:
    (began,) = re.findall(r"began (\S+)", run.out)
    ended = (project.folder / "reports/logs/test.txt").read_text()
    return float(began) < float(ended)


def test_build_runs_beside_its_gate(project: Project) -> None:
    """The wall time is that of the longer one; the function is called once; push waits as ever."""
    write(project)
    run = project.run("--speculate")
    assert run.code == 0, run.out
    assert began_before_the_gate_ended(run, project)
    assert run.out.count("build was called") == 1
    assert run.out.count("build: begun early (--speculate)") == 1
    assert "Pushed (rehearsal)" in run.out
    started = {stage["name"]: stage["started_s"] for stage in run.record["stages"]}
    ended_s = {n: started[n] + run.stage(n)["duration_s"] for n in ("test", "build")}
    assert started["build"] >= ended_s["test"] - 0.1
    assert ended_s["build"] - started["test"] < 6 + 7 - 3
    assert started["push"] >= ended_s["build"] - 0.1
    assert re.search(r"begun \d\.\d s early", "\n".join(run.stage("build")["why"]))
    assert "s early (--speculate)" in project.run("--explain", "build").out


@pytest.mark.parametrize("words", [(), ("--speculate", "--jobs", "1")], ids=["unasked", "no-place"])
def test_nothing_starts_before_its_gate(project: Project, words: tuple[str, ...]) -> None:
    """Without the flag, and where the gate has the only place there is."""
    write(project, gate="sleep 2", build="true")
    run = project.run(*words)
    assert run.code == 0, run.out
    assert not began_before_the_gate_ended(run, project)
    assert early(project) == []


@pytest.mark.parametrize("gate", ["sleep 3; exit 1", "exit 1"], ids=["late", "at-once"])
def test_red_gate_throws_it_away(project: Project, gate: str) -> None:
    """Skipped as ever, its container ended although it was only just begun, and nothing pushed."""
    write(project, gate=gate, build="sleep 66")
    run = project.run("--speculate")
    assert run.code == 1
    assert run.took_s < 15
    assert run.stage("build")["result"] == "skip"
    assert run.stage("build")["why"] == ["begun early (--speculate), thrown away: test failed"]
    assert "build: begun early, thrown away: test failed" in run.out
    assert "Pushed" not in run.out
    assert run.record["services"] == []
    assert settled(project.salt)


@pytest.mark.parametrize("gate", ["sleep 4; exit 1", "exit 1"], ids=["late", "at-once"])
def test_container_ends_when_its_gate_fails_and_the_run_goes_on(
    project: Project, gate: str
) -> None:
    """Not only with the session: it takes nothing more from the stages beside it."""
    write(project, gate=gate, build="sleep 67")
    file = project.folder / "pipeline.py"
    longer = '@pipeline.stage\ndef other(python):\n    return Command(python, "sleep 64")\n\n'
    file.write_text(file.read_text().replace("if __name__", f"{longer}if __name__"))
    child = project.start("--speculate", "--keep-going")
    log = project.folder / "reports/events.jsonl"
    is_seen = False
    while not (log.exists() and "early_dropped" in log.read_text()):
        assert child.poll() is None
        is_seen = is_seen or project.salt in engine_processes()
        time.sleep(0.2)
    assert is_seen or gate == "exit 1"
    time.sleep(1)  # what is cancelled while it is set up, the engine might begin nevertheless
    assert settled(project.salt)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert early(project) == ["early_begun", "early_dropped"]


def test_what_a_stage_beside_it_needs_too_is_not_thrown_away(project: Project) -> None:
    """The engine does equal work once: who else waits for it still gets it."""
    project.write(
        """
@pipeline.container
def slow(python):
    return python.with_exec(["sh", "-c", "date +%s.%N; sleep 8; : {salt}"])

@pipeline.stage
def test(python):
    return Command(python, "sleep 3; exit 1", shell=True)

@pipeline.stage(needs=[test])
def build(slow) -> Container:
    return slow

@pipeline.stage
def other(python, slow):
    return Command(slow, "true")
""".replace("{salt}", project.salt)
    )
    run = project.run("--speculate", "--keep-going")
    assert run.code == 1
    assert early(project) == ["early_begun", "early_dropped"]
    assert run.stage("other")["result"] == "success"
    assert run.stage("other")["duration_s"] < 13  # it was not begun again


def test_early_failure_is_no_verdict(project: Project) -> None:
    """The stage fails when it runs, by itself, with what it printed; its function is called once."""
    write(project, gate="sleep 4", build="echo broken here; exit 9")
    run = project.run("--speculate")
    assert run.code == 1
    assert run.stage("test")["result"] == "success"
    assert run.stage("build")["result"] == "failure"
    assert run.stage("build")["reason"] == "exit code 9"
    assert "broken here" in run.stage("build")["output"]
    assert run.stage("build")["started_s"] >= 4
    assert run.out.count("build was called") == 1
    assert early(project) == ["early_begun", "early_dropped"]


def test_what_raises_early_raises_when_the_stage_runs(project: Project) -> None:
    """With the author's own line, and not before its gate has passed."""
    project.write("""
@pipeline.stage
def test(python):
    return Command(python, "sleep 2")

@pipeline.stage(needs=[test])
def build(python) -> Container:
    return {}["nothing"]
""")
    run = project.run("--speculate")
    assert run.code == 1
    assert run.stage("test")["result"] == "success"
    assert re.search(r"pipeline\.py:\d+: stage 'build' raised KeyError", run.out)


def test_secret_service_and_registry_never_come_early(project: Project) -> None:
    """Nor does what binds one itself; of all the others not even the function is called."""
    project.write("""
from pathlib import Path

@pipeline.service
def redis():
    return Service(container=dag.container().from_("redis:7-alpine"), port=6379)

@pipeline.container
def seeded(python, registry):
    return python

@pipeline.stage
def test(python):
    return Command(python, "sleep 3; exit 1", shell=True)

def noted(container, name):
    Path(f"called-{name}").touch()
    return container.with_exec(["true"])

@pipeline.stage(needs=[test])
def pure(python) -> Container:
    return noted(python, "pure")

@pipeline.stage(needs=[test], secrets={"token": Secret.env("DEMO_TOKEN")})
def secret(python, token) -> Container:
    return noted(python, "secret")

@pipeline.stage(needs=[test])
def service(python, redis) -> Container:
    return noted(python, "service")

@pipeline.stage(needs=[test])
def registry_inside(seeded) -> Container:
    return noted(seeded, "registry")

@pipeline.stage(needs=[test])
async def asynchronous(python) -> Container:
    return noted(python, "async")

@pipeline.stage(needs=[test])
def unsaid(python):
    return noted(python, "unsaid")

@pipeline.stage(needs=[test], uses=["disk"])
def locked(python) -> Container:
    return noted(python, "locked")

@pipeline.stage(needs=[test])
def own_secret(python) -> Container:
    return python.with_secret_variable("S", dag.set_secret("own", "a-secret-of-its-own")).with_exec(["true"])

@pipeline.stage(needs=[test])
def own_service(python) -> Container:
    server = dag.container().from_("redis:7-alpine").with_exposed_port(6379).as_service()
    return dag.container().from_("redis:7-alpine").with_directory(
        "/x", python.with_service_binding("r", server).with_exec(["true"]).directory("/w"))
""")
    run = project.run("--speculate", DEMO_TOKEN="correct-horse-battery")
    assert run.code == 1
    assert [path.name for path in project.folder.glob("called-*")] == ["called-pure"]
    assert early(project, "pure") == ["early_begun", "early_dropped"]
    assert early(project, "own_secret") == early(project, "own_service") == []
    assert run.record["services"] == []


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "deadline"])
def test_early_work_ends_with_the_run(project: Project, ending: str) -> None:
    """Nothing of it is left, in the engine or as a task that would have to be waited for."""
    write(project, gate="sleep 68", build="sleep 69")
    if ending == "deadline":
        file = project.folder / "pipeline.py"
        file.write_text(file.read_text().replace('"demo"', '"demo", deadline_s=4, teardown_s=1'))
        run = project.run("--speculate")
        assert run.code == 124
    else:
        child = project.start("--speculate")
        log = project.folder / "reports/events.jsonl"
        while not (log.exists() and "early_begun" in log.read_text()):
            assert child.poll() is None
            time.sleep(0.05)
        began = time.monotonic()
        child.send_signal(signal.Signals[ending])
        out, _ = child.communicate(timeout=60)
        assert time.monotonic() - began < 7.5
        assert child.returncode == 128 + signal.Signals[ending], out
        assert "would not end" not in out
    assert settled(project.salt)


def test_early_work_ends_with_its_engine(project: Project, hurt: OwnEngine) -> None:
    """The run is told to be lost, and is over as soon as ever."""
    write(project, gate="sleep 70", build="sleep 71")
    child = project.start("--speculate", "--engine", hurt.url)
    log = project.folder / "reports/events.jsonl"
    while not (log.exists() and "early_begun" in log.read_text()):
        assert child.poll() is None
        time.sleep(0.1)
    time.sleep(2)
    began = time.monotonic()
    hurt.kill()
    out, _ = child.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert child.returncode == 4, out
    assert phases.record(project.folder)["result"] == "error"


def test_changed_file_is_why_a_container_was_made_again(project: Project) -> None:
    """What the engine was asked for early is known by its files nevertheless."""
    (project.folder / "app").mkdir()
    project.write("""
from penstock import Source

app = Source(include=["app"])

@pipeline.stage
def test(python):
    return Command(python, "sleep 1")

@pipeline.stage(needs=[test])
def build(python) -> Container:
    return python.with_directory("/app", app.directory())
""")
    for words in ((), ("--speculate",)):
        (project.folder / "app/main.py").write_text("one")
        assert project.run(*words).code == 0
        (project.folder / "app/main.py").write_text("two")
        assert project.run(*words).stage("build")["why"][0] == "file app/main.py changed"


def test_it_waits_for_the_results_that_it_takes(project: Project) -> None:
    """Of two in a chain the first begins beside the gate, the second when that one is done."""
    project.write(
        """
@pipeline.stage
def lint(python):
    return Command(python, "sleep 2")

@pipeline.stage
def test(python):
    return Command(python, "sleep 9")

@pipeline.stage(needs=[lint])
def base(python) -> Container:
    return python.with_exec(["sh", "-c", "sleep 4; : {salt}"])

@pipeline.stage(needs=[base, test])
def build(base) -> Container:
    return base.with_exec(["sh", "-c", "sleep 4; : {salt}"])
""".replace("{salt}", project.salt)
    )
    run = project.run("--speculate")
    assert run.code == 0, run.out
    at = told(project)
    assert at["early_begun", "base"] < at["stage_finished", "lint"]
    assert at["stage_finished", "base"] < at["early_begun", "build"] < at["stage_finished", "test"]
    assert run.stage("build")["duration_s"] < 2
