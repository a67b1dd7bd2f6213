"""Engines that begin empty: prepared bases and verdicts come from a registry, or from nowhere."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from junitparser import JUnitXml

from tests.engine.between import Between, Fault, start_registry, stop_registry
from tests.engine.conftest import Project
from tests.engine.own import NAME, OwnEngine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.conftest import Run

pytestmark = pytest.mark.engine

LOCK = """
version = 1
requires-python = ">=3.11"

[[package]]
name = "demo"
version = "{version}"
source = {{ virtual = "." }}
"""
PROJECT = '[project]\nname = "demo"\nversion = "{version}"\nrequires-python = ">=3.11"\n'
LOCKED = """
from penstock import Source
from penstock.recipes import uv_project

source = Source(include=["code.py", "pyproject.toml", "uv.lock"])

@pipeline.container
def locked(python):
    return uv_project("python:3.11-slim", source).with_env_variable("SALT", "{salt}")

@pipeline.stage
def look(locked):
    return Command(locked, "cat code.py")

@pipeline.stage(needs=[look])
def test(locked):
    write = '''
import os, sys
print("in", sys.prefix, os.getcwd(), os.environ["UV_PROJECT_ENVIRONMENT"])
os.mkdir("unit")
open("unit/junit.xml", "w").write('<testsuite><testcase name="test_one" classname="suite"/></testsuite>')
open("coverage.xml", "w").write('<coverage lines-valid="100" lines-covered="90"/>')
'''
    reports = [JUnit("unit/junit.xml"), Coverage("coverage.xml", at_least=80)]
    return Command(locked, ["python", "-c", write], reports=reports)
"""
PREPARED = """
from penstock.recipes import prepared

@pipeline.container
def base(python):
    return prepared(python.with_exec(["sh", "-c", "head -c 200000 /dev/urandom > /made; date +%s%N >> /made"]))

@pipeline.stage
def look(base):
    return Command(base, "tail -c 20 /made")
"""


def locked(project: Project, *, version: str = "1", code: str = "x = 1\n") -> None:
    """Write a project with a lock file; version and code are what may change in it."""
    project.write(LOCKED.replace("{salt}", project.salt))
    (project.folder / "uv.lock").write_text(LOCK.format(version=version))
    (project.folder / "pyproject.toml").write_text(PROJECT.format(version=version))
    (project.folder / "code.py").write_text(code + f"# {project.salt}\n")


def bases(project: Project) -> list[bool]:
    """Return, of each base of the last run, whether it was pulled."""
    lines = (project.folder / "reports/events.jsonl").read_text().splitlines()
    events = map(json.loads, lines)
    return [event["is_pulled"] for event in events if event["event"] == "base_prepared"]


def reused(run: Run) -> list[str]:
    return [stage["name"] for stage in run.record["stages"] if stage.get("origin")]


def elsewhere(project: Project, folder: Path) -> Project:
    """Return a clone in another folder, which knows of no earlier run."""
    left = shutil.ignore_patterns("reports", ".penstock")
    shutil.copytree(project.folder, folder, ignore=left)
    return Project(folder, project.salt)


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    """A registry, at a port of the loopback."""
    yield start_registry()
    stop_registry()


@pytest.fixture(scope="module")
def another(own_engine: OwnEngine) -> Iterator[OwnEngine]:
    """An engine that has seen nothing yet."""
    engine = OwnEngine(f"{NAME}-another", shares=own_engine.registry)
    engine.remove()
    engine.ready()
    yield engine
    engine.remove()


@dataclass
class Team:
    """A registry that may be hurt, and how its cache is used.

    Args:
        between: The way to the registry.
        engine: On which runs are, unless they name another.
        path: Of the cache.
    """

    between: Between
    engine: OwnEngine
    path: str

    @property
    def cache(self) -> str:
        return f"{self.between.address}/{self.path}"

    def run(self, project: Project, *argv: str, on: OwnEngine | None = None, **env: str) -> Run:
        engine = ["--engine", (on or self.engine).url]
        return project.run(*engine, *argv, **{"PENSTOCK_CACHE": self.cache, **env})

    def tags(self) -> list[str]:
        found: list[str] = json.loads(self.between.ask(f"/v2/{self.path}/tags/list")[1])["tags"]
        return sorted(found)

    def kinds(self) -> list[str]:
        return [tag.partition("-")[0] for tag in self.tags()]


@pytest.fixture
def team(own_engine: OwnEngine, upstream: int, project: Project) -> Iterator[Team]:
    """A cache of the test's own, behind a proxy to which both engines speak plain HTTP."""
    own_engine.ready()
    between = Between(own_engine.registry, upstream)
    between.up()
    yield Team(between, own_engine, f"team/{project.salt}")
    between.down()


