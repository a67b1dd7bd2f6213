"""Commands and services that end otherwise than they should, on the real engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.engine.conftest import settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine

SECRET = "hunter2-hunter2"
# Services take no secrets; but who knows one prints it.
PRINTS = "echo key $(echo aHVudGVyMi1odW50ZXIy | base64 -d)"
CHILDREN = """
STAYS = "(setsid sh -c 'trap \\"\\" INT TERM HUP; sleep 8123' &); "

@pipeline.stage
def plain(python) -> Command:
    return Command(python, "sleep 8123 & echo begun; exit 3", shell=True)

@pipeline.stage
def daemon(python) -> Command:
    return Command(python, "setsid nohup sleep 8123 & " + STAYS + "echo begun; exit 3", shell=True)

@pipeline.stage(secrets={"token": Secret.env("TOKEN")})
def masked(python, token) -> Command:
    with_token = python.with_secret_variable("T", token)
    return Command(with_token, STAYS + "echo begun $T; exit 3", shell=True)

@pipeline.stage(deadline_s=1)
def late(python) -> Command:
    line = STAYS + "trap '' INT; echo begun; sleep 8123"
    return Command(python, line, shell=True)

@pipeline.stage(deadline_s=1, secrets={"token": Secret.env("TOKEN")})
def late_masked(python, token) -> Command:
    with_token = python.with_secret_variable("T", token)
    line = STAYS + "trap '' INT; echo begun $T; sleep 8123"
    return Command(with_token, line, shell=True)
"""


@pytest.mark.fault(41)
def test_children_that_stay_hold_nobody_up(
    project: Project, measured: Callable[[str], None]
) -> None:
    """The stage ends with its command's own code, and the engine keeps nothing."""
    project.write(CHILDREN)
    run = project.run("--keep-going", TOKEN=SECRET)
    for name, most_s in (("plain", 5), ("daemon", 5), ("masked", 9)):
        stage = run.stage(name)
        assert (stage["result"], stage["exit_code"]) == ("failure", 3)
        assert stage["output"].splitlines()[-1] in {"begun", "begun ***"}
        assert stage["duration_s"] < most_s
    for name in ("late", "late_masked"):
        stage = run.stage(name)
        assert stage["result"] == "timeout"
        assert stage["output"].splitlines()[-1] in {"begun", "begun ***"}
        assert stage["duration_s"] < 14
    assert settled("sleep 8123")
    measured("in the background, detached, past the deadline: own code, nothing left in the engine")


@pytest.mark.fault(15)
def test_deadlines_of_stages_side_by_side_are_their_own(
    project: Project, measured: Callable[[str], None]
) -> None:
    """The engine has volatile variables once for a session, and these two are made as one."""
    project.write("""
@pipeline.stage(deadline_s=1)
def short(python) -> Command:
    return Command(python, "sleep 4")

@pipeline.stage(deadline_s=100)
def long(python) -> Command:
    return Command(python, "sleep 4.5")
""")
    run = project.run("--keep-going")
    results = {stage["name"]: stage["result"] for stage in run.record["stages"]}
    assert results == {"short": "timeout", "long": "success"}
    assert run.stage("short")["duration_s"] < 4
    measured("1 s beside 100 s: the first ends, the second passes")


@pytest.mark.parametrize(("number", "code"), [(9, 137), (11, 139)])
def test_command_ended_by_a_signal_keeps_reports_and_words(
    project: Project, number: int, code: int
) -> None:
    """As one does that runs out of memory; the engine itself would lose both."""
    project.write(f"""
@pipeline.stage
def killed(python) -> Command:
    line = "echo kept > kept.txt; echo last words; kill -{number} $$"
    return Command(python, line, shell=True, reports=[Report("kept.txt")])
""")
    stage = project.run().stage("killed")
    assert (stage["reason"], stage["exit_code"]) == (f"exit code {code}", code)
    assert stage["output"].startswith("$ sh -ec 'echo kept")
    assert stage["output"].endswith("last words")
    assert (project.folder / "reports/kept.txt").read_text() == "kept\n"


@pytest.mark.fault(12)
def test_services_that_never_become_ready_tell_why(
    project: Project, measured: Callable[[str], None]
) -> None:
    """Each at its own deadline, with its own last lines and those of its last check."""
    project.write(
        """
from dataclasses import replace

def serve(python, **health):
    line = "PRINTS; sleep 8124"
    return Service(container=python, port=81, args=["sh", "-c", line], **health)

@pipeline.service
def red(python) -> Service:
    check = ["sh", "-c", "echo not yet; exit 3"]
    health = Health(command=check, interval_s=1, retries=2)
    return serve(python, health=health)

@pipeline.service(deadline_s=2)
def closed(python) -> Service:
    return serve(python)

@pipeline.service(deadline_s=2)
def hung(python) -> Service:
    return serve(python, health=Health(command=["sleep", "8124"]))

@pipeline.service
def wrong() -> Service:
    made = postgres_service("15-alpine", database="x")
    return replace(made, args=[*made.args, "-c", "shared_buffers=nonsense"])

@pipeline.stage(secrets={"token": Secret.env("TOKEN")})
def needs_red(python, red, token) -> Command:
    return Command(python, "true", services=[red])

@pipeline.stage
def needs_closed(python, closed) -> Command:
    return Command(python, "true", services=[closed])

@pipeline.stage
def needs_hung(python, hung) -> Command:
    return Command(python, "true", services=[hung])

@pipeline.stage
def needs_wrong(python, wrong) -> Command:
    return Command(python, "true", services=[wrong])
""".replace("PRINTS", PRINTS)
    )
    run = project.run("--keep-going", TOKEN=SECRET)
    assert run.code == 4
    late = "never became healthy within 2 s"
    words = {
        "red": (f"{late} (its check ended with exit code 3)", ["key ***", "not yet"]),
        "closed": (f"{late} (port 81 stayed closed)", ["key"]),
        "hung": (f"{late} (its last check did not end)", ["key"]),
        "wrong": ("exited with exit code 1 before it was healthy", ["shared_buffers", "nonsense"]),
    }
    for name, (reason, said) in words.items():
        stage = run.stage(f"needs_{name}")
        assert (stage["result"], stage["fault"]) == ("error", "service")
        assert stage["reason"] == f"service '{name}' {reason}"
        for word in said:
            assert word in stage["output"]
            assert word in run.out
        assert stage["duration_s"] < 10
    events = (project.folder / "reports/events.jsonl").read_text()
    assert "waits for closed" in events
    assert SECRET not in run.out + events
    assert settled("sleep 8124")
    measured("check red, check hung, port closed, setting wrong: `error` with both's last words")


