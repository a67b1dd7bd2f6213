"""The verbs of `python3 -m ci`."""

from __future__ import annotations

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
        "import sys, time; sys.path.insert(0, 'ci')\n"
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