def test_fresh_engine_and_another_checkout_take_over_base_and_verdicts(
    project: Project, team: Team, another: OwnEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing is executed, and every output says so, with the run where it was; reports are whole."""
    locked(project)
    first = team.run(project, GITHUB_REPOSITORY="team/app", GITHUB_RUN_ID="7")
    assert (first.code, bases(project), reused(first)) == (0, [False], []), first.out
    assert "1 of 1 bases kept, 2 of 2 verdicts kept" in first.out
    assert team.kinds() == ["base", "verdict", "verdict"]

    clone = elsewhere(project, tmp_path_factory.mktemp("clone") / "deep/er")
    summary = clone.folder / "summary.md"
    told = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    second = team.run(clone, on=another, **told)
    assert (second.code, bases(clone), reused(second)) == (0, [], ["look", "test"]), second.out
    assert second.out.count("PASSED (reused)") == 2
    run_id = first.record["run_id"]
    page = (clone.folder / "reports/index.html").read_text()
    for output in (second.out.replace("\n", " "), page, summary.read_text()):
        assert f"passed in run {run_id[:8]} of commit uncommitted" in output
        assert "//github.com/team/app/actions/runs/7" in output
    before, now = first.stage("test"), second.stage("test")
    assert (now["result"], now["cached"], now["origin"]["run_id"]) == ("success", True, run_id)
    for kept in ("exit_code", "tests", "coverage", "artifacts"):
        assert now[kept] == before[kept]
    (suite,) = JUnitXml.fromfile(str(clone.folder / "reports/junit.xml"))
    assert [p.name for p in suite.properties()] == ["reused"]  # type: ignore[no-untyped-call]  # junitparser's own

    third = team.run(clone, "--no-reuse", on=another)
    assert (third.code, bases(clone), reused(third)) == (0, [True], []), third.out
    log = (clone.folder / "reports/logs/test.txt").read_text()
    assert log == "in /opt/venv /src /opt/venv\n"


def test_what_changed_is_made_and_run_again(
    project: Project, team: Team, another: OwnEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A file leads to new verdicts on the same base, the lock file to a new base."""
    locked(project)
    team.run(project)
    clone = elsewhere(project, tmp_path_factory.mktemp("clone") / "other")
    locked(clone, code="y = 2\n")
    edited = team.run(clone, on=another)
    assert (edited.code, bases(clone), reused(edited)) == (0, [True], []), edited.out
    locked(clone, version="2")
    relocked = team.run(clone, on=another)
    assert (relocked.code, bases(clone), reused(relocked)) == (0, [False], []), relocked.out


def test_red_stage_is_never_taken_over(project: Project, team: Team) -> None:
    """Neither a failed command, nor one whose coverage is too low for a gate that was raised."""
    gated = LOCKED.replace("at_least=80", "at_least=LEAST")
    locked(project)
    project.write(gated.replace("LEAST", "95").replace("{salt}", project.salt))
    for _ in range(2):
        run = team.run(project)
        assert (run.code, run.stage("test")["result"]) == (1, "failure")
        assert "reused" not in run.stage("test")["why"]
    assert reused(run) == ["look"]
    project.write(gated.replace("LEAST", "80").replace("{salt}", project.salt))
    assert (team.run(project).code, reused(team.run(project))) == (0, ["look", "test"])
    project.write(gated.replace("LEAST", "95").replace("{salt}", project.salt))
    assert team.run(project).code == 1


ONLY_HERE = """
@pipeline.stage(secrets={"token": Secret.env("TOKEN")})
def secret(python, token):
    return Command(python.with_secret_variable("TOKEN", token), "true")

@pipeline.stage
async def own(python):
    return Command(python, "true")

@pipeline.stage
def taken(python):
    return Command(python, "true")

@pipeline.container
async def asked(python):
    files = dag.directory().with_new_file("f", "{salt}")
    container = python.with_directory("/f", files)
    await container.directory("/f").entries()
    return container

@pipeline.stage
def known(asked):
    return Command(asked, "true")

@pipeline.stage(needs=[taken])
def plain(taken):
    return Command(taken, "ls")

@pipeline.stage(always=True)
def clean(python):
    return Command(python, "true")
"""


def test_stage_that_is_more_than_its_verdict_is_not_taken_over(
    project: Project, team: Team
) -> None:
    """With a secret, with code of its own, with a result for others, or of what nobody can tell."""
    project.write(ONLY_HERE.replace("{salt}", project.salt))
    team.run(project, TOKEN="hunter2-hunter2")
    again = team.run(project, TOKEN="hunter2-hunter2")
    assert (again.code, reused(again)) == (0, ["plain"]), again.out


@pytest.mark.parametrize("what", ["down", "read only", "broken"])
def test_cache_that_cannot_be_used_costs_a_line(project: Project, team: Team, what: str) -> None:
    """And never the verdict: one warning when it is asked, or one line when it is written."""
    project.write(PREPARED)
    if what == "down":
        team.between.down()
    elif what == "read only":
        team.between.faults = [Fault("(POST|PUT|PATCH) ", status=401)]
    else:
        team.between.faults = [Fault("(GET|HEAD) .*manifests", status=500)]
    run = team.run(project)
    assert (run.code, run.stage("look")["result"]) == (0, "success"), run.out
    said = [line for line in run.out.splitlines() if f"cache {team.cache}" in line]
    expected = {"down": "nobody listens", "read only": "no access to write", "broken": "500"}
    assert len(said) == 1, run.out
    assert expected[what] in run.out


def test_base_that_breaks_off_on_its_way_is_made(
    project: Project, team: Team, another: OwnEngine
) -> None:
    """It is pulled whole before a stage begins, so the stage never hears of it."""
    project.write(PREPARED)
    team.run(project)
    (tag,) = [tag for tag in team.tags() if tag.startswith("base")]
    manifest = json.loads(team.between.ask(f"/v2/{team.path}/manifests/{tag}")[1])
    team.between.faults = [Fault(f"GET .*{manifest['layers'][-1]['digest']}", status=503)]
    run = team.run(project, "--no-reuse", on=another)
    assert (run.code, bases(project)) == (0, [False]), run.out
    assert run.stage("look")["attempts"] == []
    assert run.out.count("is not used") == 1


def test_registry_without_zstandard_takes_the_usual_layers(project: Project, team: Team) -> None:
    project.write(PREPARED)
    team.between.faults = [Fault("PUT .*/manifests/base", status=400, times=1)]
    run = team.run(project)
    assert (run.code, team.kinds()) == (0, ["base", "verdict"]), run.out
    layers = {tag.partition("-")[0]: layer_kinds(team, tag) for tag in team.tags()}
    assert all("gzip" in kind for kind in layers["base"])
    assert all("zstd" in kind for kind in layers["verdict"])


def layer_kinds(team: Team, tag: str) -> list[str]:
    manifest = json.loads(team.between.ask(f"/v2/{team.path}/manifests/{tag}")[1])
    return [layer["mediaType"] for layer in manifest["layers"]]


def test_export_holds_up_neither_the_verdict_nor_whoever_ends_it(
    project: Project, team: Team
) -> None:
    """The verdict is said before; a signal then ends the export, and leaves the verdict."""
    project.write(PREPARED)
    team.between.faults = [Fault("POST .*uploads", wait_s=60)]
    env = {"PENSTOCK_CACHE": team.cache, "_EXPERIMENTAL_DAGGER_RUNNER_HOST": team.engine.url}
    run = project.interrupt(signal.SIGINT, lambda events: "run_finished" in events, **env)
    assert (run.code, run.record["result"]) == (0, "success"), run.out
    assert run.took_s < 15
    assert "Stopping" not in run.out
