"""An engine whose disk is nearly full, and full: a small one, in memory."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from engine import built, choose
from penstock.causes import FULL_DISK
from tests.engine.own import NAME, OwnEngine, docker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine

GREEN = """
@pipeline.stage
def green(python):
    return Command(python, "true")
"""
FILLING = """
@pipeline.stage(retries=3)
def filling(python):
    return Command(python, "dd if=/dev/zero of=/tmp/large bs=1M count=1000")

@pipeline.stage(needs=[filling])
def never(python):
    return Command(python, "true")
"""
BALLAST = "/var/lib/dagger/ballast"


@pytest.fixture(scope="module")
def small() -> Iterator[OwnEngine]:
    """An engine with a disk of 500 MB."""
    engine = OwnEngine(f"{NAME}-small", disk="500m")
    engine.remove()
    engine.ready()
    yield engine
    engine.remove()


@pytest.mark.fault(47)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at the disk of a volume")
def test_nearly_full_disk_is_warned_of_and_the_cache_is_kept(
    project: Project,
    small: OwnEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    measured: Callable[[str], None],
) -> None:
    """With how much is free, where, and the next step; the next run still has its commands cached."""
    project.write(GREEN)
    first = project.run("--engine", small.url)
    assert first.code == 0, first.out
    folder = docker("volume", "inspect", "--format", "{{.Mountpoint}}", small.name)
    monkeypatch.setattr(built, "container", lambda: small.name)
    choice = choose.Choice("built", "")
    choose.warn_of_disk(choice)
    assert capsys.readouterr().err == ""
    try:
        fill(small, folder)
        choose.warn_of_disk(choice)
        warning = capsys.readouterr().err
        assert warning.startswith("WARNING: only 0.1 GB (1")
        assert f"free on the engine's disk, {folder}" in warning
        assert "prune" in warning
        again = project.run("--engine", small.url)
        assert again.stage("green")["cached"], again.out
    finally:
        docker("exec", small.name, "rm", "--force", BALLAST)
    measured("less than a fifth free: warned before the start, what was cached still is")


def fill(engine: OwnEngine, folder: str) -> None:
    """Leave 15 % of the disk."""
    usage = shutil.disk_usage(folder)
    size = usage.free - usage.total * 15 // 100
    docker("exec", engine.name, "fallocate", "--length", str(size), BALLAST)


@pytest.mark.fault(34)
def test_full_disk_of_the_engine_is_named_and_not_tried_again(
    project: Project, small: OwnEngine, measured: Callable[[str], None]
) -> None:
    """Though it was a command that met it first, and `retries=3`."""
    project.write(FILLING)
    run = project.run("--engine", small.url)
    stage = run.stage("filling")
    assert (run.code, stage["result"], stage["reason"]) == (4, "error", FULL_DISK), run.out
    assert stage["attempts"] == []
    measured("exit 4, `the engine's disk is full` and the next step, one attempt")
