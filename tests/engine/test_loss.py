"""The engine dies, or stops answering, under a run; every phase of one is in `tests/soak`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engine import phases
from tests.engine.phases import Leftovers, left_on_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import Project
    from tests.engine.own import OwnEngine

pytestmark = pytest.mark.engine

BACK_S = 10.0


@pytest.mark.fault(7)
@pytest.mark.parametrize("above", [(), ("dagger", "run")], ids=["plain", "dagger-run"])
@pytest.mark.parametrize("phase", ["command", "publish"])
def test_engine_that_dies_ends_the_run(
    project: Project,
    hurt: OwnEngine,
    phase: str,
    above: tuple[str, ...],
    measured: Callable[[str], None],
) -> None:
    """Told as an error of the engine, with a record, and the shell is back, `dagger run` included."""
    phases.write(project)
    before = Leftovers.now(project.folder)
    child = phases.start(project, hurt, phase, *above)
    end = phases.lose(project, hurt, "kill", child)
    assert end.took_s < BACK_S
    assert end.record["exit_code"] == 4
    assert end.record["result"] == "error"
    assert end.record["reason"].startswith("the engine stopped answering: ")
    assert "ERROR ✗ (because the engine was lost)" in end.out
    assert end.code == (-15 if above else 4)
    assert ("`dagger run` would hang now, and was ended" in end.out) == bool(above)
    assert left_on_host(before, project.folder) == []
    name = "`dagger run`" if above else "plain"
    measured(f"{name}: exit {'143' if above else '4'}, `error` in the record, within 10 s")


@pytest.mark.fault(42)
@pytest.mark.parametrize("above", [(), ("dagger", "run")], ids=["plain", "dagger-run"])
def test_engine_that_is_paused_ends_the_run(
    project: Project, hurt: OwnEngine, above: tuple[str, ...], measured: Callable[[str], None]
) -> None:
    """Nobody closes a connection, and still nothing waits for it."""
    phases.write(project)
    before = Leftovers.now(project.folder)
    end = phases.lose(project, hurt, "pause", phases.start(project, hurt, "command", *above))
    assert end.took_s < BACK_S
    assert end.record["reason"] == "the engine stopped answering: no answer within 3 s"
    assert end.record["exit_code"] == 4
    assert end.code == (-15 if above else 4)
    hurt.ready()
    assert left_on_host(before, project.folder) == []
    name = "`dagger run`" if above else "plain"
    measured(f"{name}: exit {'143' if above else '4'}, `error` in the record, within 10 s")


@pytest.mark.fault(8)
def test_engine_that_restarts_serves_the_next_run(
    project: Project, hurt: OwnEngine, measured: Callable[[str], None]
) -> None:
    """What it had done before is still in its cache."""
    phases.write(project)
    words = ("--only", "green", "--skip", "teardown", "--engine", hurt.url)
    assert project.run(*words).code == 0
    hurt.restart()
    run = project.run(*words)
    assert run.code == 0
    assert run.stage("green")["cached"] is True
    measured("passed, from the cache")


ASKS_WITHIN_A_QUESTION = """
import anyio, subprocess, sys
from dagger import dag
from penstock.errors import EngineError
from penstock.session import open_session

async def main():
    told = {"emit": lambda _: None, "on_lost": lambda _: None, "advice": "", "above": None}
    async with open_session(connecting=anyio.CancelScope(), **told) as session:
        subprocess.run(["docker", "kill", sys.argv[1]], check=True)
        try:
            while True:
                await dag.version()
        except EngineError:
            pass
        try:
            await dag.container().with_directory("/x", dag.directory()).id()
        except EngineError as error:
            print("told:", error)

anyio.run(main)
"""


@pytest.mark.fault(7)
def test_loss_is_told_as_such_within_a_question_that_needs_another(hurt: OwnEngine) -> None:
    """The SDK asks for ids side by side, and wraps what it does not know in a group."""
    done = subprocess.run(
        [sys.executable, "-c", ASKS_WITHIN_A_QUESTION, hurt.name],
        env=phases.environment(hurt),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "told: the engine stopped answering: " in done.stdout, done.stderr
