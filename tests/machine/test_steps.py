"""Steps: order, failures, what is left after a kill, and what is remembered."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine import place, screen, state, steps
from engine.errors import MachineError, StepError
from engine.steps import Log, Step
from tests.machine.fakes import ROOT, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_steps_run_in_order_of_their_needs_and_done_ones_do_not(tmp_path: Path) -> None:
    """What is done is left out; the rest runs as soon as it can."""
    out = tmp_path / "out"
    steps.run_all(
        [
            step("c", f"echo c >> {out}", "b"),
            step("b", f"echo b >> {out}", "a"),
            step("a", f"echo a >> {out}"),
            step("d", f"echo d >> {out}", done=True),
        ]
    )
    assert out.read_text() == "a\nb\nc\n"
    assert set(state.read()["durations_s"]) == {"a", "b", "c"}


def test_step_is_looked_at_again_once_its_needs_are_remade(tmp_path: Path) -> None:
    """Done before and not after, it runs; undone before and there after, it does not."""
    made, out = tmp_path / "made", tmp_path / "out"

    def says(name: str) -> Callable[[Log], None]:
        return lambda log: log.run(["sh", "-c", f"echo {name} >> {out}"])

    steps.run_all(
        [
            step("base", f"touch {made}"),
            Step("stale", "Stale", says("stale"), lambda: not made.exists(), ("base",)),
            Step("hidden", "Hidden", says("hidden"), made.exists, ("base",)),
        ]
    )
    assert out.read_text() == "stale\n"


def test_independent_steps_run_side_by_side(tmp_path: Path) -> None:
    """Two steps that wait for each other's file both end."""
    wait = "until [ -e {0} ]; do sleep 0.01; done"
    a, b = tmp_path / "a", tmp_path / "b"
    steps.run_all(
        [step("a", f"touch {a}; {wait.format(b)}"), step("b", f"touch {b}; {wait.format(a)}")]
    )


def test_failed_step_says_command_lines_log_and_next_step() -> None:
    """And what ran beside it is ended at once."""
    began = time.monotonic()
    with pytest.raises(StepError) as caught:
        steps.run_all(
            [step("bad", "sleep 0.2; echo the reason; exit 3"), step("slow", "exec sleep 60")]
        )
    assert time.monotonic() - began < 10
    text = str(caught.value)
    assert "ended with exit code 3" in text
    assert "  | the reason" in text
    assert str(place.home() / "logs/bad.log") in text
    assert "next: run it again: finished steps are kept" in text


@pytest.fixture
def download(tmp_path: Path) -> Iterator[tuple[Step, threading.Event]]:
    """A step that hangs in a download and then runs a command, and what ends its hanging."""
    comes = threading.Event()

    def run(log: Log) -> None:
        comes.wait(30)
        log.run(["touch", tmp_path / "started"])

    yield Step("download", "Download", run, lambda: False), comes
    comes.set()


def test_download_does_not_hold_up_a_failure(download: tuple[Step, threading.Event]) -> None:
    """A step that hangs in the network is left behind."""
    began = time.monotonic()
    with pytest.raises(StepError, match="`sh -c 'exit 3'` ended with exit code 3"):
        steps.run_all([download[0], step("bad", "exit 3")])
    assert time.monotonic() - began < 5


def test_no_command_starts_after_a_failure(
    download: tuple[Step, threading.Event], tmp_path: Path
) -> None:
    """The next command of a step that was downloading is not run."""
    with pytest.raises(StepError):
        steps.run_all([download[0], step("bad", "exit 3")])
    download[1].set()
    time.sleep(0.3)
    assert not (tmp_path / "started").exists()


