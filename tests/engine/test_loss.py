"""The engine dies, or stops answering, under a run; every phase of one is in `tests/soak`."""

from __future__ import annotations

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
