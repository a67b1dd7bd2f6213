from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from penstock import Pipeline, Secret
from penstock.cli import program
from penstock.state import State, alone

ROOT = Path(__file__).parents[2]
# Nobody listens on the first TCP port, so the run begins and is at its end at once.
NO_ENGINE = "tcp://127.0.0.1:1"
WAITING = """
from penstock import Pipeline, Secret
pipeline = Pipeline("waiting")
@pipeline.stage(secrets={"token": Secret.command("sh -c 'touch asked; sleep 60'")})
def wait(token): ...
if __name__ == "__main__":
    raise SystemExit(pipeline.main())
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests themselves were started with is not the pipelines' concern."""
    for name in ("PENSTOCK_PROGRAM", "PENSTOCK_UNSET", "_EXPERIMENTAL_DAGGER_RUNNER_HOST"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def small(tmp_path: Path) -> Pipeline:
    """A pipeline of its own folder."""
    pipeline = Pipeline("small", root=tmp_path)

    @pipeline.stage(tags=["fast"])
    def lint() -> None:
        """Lint"""

    @pipeline.stage(needs=[lint], matrix={"db": ["15", "16"]})
    def test(db: str) -> None: ...

    @pipeline.stage(needs=[test], secrets={"token": Secret.env("PENSTOCK_UNSET")})
    def push(token: object) -> None: ...

    return pipeline


def start(folder: Path, text: str = WAITING, *argv: str) -> subprocess.Popen[str]:
    (folder / "pipeline.py").write_text(text)
    return subprocess.Popen(
        [sys.executable, "pipeline.py", *argv],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "ci")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_list_prints_stages_in_order(small: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, titles and needs, and nothing runs."""
    assert small.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(small.check())
    assert not (small.root / ".penstock").exists()


@pytest.mark.parametrize("option", ["--list", "--dry-run"])
@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ("", "lint test[db=15] test[db=16] push"),
        ("--only lint", "lint"),
        ("--only test[db=15],lint", "lint test[db=15]"),
        ("--only lint --only test[db=16]", "lint test[db=16]"),
        ("--until test", "lint test[db=15] test[db=16]"),
        ("-k lint", "lint"),
        ("-t fast", "lint"),
        ("--rerun-failed", "lint test[db=16]"),
        ("--only test --until test[db=15] -t fast", ""),
    ],
)
def test_every_selection_goes_with_looking(
    small: Pipeline, option: str, argv: str, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is listed is what would run; nothing at all is exit 5."""
    state = State.load(small.root)
    state.failed = ["test[db=16]"]
    state.save()
    assert small.main([option, "--json", *argv.split()]) == (0 if names else 5)
    printed, said = capsys.readouterr()
    content = json.loads(printed or "[]")
    stages = content["stages"] if isinstance(content, dict) else content
    assert [stage["name"] for stage in stages] == names.split()
    assert ("no stage is selected" in said) == (not names)


def test_skipped_stages_are_said_to_be(small: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """What `--skip` leaves out stays in sight, with the reason."""
    assert small.main(["--dry-run", "--json", "--skip", "push"]) == 0
    assert list(json.loads(capsys.readouterr().out)["skipped"]) == ["push"]


def test_graph_is_drawn(small: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """Each format goes to standard output."""
    assert small.main(["--graph", "mermaid"]) == 0
    assert "lint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ("--only pusch", 2, "no stage is named 'pusch'; did you mean 'push'?"),
        ("--only push", 2, "'token', which has no value: set the environment variable"),
        ("--json", 2, "--json goes with --list or --dry-run"),
        ("--rerun-failed", 2, "nothing ran here before"),
        ("--only=", 5, "no stage is selected"),
        ("--until=", 5, "no stage is selected"),
    ],
)
def test_wrong_use_names_the_next_step(
    small: Pipeline, argv: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any engine is asked, the error says what to do, and on standard error."""
    assert small.main(argv.split()) == code
    printed, said = capsys.readouterr()
    assert (printed, said.startswith("error: ")) == ("", True)
    assert message in said


def test_nothing_to_rerun_is_exit_5(small: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """A green run leaves nothing to run again."""
    state = State.load(small.root)
    state.failed = []
    state.save()
    assert small.main(["--rerun-failed"]) == 5
    assert "none of them failed in the last run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("-j 0", "argument -j/--jobs: wants a whole number of at least 1, not '0'"),
        ("-j x", "argument -j/--jobs: wants a whole number of at least 1, not 'x'"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
    ],
)
def test_unreadable_options_are_exit_2(
    small: Pipeline, argv: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """argparse's own refusals have the same code, and words that a user knows."""
    with pytest.raises(SystemExit) as caught:
        small.main(argv.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_wrong_definition_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Definition errors are printed with their place."""
    pipeline = Pipeline("wrong")

    @pipeline.stage
    def lint(nothing: object) -> None: ...

    assert pipeline.main([]) == 2
    assert "test_cli.py:" in capsys.readouterr().err


def test_bug_of_ours_is_exit_3_and_leaks_nothing(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The traceback is shown, without the secret that stands in it."""
    monkeypatch.setenv("PENSTOCK_UNSET", "hunter2-hunter2")

    def broken(**_: object) -> NoReturn:
        message = "cannot do with hunter2-hunter2"
        raise RuntimeError(message)

    monkeypatch.setattr("penstock.run.open_session", broken)
    assert small.main([]) == 3
    said = capsys.readouterr().err
    assert "RuntimeError: cannot do with ***" in said
    assert "penstock itself failed, as shown above" in said


def test_no_engine_is_exit_4_and_says_so_once(
    small: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody listens, which the system knows at once; the stages name it, the end explains it."""
    began = time.monotonic()
    assert small.main(["--engine", NO_ENGINE, "--only", "lint"]) == 4
    assert time.monotonic() - began < 5
    shown = capsys.readouterr().out.splitlines()
    reason = f"cannot reach the Dagger engine {NO_ENGINE}: connection refused; does Docker run here"
    assert shown[0] == "Lint: SKIPPED (because there is no engine)"
    assert shown[-1].startswith(f"PIPELINE STOPPED ✗ ({reason}")
    assert reason in json.loads((small.root / "reports/run.json").read_text())["reason"]


def test_advice_names_the_command_where_it_is(
    small: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users of the wheel have no `python3 -m ci`; this repository has."""
    (small.root / "ci").mkdir()
    (small.root / "ci/__main__.py").touch()
    assert small.main(["--engine", "unix:///nowhere", "--only", "lint"]) == 4
    words = "unix:///nowhere: no such file or directory; `python3 -m ci doctor` says what is wrong"
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("name", ["reports", ".penstock"])
def test_folder_that_cannot_be_written_is_exit_2(
    small: Pipeline, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything runs, the path and the next step are named."""
    (small.root / name).write_text("a file")
    assert small.main(["--engine", NO_ENGINE, "--only", "lint"]) == 2
    assert f"cannot write the folder {small.root / name}: it is no folder; move it away" in (
        capsys.readouterr().err
    )


def test_full_disk_leaves_the_exit_code_and_warns(
    small: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be written later on is said, and the run ends as it would have."""
    (small.root / ".penstock").mkdir()
    (small.root / f".penstock/.state.json.{os.getpid()}").symlink_to("/dev/full")
    (small.root / "reports").mkdir()
    (small.root / "reports/events.jsonl").symlink_to("/dev/full")
    assert small.main(["--engine", NO_ENGINE, "--only", "lint"]) == 4
    assert caplog.text.count("(No space left on device)") == 2
    assert json.loads((small.root / "reports/run.json").read_text())["exit_code"] == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_before_the_run_ends_it_in_words(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Whatever is being done, reading a secret here, is given up at once."""
    child = start(tmp_path)
    until(tmp_path / "asked")
    child.send_signal(number)
    assert child.communicate(timeout=10) == ("", f"interrupted by {number.name}\n")
    assert child.returncode == code


def test_second_run_waits_for_the_first_and_can_be_interrupted(tmp_path: Path) -> None:
    """It names the process that works in the folder, and touches nothing meanwhile."""
    text = WAITING.replace("touch asked; sleep 60", "echo hunter2-hunter2")
    with alone(tmp_path, print):
        child = start(tmp_path, text)
        assert child.stderr
        words = f"another run (process {os.getpid()}) works in {tmp_path}: waiting for its end\n"
        assert child.stderr.readline() == words
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=10)[1] == "interrupted by SIGINT\n"
    assert child.returncode == 130
    assert not (tmp_path / "reports").exists()


def test_second_run_begins_when_the_first_has_ended(tmp_path: Path) -> None:
    """It plans anew then: what failed in the first is known."""
    text = WAITING.replace("touch asked; sleep 60", "echo hunter2-hunter2")
    state = State.load(tmp_path)
    state.failed = ["wait"]
    state.save()
    with alone(tmp_path, print):
        child = start(tmp_path, text, "--rerun-failed", "--engine", NO_ENGINE)
        assert child.stderr
        assert "waiting for its end" in child.stderr.readline()
        state.failed = []
        state.save()
    assert "none of them failed in the last run" in child.communicate(timeout=20)[1]
    assert child.returncode == 5


@pytest.mark.parametrize(
    ("encoding", "into", "shown"),
    [
        ("utf-8", "", "wait  Größe\nexit code 0\n"),
        ("ascii", "", "wait  Gr\\xf6\\xdfe\nexit code 0\n"),
        ("utf-8", "| true", "exit code 0\n"),
        ("utf-8", "> /dev/full", "exit code 2\nerror: cannot print: No space left on device\n"),
    ],
)
def test_list_bears_whatever_it_is_written_to(
    tmp_path: Path, encoding: str, into: str, shown: str
) -> None:
    """`--list | head` is no error, a title that the terminal cannot show is escaped."""
    text = WAITING.replace("(token): ...", "(token):\n    'Größe'")
    (tmp_path / "pipeline.py").write_text(text, encoding="utf-8")
    line = f'"{sys.executable}" pipeline.py --list {into}; echo "exit code ${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "ci"), "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout + done.stderr == shown


@pytest.mark.parametrize(
    ("variable", "file", "words"),
    [
        ("", "ci/main.py", "python ci/main.py"),
        ("", "my ci/main.py", "python 'my ci/main.py'"),
        ("python3 -m ci", "ci/main.py", "python3 -m ci"),
    ],
)
def test_program_is_what_the_user_typed(
    small: Pipeline, variable: str, file: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts the pipeline by other words says so in the environment."""
    monkeypatch.setenv("PENSTOCK_PROGRAM", variable)
    small.file = small.root / file
    assert program(small) == words


def test_list_does_not_import_dagger() -> None:
    """A list costs no second: the SDK is not even looked at."""
    code = (
        "import sys, runpy; sys.argv=['ci/main.py', '--list']\n"
        "try: runpy.run_path('ci/main.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "sys.exit('dagger' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "ci"}, check=False
    )
    assert done.returncode == 0