def test_interrupt_ends_a_download_at_once() -> None:
    """Ctrl-C while an index sends nothing: 130 within a second or two, not after its deadline."""
    code = (
        "import signal, sys; sys.path.insert(0, 'ci')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in shell jobs
        "from engine import choose, command, place, steps, wheels\n"
        "wheel = {'url': sys.argv[1] + '/tool-1-py3-none-any.whl', 'hash': ''}\n"
        "place._locked = lambda: {'tool': {'version': '1', 'wheels': [wheel]}}\n"
        "step = steps.Step('x', 'X', lambda log: wheels.unpacked('tool'), lambda: False)\n"
        "choose.steps_for = choose._steps = lambda choice: [step]\n"
        "sys.exit(command.main(['setup', '--engine', 'tcp://127.0.0.1:9']))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = [sys.executable, "-c", code, f"http://127.0.0.1:{silent.getsockname()[1]}"]
        with subprocess.Popen(words, cwd=ROOT) as child:
            connection, _ = silent.accept()
            child.send_signal(signal.SIGINT)
            with connection:
                assert child.wait(timeout=5) == 130


@pytest.mark.parametrize(
    ("printed", "advice"),
    [
        ("write: No space left on device", "the disk is full"),
        ("dial tcp: lookup x: no such host", "a package registry could not be reached"),
    ],
)
def test_advice_follows_from_what_was_printed(printed: str, advice: str) -> None:
    """A full disk and a dead network are told apart from a broken build."""
    with pytest.raises(StepError) as caught:
        steps.run_all([step("bad", f"echo '{printed}'; exit 1")])
    assert advice in caught.value.advice


def test_missing_program_is_named() -> None:
    """No traceback: the program, and what to do."""

    def run(log: Log) -> None:
        log.run(["no-such-program", "x"])

    with pytest.raises(MachineError, match=r"cannot run `no-such-program`"):
        steps.run_all([Step("x", "X", run, lambda: False)])


def test_command_dies_with_its_parent(tmp_path: Path) -> None:
    """After `kill -9` of the tool nothing of it works on."""
    code = (
        "import sys; sys.path.insert(0, 'ci')\n"
        "from engine.steps import Log\n"
        "Log('x').run(['sh', '-c', 'echo $$ > %s; exec sleep 60'])\n" % (tmp_path / "pid")
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        parent.kill()
    child = Path("/proc") / (tmp_path / "pid").read_text().strip()
    end = time.monotonic() + 5
    while child.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not child.exists()


def test_broken_state_is_forgotten(home: Path) -> None:
    """A half-written file costs time, not the call."""
    place.write_whole(home / "state.json", "{")
    assert state.read() == {}
    state.remember(a=1)
    assert state.read() == {"a": 1}


def test_second_call_waits_visibly(capfd: pytest.CaptureFixture[str]) -> None:
    """Two calls at once work one after the other, and the second says why it waits."""
    order: list[str] = []

    def second() -> None:
        with state.alone():
            order.append("second")

    with state.alone():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "is at work (process" in capfd.readouterr().err


def test_what_a_killed_write_left_is_overwritten(home: Path) -> None:
    """A half-written file has one name, so that the next one takes it away."""
    place.write_whole(place.beside(home / "state.json"), "{")
    state.remember(a=1)
    assert [file.name for file in home.iterdir()] == ["state.json"]


def test_facts_of_steps_side_by_side_are_all_kept() -> None:
    """Twenty steps that end at once each leave their duration."""
    steps.run_all([step(f"s{number}", "true") for number in range(20)])
    assert len(state.read()["durations_s"]) == 20


def test_time_of_all_is_that_of_the_longest_chain() -> None:
    """Known durations count, usual ones stand in for unknown ones."""
    state.add("durations_s", a=50.0)
    chain = [step("a", "true"), step("b", "true", "a"), step("c", "true")]
    assert steps.longest_s(chain) == 51.0
    assert [steps.expectation(s) for s in chain[:2]] == ["last time 50.0 s", "about 1.0 s"]


def test_logs_are_for_nobody_else(home: Path) -> None:
    """What programs print may hold more than they meant to show; the folder may be there already."""
    (home / "logs").mkdir(parents=True, mode=0o755)
    Log("one")
    assert (home / "logs").stat().st_mode & 0o077 == 0


@pytest.mark.fault(30)
def test_passwords_in_urls_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a proxy, an index or an engine, in whatever is said."""
    screen.say("the engine at tcp://user:pass-word@host:1 (https://host:8080/a@b)")
    assert (
        capsys.readouterr().err == "the engine at tcp://user:***@host:1 (https://host:8080/a@b)\n"
    )
