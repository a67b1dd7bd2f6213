"""However a run ends, it ends in words, with a record and with its own exit code."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.engine.conftest import ROOT, laptop

if TYPE_CHECKING:
    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
TWO_STAGES = """
@pipeline.stage
def green(python):
    return Command(python, "true")

@pipeline.stage(needs=[green])
def red(python):
    return Command(python, "printf 'größer %s' x; exit 7", shell=True)
"""


def write(project: Project, body: str) -> None:
    """Write a pipeline that leaves it to penstock when Dagger is imported."""
    project.write(body)
    file = project.folder / "pipeline.py"
    text = file.read_text().replace("import dagger\nfrom dagger import dag\n", "")
    file.write_text(text.replace("    return dag.", "    from dagger import dag\n    return dag."))


def wait_for(project: Project, needle: str) -> None:
    events = project.folder / "reports/events.jsonl"
    end = time.monotonic() + 60
    while not events.exists() or needle not in events.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


def begin(project: Project, needle: str, *argv: str) -> subprocess.Popen[str]:
    child = project.start(*argv)
    wait_for(project, needle)
    return child


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.8, 1.5])
def test_signal_while_the_run_begins_leaves_a_summary_and_a_record(
    project: Project, number: signal.Signals, code: int, after_s: float
) -> None:
    """Importing the SDK, starting the CLI, connecting: each of them can be interrupted."""
    write(project, TWO_STAGES.replace("true", "sleep 63"))

    def has_begun(events: str) -> bool:
        time.sleep(after_s if "run_started" in events else 0)
        return "run_started" in events

    run = project.interrupt(number, has_begun)
    assert (run.code, run.record["exit_code"], run.record["result"]) == (code, code, "cancellation")
    assert f"PIPELINE STOPPED ✗ (interrupted by {number.name})" in run.out
    assert "red: CANCELLED" in run.out
    assert "Traceback" not in run.out
    assert run.took_s < 6


@pytest.mark.fault(2)
def test_second_signal_ends_at_once(project: Project) -> None:
    """Whoever cannot wait for the clean-up says so once more."""
    write(
        project,
        """
@pipeline.stage
def test(python):
    return Command(python, "sleep 64")

@pipeline.stage(needs=[test], always=True)
def clean_up(python):
    return Command(python, "sleep 65")
""",
    )
    child = begin(project, '"stage_started"')
    child.send_signal(signal.SIGINT)
    wait_for(project, '"stage": "clean_up"')
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "Stopping: interrupted by SIGINT; once more ends it at once\n" in out
    assert "Traceback" not in out
    assert time.monotonic() - began < 1


def test_engine_that_does_not_answer_can_be_interrupted(project: Project) -> None:
    """Somebody listens at its address and says nothing; nothing is waited for."""
    write(project, TWO_STAGES)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        child = begin(project, "run_started", "--engine", url)
        time.sleep(3)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "PIPELINE STOPPED ✗ (interrupted by SIGINT)" in out
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("tcp://127.0.0.1:1", "connection refused; does Docker run here"),
        ("unix:///nowhere.sock", "no such file or directory; does Docker run here"),
        ("container://nobody", "error response from daemon: no such container: nobody; does"),
        ("bogus://x", 'start engine: no driver for scheme "bogus" found; does Docker run here'),
    ],
)
def test_unreachable_engine_is_told_in_one_sentence(project: Project, url: str, words: str) -> None:
    """The cause and the next step, without colours, log lines and trace ids."""
    write(project, TWO_STAGES)
    subprocess.run(["git", "init", "-q"], cwd=project.folder, check=True)
    subprocess.run(["git", "remote", "add", "x", "/nowhere"], cwd=project.folder, check=True)
    run = project.run("--engine", url)
    assert run.code == 4
    assert run.record["reason"].startswith(f"cannot reach the Dagger engine {url}: {words}")
    assert "green: SKIPPED (because there is no engine)\n" in run.out
    assert [n for n in ("\x1b", "Unknown child", "WARN ", "traceparent") if n in run.out] == []
    assert run.took_s < 10


def test_closed_pipe_costs_the_output_only(project: Project) -> None:
    """`| head -1` shows a line, and the run ends with its own code and record."""
    write(project, TWO_STAGES)
    line = f'"{sys.executable}" pipeline.py | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=project.folder,
        env=laptop() | {"PYTHONPATH": str(ROOT / "ci")},
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("green: started")
    assert json.loads((project.folder / "reports/run.json").read_text())["exit_code"] == 1


def test_terminal_without_unicode_loses_nothing(project: Project) -> None:
    """What it cannot show is escaped, and what follows is there."""
    write(project, TWO_STAGES)
    run = project.run(PYTHONIOENCODING="ascii")
    assert run.code == 1
    assert r"  | gr\xf6\xdfer x" in run.out
    assert "reproduce: python pipeline.py --only red" in run.out


def test_what_cannot_be_written_leaves_a_green_run_green(project: Project) -> None:
    """Loudly: the memory of the run could not be written."""
    write(project, TWO_STAGES.replace("exit 7", "exit 0"))
    (project.folder / ".penstock/state.json/in the way").mkdir(parents=True)
    run = project.run()
    assert run.code == 0
    assert "All stages passed ✓" in run.out
    assert run.out.count("WARNING: cannot write") == 1, run.out
    assert run.record["exit_code"] == 0


@pytest.mark.fault(35)
def test_two_runs_in_one_folder_take_turns(project: Project) -> None:
    """The second begins when the first has ended, and each has all of its events."""
    write(project, TWO_STAGES.replace("true", "sleep 4"))
    first = project.start()
    lock = project.folder / ".penstock/lock"
    while not lock.exists() or not lock.read_text():
        time.sleep(0.02)
    second = project.run()
    assert first.wait(60) == 1
    first_out, _ = first.communicate()
    assert second.out.startswith(f"another run (process {first.pid}) works in {project.folder}: ")
    assert second.code == 1
    assert [run.count("reproduce:") for run in (first_out, second.out)] == [1, 1]
    assert "green ................................... PASSED (cached)" in second.out


@pytest.mark.parametrize("program", ["python3 -m ci", ""])
def test_reproduce_line_is_what_a_user_can_type(project: Project, program: str) -> None:
    """Whoever started the pipeline by other words has told them."""
    write(project, TWO_STAGES)
    run = project.run("--only", "red", PENSTOCK_PROGRAM=program)
    assert f"reproduce: {program or 'python pipeline.py'} --only red" in run.out
