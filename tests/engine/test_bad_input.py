"""What only a run can show: odd bytes that commands print and leave, values made while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.engine.conftest import Project


def test_odd_bytes_of_a_command_are_kept(project: Project) -> None:
    """Binary output, and files by any name, are no reason to fail and are not lost."""
    project.write("""
MAKE = r'''
printf 'a\\\\000\\\\377\\\\033]0;x\\\\007b\\n'
head -c 100000 /dev/urandom
mkdir out
python - <<'EOP'
import os
for name in (b'plain', b'new\\nline', '\\N{UNICORN FACE}'.encode(), b'bad\\xff', b'x' * 255, b' ', b'-q'):
    open(b'out/' + name, 'wb').write(name)
EOP
'''

@pipeline.stage
def make(python):
    return Command(python, MAKE, shell=True, reports=[Report("out")])
""")
    run = project.run()
    assert run.code == 0, run.out
    assert "Traceback" not in run.out
    folder = project.folder / "reports/out"
    kept = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert len(kept) == 7, sorted(kept)
    assert kept["new\nline"] == b"new\nline"
    assert (project.folder / "reports/logs/make.txt").stat().st_size > 50_000


def test_wrong_values_made_in_a_run_name_the_authors_line(project: Project) -> None:
    """Each stage fails by itself, with the field, what it was given and where that stands."""
    project.write("""
@pipeline.service
def db(python):
    return Service(container=python, port=0)

@pipeline.stage
def ask(python, db):
    return Command(python, "true", services=[db])

@pipeline.stage
def lint(python):
    return Command(python, "true", env={"A=B": "x"})
""")
    run = project.run("--keep-going")
    assert run.code == 1, run.out
    asked, linted = run.stage("ask"), run.stage("lint")
    assert "Service has 0 as `port`; write a port, 1 to 65535" in asked["reason"]
    assert "Command has {'A=B': 'str'} as `env`; write a dict of texts" in linted["reason"]
    for stage in (asked, linted):
        (finding,) = stage["findings"]
        assert finding["file"].endswith(".py")
        assert not finding["file"].startswith("<")
        assert finding["line"] > 0
