from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest

from penstock import Pipeline, Secret
from penstock.cli import _parser, _plan, program
from penstock.events import RunStarted, Warned
from penstock.replay import read
from penstock.state import State, alone

ROOT = Path(__file__).parents[2]
# Nobody listens on the first TCP port, so the run begins and is at its end at once.
NO_ENGINE = "tcp://127.0.0.1:1"
PIPELINE = """
from penstock import Pipeline
pipeline = Pipeline("waiting")
@pipeline.stage
def wait(): ...
if __name__ == "__main__":
    raise SystemExit(pipeline.main())
"""


CACHE = "registry.example/team/cache"
DEFAULT_BRANCH = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main"}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests themselves were started with is not the pipelines' concern."""
    own = ("PENSTOCK_PROGRAM", "PENSTOCK_UNSET", "PENSTOCK_CACHE")
    for name in (*own, "_EXPERIMENTAL_DAGGER_RUNNER_HOST", "CI", "GITHUB_EVENT_NAME", "GITHUB_REF"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "argv", "expected"),
    [
        ({}, "", False),
        ({"PENSTOCK_CACHE": CACHE}, "", True),
        ({"PENSTOCK_CACHE": CACHE}, "--no-reuse", False),
        ({"PENSTOCK_CACHE": CACHE, "CI": "true"}, "", True),
        ({"PENSTOCK_CACHE": CACHE, **DEFAULT_BRANCH}, "", True),
        ({"PENSTOCK_CACHE": CACHE, "CI": "true", **DEFAULT_BRANCH}, "", False),
        ({"PENSTOCK_CACHE": CACHE, "CI": "true", **DEFAULT_BRANCH}, "--reuse", True),
    ],
)
def test_verdicts_are_reused_where_asked_and_by_default_not_for_what_is_released(
    small: Pipeline,
    variables: dict[str, str],
    argv: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _plan(small, _parser(small).parse_args(argv.split())).reuse is expected


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
        ("--rerun-failed", 2, "nothing ran here before"),
        ("--reuse", 2, "nothing is kept anywhere; name a repository in PENSTOCK_CACHE"),
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


@pytest.mark.fault(43)
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

    monkeypatch.setattr("penstock.line.open_session", broken)
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


@pytest.mark.fault(27)
def test_start_of_the_run_is_its_first_event(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is something to warn of: a record begins with it."""
    monkeypatch.setenv("PENSTOCK_PIN", "1234")

    @small.stage(secrets={"pin": Secret.env("PENSTOCK_PIN")})
    def unlock(pin: object) -> None: ...

    assert small.main(["--engine", NO_ENGINE, "--only", "unlock"]) == 4
    started, warned, *_ = read(small.root / "reports/events.jsonl")
    assert isinstance(started, RunStarted)
    assert isinstance(warned, Warned)
    assert "'pin' of stage 'unlock' is shorter than 6 bytes" in warned.message


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


@pytest.mark.fault(32)
def test_memory_that_cannot_be_written_leaves_the_exit_code_and_warns(
    small: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be written later on is said, and the run ends as it would have."""
    (small.root / ".penstock/state.json").mkdir(parents=True)
    assert small.main(["--engine", NO_ENGINE, "--only", "lint"]) == 4
    assert caplog.text.count("(Is a directory)") == 1
    assert json.loads((small.root / "reports/run.json").read_text())["exit_code"] == 4


def test_runs_that_never_were_are_left_out(small: Pipeline) -> None:
    """A memory with half a past is no reason to fail."""
    past = {"started_at": "t", "result": "success", "duration_s": 1.0, "commit": "c"}
    content = {"schema": 2, "passed": {}, "history": [{}, past, past | {"result": "fine"}]}
    (small.root / ".penstock").mkdir()
    (small.root / ".penstock/state.json").write_text(json.dumps(content))
    assert small.main(["--engine", NO_ENGINE, "--only", "lint"]) == 4
    first = (small.root / "reports/events.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["history"] == [past]


# Python leaves the pipe open when it is interrupted in the midst of opening it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_before_the_run_ends_it_in_words(
    small: Pipeline, number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is being done, reading a secret here, is given up at once."""
    pipe, is_over = small.root / "pipe", threading.Event()
    os.mkfifo(pipe)

    @small.stage(secrets={"token": Secret.file(str(pipe))})
    def wait(token: object) -> None: ...

    def interrupt() -> None:
        with pipe.open("w"):  # once it is being read
            os.kill(os.getpid(), number)
            is_over.wait(10)

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    assert small.main(["--only", "wait"]) == code
    assert capsys.readouterr() == ("", f"interrupted by {number.name}\n")
    is_over.set()
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_run_waits_for_the_first_and_can_be_interrupted(tmp_path: Path) -> None:
    """It names the process that works in the folder, and touches nothing meanwhile."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    with alone(tmp_path, tmp_path / "reports", print):
        child = subprocess.Popen(
            [sys.executable, "pipeline.py"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT / "ci")},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr
        words = f"another run (process {os.getpid()}) works in {tmp_path}: waiting for its end\n"
        assert child.stderr.readline() == words
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=10)[1] == "interrupted by SIGINT\n"
    assert child.returncode == 130
    assert not (tmp_path / "reports").exists()


def test_second_run_begins_when_the_first_has_ended(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It plans anew then: what failed in the first is known."""
    state, said = State.load(small.root), io.StringIO()
    state.failed = ["lint"]
    state.save()
    monkeypatch.setattr("sys.stderr", said)
    is_held = threading.Event()

    def first() -> None:
        with alone(small.root, small.root / "reports", print):
            is_held.set()
            while "waiting for its end" not in said.getvalue():
                time.sleep(0.01)
            state.failed = []
            state.save()

    threading.Thread(target=first, daemon=True).start()
    assert is_held.wait(10)
    assert small.main(["--rerun-failed", "--engine", NO_ENGINE]) == 5
    assert "none of them failed in the last run" in said.getvalue()


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "wait  Größe\n"), ("ascii", "wait  Gr\\xf6\\xdfe\n")]
)
def test_list_escapes_what_the_terminal_cannot_show(
    tmp_path: Path, encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A title of any language is no error."""
    pipeline = Pipeline("sizes", root=tmp_path)

    @pipeline.stage
    def wait() -> None:
        """Größe"""

    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    assert pipeline.main(["--list"]) == 0
    assert stream.buffer.getvalue().decode(encoding) == shown


def test_list_bears_a_closed_pipe(small: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--list | head -1` has what it wanted."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert small.main(["--list"]) == 0


def test_list_that_cannot_be_written_is_exit_2(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk is said, and not again when the stream is closed."""
    with open("/dev/full", "w", encoding="utf-8") as stream:  # noqa: PTH123 - no file of ours
        monkeypatch.setattr("sys.stdout", stream)
        assert small.main(["--list"]) == 2
    assert capsys.readouterr().err == "error: cannot print: No space left on device\n"


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


@pytest.mark.fault(40)
def test_last_record_cut_anywhere_is_explained_or_refused_in_words(
    small: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--explain` has the whole record or says that it cannot be read, `--rerun-failed` likewise."""
    (tmp_path / "reports").mkdir()
    run = {
        "started_at": "2026-11-25T01:00:00.000+00:00",
        "commit": "0f",
        "stages": [{"name": "lint", "result": "failure", "cached": False, "reason": "exit code 1"}],
    }
    record, whole = tmp_path / "reports/run.json", json.dumps(run).encode()
    record.write_bytes(whole)
    assert small.main(["--explain", "lint"]) == 0
    state = State.load(tmp_path)
    state.failed = ["lint"]
    state.save()
    memory = tmp_path / ".penstock/state.json"
    kept = memory.read_bytes()
    assert small.main(["--rerun-failed", "--list"]) == 0
    capsys.readouterr()
    for length in range(len(whole)):
        record.write_bytes(whole[:length])
        assert small.main(["--explain", "lint"]) == 2
        assert "run.json cannot be read; run the pipeline first" in capsys.readouterr().err
    for length in range(len(kept) - 1):
        memory.write_bytes(kept[:length])
        code = small.main(["--rerun-failed", "--list"])
        told = capsys.readouterr()
        assert code == 2, (length, told)
        assert "nothing ran here before; run without it first" in told.err


def test_run_beside_the_main_thread_is_refused_in_words(
    small: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signals come to the main thread only; what runs nothing needs none."""
    codes: list[int] = []
    for argv in ([], ["--list"]):
        thread = threading.Thread(target=lambda argv=argv: codes.append(small.main(argv)))
        thread.start()
        thread.join()
    assert codes == [2, 0]
    assert "to the main thread only: start it there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "other", [["--list"], ["--graph", "text"], ["--dry-run"], ["--explain", "lint"]]
)
def test_watch_and_what_runs_nothing_exclude_each_other(
    small: Pipeline, capsys: pytest.CaptureFixture[str], other: list[str]
) -> None:
    assert small.main(["--watch", *other]) == 2
    assert "error: --watch runs stages; --list, --graph," in capsys.readouterr().err


def test_watch_is_refused_in_ci(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would hold up the job for ever."""
    monkeypatch.setenv("CI", "true")
    assert small.main(["--watch", "--only", "lint"]) == 2
    assert "error: --watch has no end, and CI waits for one" in capsys.readouterr().err


def test_watch_names_the_extra_that_it_needs(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "")
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert small.main(["--watch", "--only", "lint"]) == 2
    words = "error: --watch needs the library `watchfiles`: pip install 'penstock[watch]'\n"
    assert capsys.readouterr().err == words


def test_watch_without_an_engine_waits_for_nothing(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "")
    assert small.main(["--watch", "--only", "lint", "--engine", NO_ENGINE]) == 4
    said = capsys.readouterr()
    assert "connection refused" in said.out
    assert "waiting" not in said.out + said.err


def test_watch_names_missing_secrets_before_anything_starts(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "")
    assert small.main(["--watch"]) == 2
    assert "takes the secret 'token', which has no value" in capsys.readouterr().err
