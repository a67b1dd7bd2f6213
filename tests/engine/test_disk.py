"""Reports that do not fit on the disk of this machine, on a small file system of their own."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.engine.conftest import Project


pytestmark = pytest.mark.engine


@pytest.fixture
def small_disk(project: Project) -> Iterator[Path]:
    """Mount one megabyte at the reports folder."""
    folder = project.folder / "reports"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    mounted = subprocess.run([*sudo, *words], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk here: {mounted.stderr}")
    if sudo:
        subprocess.run([*sudo, "chown", str(os.geteuid()), str(folder)], check=True)
    yield folder
    subprocess.run([*sudo, "umount", str(folder)], check=True)


@pytest.mark.fault(32)
def test_full_disk_under_the_reports_leaves_results_as_they_are(
    project: Project, small_disk: Path, measured: Callable[[str], None]
) -> None:
    """What does not fit is warned of; a gate that needs it says no; the next stage's report is kept."""
    project.write("""
MAKE = "head -c 3000000 /dev/urandom > big; mkdir html; cp big html; echo '<coverage line-rate=\\"1\\"/>' > c.xml; "

@pipeline.stage
def plain(python) -> Command:
    return Command(python, MAKE + "echo done", shell=True, reports=[Report("big")])

@pipeline.stage(needs=[plain])
def gated(python) -> Command:
    return Command(python, MAKE, shell=True, reports=[Coverage("c.xml", html="html", at_least=80)])

@pipeline.stage(needs=[plain])
def talks(python) -> Command:
    return Command(python, "head -c 2000000 /dev/zero | tr '\\\\0' 'x'; echo", shell=True)

@pipeline.stage(needs=[plain])
def fits(python) -> Command:
    return Command(python, "echo small > small", shell=True, reports=[Report("small")])
""")
    run = project.run("--keep-going", "-j", "1")
    assert run.code == 1, run.out
    results = {stage["name"]: stage["result"] for stage in run.record["stages"]}
    assert results == {
        "plain": "success",
        "gated": "failure",
        "talks": "success",
        "fits": "success",
    }
    assert "no coverage: c.xml is missing" in run.stage("gated")["reason"]
    for words in (
        f"cannot write {small_disk} (No space left on device)",
        "cannot write the log of 'talks' (No space left on device); its result stands",
    ):
        assert words in " ".join(run.out.split())
    kept = sorted(path.name for path in small_disk.iterdir() if path.name != "logs")
    assert kept == ["events.jsonl", "index.html", "junit.xml", "run.json", "small"]
    measured("result stands with a warning; a coverage gate fails; small reports are kept")
