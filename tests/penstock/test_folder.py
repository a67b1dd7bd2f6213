"""What is checked out may be a stranger's, links where we write included."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from penstock.errors import FolderError
from penstock.folder import make_private, remove_ways_out, write_whole
from penstock.reports.record import Record
from penstock.state import State, alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def generous() -> Iterator[None]:
    """A user whose files are everybody's to write."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of somebody else's, with a file in it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "keys").write_text("mine")
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("generous")
@pytest.mark.parametrize("is_there", [False, True])
def test_reports_and_memory_are_for_nobody_else(tmp_path: Path, *, is_there: bool) -> None:
    """New or not, whatever the umask."""
    for name in ("reports", ".penstock"):
        if is_there:
            (tmp_path / name).mkdir(mode=0o755)
    Record(tmp_path / "reports")
    State(tmp_path / ".penstock").save()
    assert [mode(tmp_path / name) for name in ("reports", ".penstock")] == [0o700, 0o700]


@pytest.mark.parametrize("name", ["reports", ".penstock"])
def test_folder_that_leads_elsewhere_is_refused(tmp_path: Path, elsewhere: Path, name: str) -> None:
    """Before anything is written there, and it is named."""
    (tmp_path / name).symlink_to(elsewhere)
    begin: dict[str, Callable[[], object]] = {
        "reports": lambda: Record(tmp_path / name),
        ".penstock": lambda: alone(tmp_path, tmp_path / "reports", print).__enter__(),
    }
    with pytest.raises(FolderError, match=rf"{name}: it is a link that leaves the project"):
        begin[name]()
    assert [path.name for path in elsewhere.iterdir()] == ["keys"]


def test_folder_may_be_a_link_within_the_project(tmp_path: Path) -> None:
    """Somebody's own order is respected."""
    (tmp_path / "out").mkdir()
    (tmp_path / "reports").symlink_to("out")
    Record(tmp_path / "reports")
    assert (tmp_path / "out/events.jsonl").exists()


@pytest.mark.parametrize("link", ["events.jsonl", "logs", "a/b", "run.json"])
def test_links_out_of_the_reports_are_removed(
    tmp_path: Path, elsewhere: Path, link: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a report is called, it is written below the reports folder."""
    path = tmp_path / "reports" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere / "keys" if "." in link else elsewhere)
    Record(tmp_path / "reports")
    assert not path.is_symlink()
    assert (elsewhere / "keys").read_text() == "mine"
    assert f"removed the link {path}" in caplog.text


def test_links_that_stay_are_left_alone(tmp_path: Path) -> None:
    """As long as they lead somewhere: a circle does not."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "circle").symlink_to("circle")
    remove_ways_out(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("name", ["state.json", "inputs.json", "lock", ".gitignore"])
def test_memory_writes_through_no_link(tmp_path: Path, elsewhere: Path, name: str) -> None:
    """It is replaced or refused; the file it leads to stays as it is."""
    make_private(tmp_path / ".penstock")
    (tmp_path / ".penstock" / name).symlink_to(elsewhere / "keys")
    try:
        with alone(tmp_path, tmp_path / "reports", print):
            state = State.load(tmp_path)
            state.inputs["a"] = {}
            state.save()
    except FolderError:
        assert name == "lock"
    assert (elsewhere / "keys").read_text() == "mine"


@pytest.mark.parametrize("link", ["reports", "reports/logs"])
def test_nothing_is_swept_behind_a_link(tmp_path: Path, elsewhere: Path, link: str) -> None:
    """What a killed run has left is looked for in the project only."""
    (elsewhere / f".mine.{'0' * 16}").touch()
    (tmp_path / ".penstock").mkdir()
    (tmp_path / ".penstock/lock").write_text("1")  # as a killed run leaves it
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(elsewhere)
    with alone(tmp_path, tmp_path / "reports", print):
        assert len(list(elsewhere.iterdir())) == 2


def test_words_in_the_lock_are_not_shown(tmp_path: Path) -> None:
    """Who is killed, or waited for, is a number."""
    (tmp_path / ".penstock").mkdir()
    (tmp_path / ".penstock/lock").write_text("\x1b[2J a stranger's words")
    said: list[str] = []
    with alone(tmp_path, tmp_path / "reports", said.append):
        assert said == []


def test_temporary_names_cannot_be_foreseen(tmp_path: Path) -> None:
    """Nobody can have put a link under the name that is written first."""
    written: list[str] = []

    class Seen(type(tmp_path)):  # type: ignore[misc]  # the class of paths of this system
        def replace(self, target: Path) -> Path:
            written.append(self.name)
            return Path(self).replace(target)

        def with_name(self, name: str) -> Path:
            return Seen(self.parent / name)

    for _ in range(2):
        write_whole(Seen(tmp_path / "a"), "x")
    assert len(set(written)) == 2
