from __future__ import annotations

import json
import os
import time
from pathlib import Path

import anyio
import pytest
from watchfiles import Change

from penstock import changes, source
from penstock.changes import Changes


def told(root: Path, *names: str, change: Change = Change.modified) -> list[tuple[Change, str]]:
    return [(change, str(root / name)) for name in names]


async def found(watched: Changes) -> set[Path]:
    with anyio.move_on_after(0.05):
        return await watched.some()
    return set()


@pytest.mark.parametrize(
    "name",
    [
        "reports/index.html",
        ".penstock/state.json",
        ".git/HEAD",
        "app/__pycache__/main.cpython-311.pyc",
        "app/.main.py.swp",
        "app/main.py~",
        "app/#main.py#",
        "app/.#main.py",
        "app/4913",
        "app/sedXk29aB",
    ],
)
async def test_what_tools_write_is_no_change(tmp_path: Path, name: str) -> None:
    watched = Changes(tmp_path)
    watched.add(told(tmp_path, name))
    assert await found(watched) == set()


@pytest.mark.parametrize("name", ["app/main.py", "app/reports/x.py", "docs/.env", "README"])
async def test_what_people_write_is_a_change(tmp_path: Path, name: str) -> None:
    watched = Changes(tmp_path)
    watched.add(told(tmp_path, name))
    assert await found(watched) == {tmp_path / name}


async def test_project_below_an_ignored_name_is_watched(tmp_path: Path) -> None:
    """Only what lies in the project is judged by its name."""
    root = tmp_path / ".venv" / "shop"
    watched = Changes(root)
    watched.add(told(root, "app.py"))
    assert await found(watched) == {root / "app.py"}


async def test_file_that_came_and_went_is_no_change(tmp_path: Path) -> None:
    """Editors write another file first, and rename it."""
    (tmp_path / "main.py").touch()
    watched = Changes(tmp_path)
    watched.add(told(tmp_path, "main.py", "main.py.tmp123", change=Change.added))
    watched.add(told(tmp_path, "gone.py", change=Change.deleted))
    assert await found(watched) == {tmp_path / "main.py", tmp_path / "gone.py"}
    assert await found(watched) == set()


async def test_burst_of_changes_is_told_once(tmp_path: Path) -> None:
    """As a checkout of many files makes it."""
    watched = Changes(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched.follow)
        await anyio.sleep(0.3)
        for number in range(50):
            (tmp_path / f"{number}.py").write_text("x")
        some = await watched.some()
        assert len(some) == 50
        assert await found(watched) == set()
        tasks.cancel_scope.cancel()


async def test_system_that_cannot_tell_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Changes(tmp_path / "nowhere")
    monkeypatch.setattr(changes, "_folders", lambda _files: set())
    monkeypatch.setattr(source, "made", [])
    await watched.follow()
    assert await watched.some() == set()
    assert watched.error.startswith(f"cannot watch {tmp_path / 'nowhere'}: ")
    assert "fs.inotify.max_user_watches" in watched.error


@pytest.mark.parametrize(("written_s", "is_found"), [(-60, False), (-1, True), (60, False)])
def test_definition_that_was_written_after_it_was_read_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_s: float, *, is_found: bool
) -> None:
    """Before anything watched it; a time to come is of another clock."""
    file = tmp_path / "pipeline.py"
    file.touch()
    os.utime(file, (time.time() + written_s,) * 2)
    monkeypatch.setattr(changes, "LOADED_AT", time.time() - 10)
    monkeypatch.setattr(changes, "definition", lambda: {file, tmp_path / "gone.py"})
    assert Changes(tmp_path).take() == ({file} if is_found else set())


def test_words_name_three_files(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("d.py", "a.py", "c.py", "b.py")]
    assert Changes(tmp_path).shown(names) == "a.py, b.py, c.py and 1 more changed"


def test_definition_is_the_authors_code_only() -> None:
    """What is installed changes when somebody installs it."""
    files = changes.definition()
    assert Path(changes.__file__) in files
    assert not files.intersection(map(Path, (anyio.__file__, json.__file__)))
