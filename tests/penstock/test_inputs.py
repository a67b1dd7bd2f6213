"""Why a stage ran: what it is made from, compared with the last time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from dagger import dag

from penstock import Command, Pipeline, Service
from penstock.config import RunInfo
from penstock.execute import Executor
from penstock.inputs import digest, images, inputs, why
from penstock.live import Live
from penstock.redact import Redactor
from penstock.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from dagger import Container


def box(root: Path, *, tag: str = "3.11", mode: str = "a", run: str = "make") -> Container:
    files = dag.host().directory(str(root), include=["app"], exclude=["**/*.pyc", "**/.cache"])
    return (
        dag.container()
        .from_(f"python:{tag}")
        .with_exec(run.split())
        .with_env_variable("MODE", mode)
        .with_directory("/src", files.directory("app"))
        .with_new_file("/etc/conf", mode)
        .with_secret_variable("TOKEN", dag.set_secret("token", "hunter2-hunter2"))
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with three files, two of which the engine is given."""
    (tmp_path / "app/.cache").mkdir(parents=True)
    for name in ("app/main.py", "app/util.py", "app/main.pyc", "app/.cache/x", "README.md"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_container_is_made_from_files_images_commands_and_variables(root: Path) -> None:
    """Each is named as its author knows it; what is left out of a source is no input."""
    found = inputs(box(root))
    assert {what for what in found if what.startswith(("file", "image", "command", "var"))} == {
        "file app/main.py",
        "file app/util.py",
        "file /etc/conf (written)",
        "image python:3.11",
        "command `make`",
        "variable MODE",
    }
    assert images(found) == ["python:3.11"]


def test_service_is_part_of_its_command(root: Path) -> None:
    """With its own name before each of its inputs."""
    db = Service(container=dag.container().from_("postgres:15"), port=5432, name="db")
    found = inputs(Command(box(root), "pytest -q", services=[db], env={"CI": "1"}))
    assert {"db: image postgres:15", "db: settings", "command `pytest -q`", "variable CI"} <= {
        *found
    }
    assert images(found) == ["postgres:15", "python:3.11"]


def test_no_value_stands_among_the_inputs(root: Path) -> None:
    """Digests tell what changed as well, and a secret is not even digested."""
    found = inputs(box(root, mode="very-private"))
    assert "very-private" not in str(found)
    assert not [what for what in found if "ecret" in what]
    assert found.keys() == inputs(box(root)).keys()


@pytest.mark.parametrize("pattern", ["**.py", "/app/*.py", "app/**.py"])
def test_pattern_of_the_engine_is_none_that_fails_here(root: Path, pattern: str) -> None:
    """Python's own globs know less than the engine's; what only explains must not fail a run."""
    found = inputs(dag.host().directory(str(root), include=[pattern, ""]))
    assert {*found} == {"file app/main.py", "file app/util.py"}


def test_words_of_a_command_are_neither_image_nor_file() -> None:
    """Kinds are told by how an input begins."""
    now = {"command `docker image ls`": "", "command `cat file x`": "", "db: image postgres:15": ""}
    assert images(now) == ["postgres:15"]
    assert why(now, now, cached=True) == ["the same 0 files and 3 other inputs as when it passed"]


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"mode": "b"}, ["variable MODE changed", "file /etc/conf (written) changed"]),
        ({"tag": "3.12"}, ["image python:3.12 is new", "image python:3.11 is gone"]),
        ({"run": "make all"}, ["command `make all` is new", "command `make` is gone"]),
        ({}, ["nothing of its own changed: the engine had its result no more"]),
    ],
)
def test_reason_names_what_changed(root: Path, change: dict[str, str], reasons: list[str]) -> None:
    """By kind and name."""
    assert why(inputs(box(root)), inputs(box(root, **change)), cached=False) == reasons


def test_changed_file_is_named(root: Path) -> None:
    """So are a new and a deleted one."""
    before = inputs(box(root))
    (root / "app/main.py").write_text("other")
    (root / "app/new.py").touch()
    (root / "app/util.py").unlink()
    assert why(before, inputs(box(root)), cached=False) == [
        "file app/main.py changed",
        "file app/new.py is new",
        "file app/util.py is gone",
    ]


def test_reasons_are_few() -> None:
    """A thousand changed files are not a thousand lines."""
    now = {f"file {number}": digest(number) for number in range(1000)}
    reasons = why({}, now, cached=False)
    assert len(reasons) == 9
    assert reasons[-1] == "and 992 more"


def test_what_is_not_known_is_said() -> None:
    """The first time there is nothing to compare with; a cached stage has nothing that changed."""
    assert why(None, {}, cached=False) == ["it has not passed here before"]
    now = {"file a": "", "image b": ""}
    assert why(now, now, cached=True) == ["the same 1 files and 1 other inputs as when it passed"]


def test_file_that_cannot_be_read_is_an_input_too(root: Path) -> None:
    """It explains; it must not fail a run."""
    single = dag.host().file(str(root / "README.md"))
    (root / "app/main.py").unlink()
    (root / "app/main.py").symlink_to("/proc/self/mem")
    found = inputs([box(root).with_file("/x", single), {"k": None}])
    assert {"file README.md", "file app/main.py"} <= {*found}


async def test_what_is_remembered_holds_no_secret(root: Path) -> None:
    """A word of a command may be one; it is kept on disk until the next run."""
    pipeline = Pipeline("demo", root=root)

    @pipeline.stage
    async def enter() -> list[Container]:
        return [dag.container().with_exec(["login", "hunter2-hunter2"])]

    redactor, state = Redactor(), State(root)
    redactor.add("hunter2-hunter2")
    run = RunInfo(id="0f", root=root, commit="", branch="")
    live = Live(run.id, lambda _: None, redactor)
    nothing: Any = None  # of the engine is asked
    stages = pipeline.check()
    executor = Executor(pipeline, stages, run, nothing, state, redactor, live, {})
    outcome = await executor(stages["enter"], {}, attempt=1, deadline_s=5, tried=lambda *_: None)
    assert outcome.passed
    assert {*state.inputs["enter"]} == {"command `login ***`"}
