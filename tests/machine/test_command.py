"""The verbs of `python3 -m ci`."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine import built, choose, command, state, venv
from tests.machine.fakes import ROOT, step

if TYPE_CHECKING:
    from tests.machine.fakes import Machine


@pytest.mark.parametrize("argv", [["nonsense"], ["engine"], ["engine", "fly"], ["setup", "--fast"]])
def test_wrong_verbs_are_exit_2(argv: list[str]) -> None:
    """And show what there is."""
    words = [sys.executable, "-m", "ci", *argv]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "python3 -m ci" in done.stderr


def test_help_is_short_and_needs_nothing() -> None:
    """No venv, no engine, no network."""
    words = [sys.executable, "-m", "ci", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines()) < 10) == (0, True)


def test_old_python_is_told_so(tmp_path: Path) -> None:
    """The entry's first lines are understood by Pythons long gone."""
    source = (ROOT / "ci/__main__.py").read_text()
    older = source.replace("sys.version_info <", "(3, 8) <").replace(
        "% sys.version_info[:2]", "% (3, 8)"
    )
    (tmp_path / "entry.py").write_text(older)
    done = subprocess.run(
        [sys.executable, tmp_path / "entry.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "this is Python 3.8 and `python3 -m ci` needs 3.11" in done.stderr


def test_interrupt_ends_a_set_up_with_130() -> None:
    """And says that nothing is lost."""
    code = (
        "import signal, sys, time; sys.path.insert(0, 'ci')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in shell jobs
        "from engine import choose, command\n"
        "def ensure(*_, **__): print('on', flush=True); time.sleep(60)\n"
        "choose.ensure = ensure\n"
        "sys.exit(command.main(['setup']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, shown = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "finished steps are kept" in shown


def test_status_without_docker_says_what_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    """Both containers by name, exit 4."""
    assert command.main(["engine", "status"]) == 4
    assert f"{built.container()} is not there" in capfd.readouterr().err


@pytest.mark.parametrize("argv", [["--list"], ["--graph=svg"], ["--json", "--dry-run"]])
def test_looking_needs_the_venv_only(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    """What runs nothing builds no engine."""
    done: list[str] = []
    monkeypatch.setattr(choose, "ensure", lambda *_, **__: pytest.fail("set up an engine"))
    monkeypatch.setattr(choose, "ensure_venv", lambda: done.append("venv"))
    monkeypatch.setattr(command, "_become", lambda words: done.extend(words[2:]))
    command.main(argv)
    assert done == ["venv", *argv]


@pytest.mark.parametrize(
    ("argv", "code"), [(["--bogus"], 2), (["--only", "tset"], 2), (["-k", "nothing-has-this"], 5)]
)
def test_wrong_arguments_are_refused_before_the_long_steps(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], code: int
) -> None:
    """By the pipeline itself, with its exit code, as soon as the venv is there."""
    monkeypatch.setattr(venv, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(venv, "step", lambda: step("venv", "true", done=True))
    monkeypatch.setattr(choose, "steps_for", lambda _choice: [step("go-build", "true")])
    monkeypatch.setattr(command, "_become", lambda _words: pytest.fail("ran the pipeline"))
    with pytest.raises(SystemExit) as caught:
        command.main([*argv, "--engine", "tcp://127.0.0.1:9"])
    assert caught.value.code == code
    assert "durations_s" not in state.read()


def test_programs_of_administrators_are_found_by_ordinary_users() -> None:
    """Debian leaves /usr/sbin, where dockerd lies, out of their PATH."""
    code = (
        "import os, runpy, sys\n"
        "sys.argv = ['ci', '--help']\n"
        "try: runpy.run_module('ci', run_name='__main__')\n"
        "except SystemExit: print(os.environ['PATH'])\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, cwd=ROOT, env={"PATH": "/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "/bin:/usr/sbin:/sbin"


def test_logs_without_docker_are_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which container, and who tells more."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert command.main(["engine", "logs"]) == 4
    assert f"error: there is no container {built.container()}" in capfd.readouterr().err


def test_prune_makes_no_engine(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without one there is nothing to prune."""
    machine.program("docker")
    monkeypatch.setattr(choose, "ensure", lambda *_, **__: pytest.fail("set up an engine"))
    assert command.main(["engine", "prune"]) == 0
    assert "no engine runs here" in capfd.readouterr().err
    assert machine.calls == []


def test_home_that_cannot_be_made_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which folder, and no traceback."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert command.main(["setup"]) == 4
    assert f"error: Not a directory ({tmp_path}/file/penstock)" in capfd.readouterr().err
