"""Each phase of a run, disturbed at three instants: by the engine's death, and by signals."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.engine import phases
from tests.engine.conftest import Project, hurt, own_engine, project
from tests.engine.phases import Leftovers, left_on_host

if TYPE_CHECKING:
    from tests.engine.own import OwnEngine

__all__ = ["hurt", "own_engine", "project"]

pytestmark = pytest.mark.engine

INSTANTS_S = (0.0, 0.3, 1.0)
each_phase = pytest.mark.parametrize("phase", phases.PHASES)
each_instant = pytest.mark.parametrize("after_s", INSTANTS_S)


@each_phase
@each_instant
@pytest.mark.parametrize("above", [(), ("dagger", "run")], ids=["plain", "dagger-run"])
def test_engine_is_killed(
    project: Project,
    hurt: OwnEngine,
    phase: str,
    after_s: float,
    above: tuple[str, ...],
) -> None:
    """The shell is back within 10 s, the record is whole, and the next run passes."""
    phases.write(project)
    before = Leftovers.now(project.folder)
    child = phases.start(project, hurt, phase, *above)
    time.sleep(after_s)
    was_over = child.poll() is not None
    end = phases.lose(project, hurt, "kill", child)
    assert end.took_s < 10
    if not was_over and end.record["exit_code"] != 0:
        assert end.record["exit_code"] == 4, end.out
        assert end.record["result"] == "error"
        assert end.code == (-15 if above else 4), end.out
    assert "Traceback" not in end.out
    assert phase == "report" or after_s or not was_over
    hurt.ready()
    assert left_on_host(before, project.folder) == []
    assert project.run("--only", "next_one", "--engine", hurt.url).code == 0


@each_phase
@each_instant
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_is_interrupted(
    project: Project,
    own_engine: OwnEngine,
    phase: str,
    after_s: float,
    number: signal.Signals,
) -> None:
    """Cleaned up within 7.5 s, with the exit code of the signal, and nothing is left anywhere."""
    phases.write(project)
    before, inside = Leftovers.now(project.folder), sorted(own_engine.processes().splitlines())
    child = phases.start(project, own_engine, phase)
    time.sleep(after_s)
    was_over = child.poll() is not None
    end = phases.interrupt(project, number, child)
    code = 128 + number
    assert end.took_s < 7.5
    assert was_over or end.record["exit_code"] in {code, 0}, end.out
    assert was_over or end.code in {code, 0}, end.out
    assert "Traceback" not in end.out
    assert left_on_host(before, project.folder) == []
    until = time.monotonic() + 10
    while (now := sorted(own_engine.processes().splitlines())) != inside:
        assert time.monotonic() < until, [line for line in now if line not in inside]
        time.sleep(0.2)