@pytest.mark.fault(13)
def test_last_lines_of_a_service_that_dies_in_use_are_in_every_output(
    project: Project, measured: Callable[[str], None]
) -> None:
    """Fifty of them, masked, with its name and exit code."""
    project.write(
        """
@pipeline.service
def mortal(python) -> Service:
    line = "python -m http.server 8000 2>/dev/null & sleep 2; "
    line += " seq -f 'line %.0f' 60; PRINTS; exit 9"
    return Service(container=python, port=8000, args=["sh", "-c", line])

@pipeline.stage(secrets={"token": Secret.env("TOKEN")})
def test(python, mortal, token) -> Command:
    return Command(python, "sleep 8125", services=[mortal])
""".replace("PRINTS", PRINTS)
    )
    summary = project.folder / "summary.md"
    run = project.run(TOKEN=SECRET, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert run.code == 4
    stage = run.stage("test")
    words = "service 'mortal' exited with exit code 9 while it was in use"
    assert (stage["result"], stage["fault"], stage["reason"]) == ("error", "service", words)
    lines = [*(f"line {number}" for number in range(12, 61)), "key ***"]
    assert stage["output"].splitlines() == lines
    reports = project.folder / "reports"
    shown = "\n".join(line for line in run.out.splitlines() if "::add-mask::" not in line)
    for text in (
        shown,
        json.dumps(run.record),
        (reports / "index.html").read_text(),
        (reports / "junit.xml").read_text(),
        summary.read_text(),
    ):
        assert words in text.replace("&#39;", "'").replace("&#x27;", "'")
        assert "line 12" in text
        assert "key ***" in text
        assert SECRET not in text
    assert settled("sleep 8125")
    measured("exit 9: `error`, fault `service`, 50 lines on screen and in every report")


@pytest.mark.fault(14)
def test_service_that_ignores_signals_is_killed(
    project: Project, measured: Callable[[str], None]
) -> None:
    """What the stage came to stands, and the run waits for nothing."""
    project.write("""
SERVER = '''
import signal, http.server
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
http.server.test(port=8126)
'''

@pipeline.service
def stubborn(python) -> Service:
    return Service(container=python, port=8126, args=["python", "-c", SERVER])

@pipeline.stage
def test(python, stubborn) -> Command:
    return Command(python, "true", services=[stubborn])
""")
    run = project.run()
    assert (run.code, run.stage("test")["result"]) == (0, "success")
    events = (project.folder / "reports/events.jsonl").read_text().splitlines()
    at_s = {e["event"]: e["at_s"] for e in map(json.loads, events)}
    assert at_s["service_stopped"] - at_s["stage_finished"] < 3
    assert settled("port=8126")
    measured("passed, killed within 3 s")


@pytest.mark.fault(45)
def test_cells_and_found_stages_have_servers_of_their_own(
    project: Project, measured: Callable[[str], None]
) -> None:
    """Each finds its own mark only, at an address of its own, while the others' servers run."""
    project.write(
        """
@pipeline.service
def postgres() -> Service:
    return postgres_service("15-alpine", database="x")

LINE = '''
psql "$DATABASE_URL" -qc "create table if not exists marker (cell text)"
psql "$DATABASE_URL" -qc "insert into marker values ('$CELL')"
sleep 3
psql "$DATABASE_URL" -Atc "select inet_server_addr(), string_agg(cell, ' ') from marker"
'''

def mark(postgres, cell) -> Command:
    base = dag.container().from_("postgres:15-alpine").with_env_variable("SALT", SALT)
    return Command(base, LINE, shell=True, env={"CELL": cell}, services=[postgres])

@pipeline.stage(matrix={"n": ["1", "2"]})
def cells(postgres, n) -> Command:
    return mark(postgres, n)

@pipeline.stage
def finds(postgres) -> dict[str, Command]:
    return {n: mark(postgres, n) for n in ("3", "4")}
""".replace("SALT)", f"{project.salt!r})")
    )
    run = project.run("--keep-going")
    assert run.code == 0
    names = {"1": "cells[n=1]", "2": "cells[n=2]", "3": "finds[3]", "4": "finds[4]"}
    logs = project.folder / "reports/logs"
    said = {n: (logs / f"{name}.txt").read_text().split()[-1] for n, name in names.items()}
    addresses, marks = zip(*(line.split("|") for line in said.values()), strict=True)
    assert list(marks) == list(names)
    assert len(set(addresses)) == 4
    stopped = (project.folder / "reports/events.jsonl").read_text().count('"service_stopped"')
    assert stopped == 4
    measured("two cells, two stages found at run time: four addresses, own rows only")
