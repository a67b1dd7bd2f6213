"""Each phase of a run, disturbed at three instants: by the engine's death, and by signals."""

from __future__ import annotations

import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.engine import phases
from tests.engine.conftest import Project, heard, hurt, own_engine, project
from tests.engine.phases import Leftovers, left_on_host

if TYPE_CHECKING:
    from tests.engine.own import OwnEngine

__all__ = ["heard", "hurt", "own_engine", "project"]

pytestmark = pytest.mark.engine

each_instant = pytest.mark.parametrize(
    ("phase", "after_s"),
    [(name, after_s) for name, phase in phases.PHASES.items() for after_s in phase.instants_s],
)


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
    was_over = phases.is_over(project, phase)
    end = phases.lose(project, hurt, "kill", child)
    assert end.took_s < 10
    assert "Traceback" not in end.out
    if phase != "report":  # the run may be over before the engine is
        assert not was_over, "the instant is too late; have the phase last longer"
        assert end.record["exit_code"] == 4, end.out
        assert end.record["result"] == "error"
        assert end.code == (-15 if above else 4), end.out
    hurt.ready()
    assert left_on_host(before, project.folder) == []
    assert project.run("--only", "next_one", "--engine", hurt.url).code == 0


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
    before, inside = Leftovers.now(project.folder), Counter(own_engine.processes().splitlines())
    child = phases.start(project, own_engine, phase)
    time.sleep(after_s)
    was_over = phases.is_over(project, phase)
    end = phases.interrupt(project, number, child)
    code = 128 + number
    assert end.took_s < 7.5
    assert "Traceback" not in end.out
    if phase == "report":  # the run may be over before the signal is there
        assert end.record["exit_code"] in {code, 0}, end.out
    else:
        assert not was_over, "the instant is too late; have the phase last longer"
        assert (end.record["exit_code"], end.code) == (code, code), end.out
    assert left_on_host(before, project.folder) == []
    until = time.monotonic() + 10
    while left := Counter(own_engine.processes().splitlines()) - inside:
        assert time.monotonic() < until, left
        time.sleep(0.2)
