"""Reports of strange kinds, names and sizes, on the real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine

STRANGE = r'''
MAKE = r"""
import os, socket
os.makedirs("out/sub/locked")
for name in ("good.txt", "out/new\nline", "out/smile-\U0001f600", b"out/invalid-\xff", "out/" + "l" * 255,
             "out/sub/a:b*?<>|", "out/unreadable", "out/sub/locked/in"):
    open(name, "w").write("x")
open("out/empty", "w")
os.chmod("out/unreadable", 0)
os.chmod("out/sub/locked", 0)
socket.socket(socket.AF_UNIX).bind("out/socket")
socket.socket(socket.AF_UNIX).bind("out/sub/x\n..")
os.mkfifo("out/pipe")
os.mkfifo("pipe.txt")
os.symlink("nowhere", "out/dangling")
os.symlink("/etc/passwd", "out/absolute")
os.symlink("../../../../../../../../../../etc", "out/sub/upwards")
os.symlink("/etc/passwd", "link.txt")
os.makedirs("folder.txt/inner")
"""

@pipeline.stage
def test(python) -> Command:
    names = ["out", "good.txt", "link.txt", "pipe.txt", "folder.txt", "absent.txt"]
    return Command(python, ["python", "-c", MAKE], reports=[Report(name) for name in names])
'''


@pytest.mark.fault(46)
def test_strange_files_among_the_reports_are_named_and_others_kept(
    project: Project, measured: Callable[[str], None]
) -> None:
    """Links, pipes and sockets are left out by name; nothing is written outside the reports."""
    project.write(STRANGE)
    before = {path.name for path in project.folder.iterdir()}
    run = project.run()
    assert (run.code, run.stage("test")["result"]) == (0, "success")
    reports = project.folder / "reports"
    kept = {
        path.relative_to(reports).as_posix().encode(errors="surrogateescape")
        for path in (reports / "out").rglob("*")
        if path.is_file()
    }
    assert kept == {
        b"out/new\nline",
        "out/smile-\U0001f600".encode(),
        b"out/invalid-\xff",
        b"out/" + b"l" * 255,
        b"out/sub/a:b*?<>|",
        b"out/unreadable",
        b"out/sub/locked/in",
        b"out/empty",
    } | {b"out/sub/x\n.."}  # a socket whose name is no line: kept as the empty file it became
    assert (reports / "out/empty").stat().st_size == 0
    assert all(path.stat().st_mode & 0o400 for path in reports.rglob("*"))
    assert (reports / "folder.txt").is_dir()
    left_out = ["out/socket", "out/pipe", "pipe.txt", "out/dangling", "out/absolute"]
    left_out += ["out/sub/upwards", "link.txt"]
    notes = run.stage("test")["notes"]
    assert sorted(notes) == sorted(
        ["absent.txt is missing", *(f"left out {name}: no regular file" for name in left_out)]
    )
    assert {path.name for path in project.folder.iterdir()} == before | {"reports", ".penstock"}
    measured("sockets, pipes, links: left out by name; empty, unreadable, oddly named: kept")


def test_reports_that_are_too_large_are_named_and_never_exported(project: Project) -> None:
    """In bytes or on disk; others are kept, the result stands, and a gate on one is closed."""
    project.write("""
LINE = '''
mkdir -p "large one" small
truncate -s 10G "large one/sparse"
for number in $(seq 100); do echo x > small/$number; done
echo kept > kept.txt
truncate -s 10G coverage.xml
'''

@pipeline.stage
def keeps(python) -> Command:
    reports = [Report("large one"), Report("small", most_bytes=100_000), Report("kept.txt")]
    return Command(python, LINE, shell=True, reports=reports)

@pipeline.stage
def gates(python) -> Command:
    return Command(python, LINE, shell=True, reports=[Coverage("coverage.xml", at_least=80)])
""")
    run = project.run("--keep-going")
    bound = "raise `most_bytes` of this report, or write less"
    stage = run.stage("keeps")
    assert stage["result"] == "success"
    assert stage["notes"] == [
        f"left out large one: 10 GiB, which is more than its 1 GiB; {bound}",
        f"left out small: 404 KiB, which is more than its 97.7 KiB; {bound}",
    ]
    reports = project.folder / "reports"
    assert (reports / "kept.txt").read_text() == "kept\n"
    assert not (reports / "large one").exists()
    assert run.stage("gates")["reason"] == "no coverage: coverage.xml is missing"
    assert run.took_s < 60
