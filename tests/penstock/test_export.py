from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pytest

from penstock import Coverage, JUnit, Report
from penstock.export import Measured, export, forget, remove
from penstock.redact import Redactor

REPORTS = [Report("out")]
NAMES = ("x", "x.masked", "n" * 255)


class Exported:
    """A directory of the engine's, each file of which holds a secret."""

    def filter(self, **_: object) -> Self:
        return self

    async def export(self, path: str) -> None:
        for name in NAMES:
            (Path(path) / "out" / name).parent.mkdir(exist_ok=True)
            (Path(path) / "out" / name).write_text(f"{name}: hunter2-hunter2")


async def test_files_of_any_name_are_kept_without_secrets(tmp_path: Path) -> None:
    """One that is called as another one's copy might be, and the longest."""
    directory: Any = Exported()
    redactor = Redactor()
    redactor.add("hunter2-hunter2")
    await export(
        directory, REPORTS, tmp_path, folder=tmp_path, redactor=redactor, measured=Measured()
    )
    kept = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert kept == {name: f"{name}: ***" for name in NAMES}


async def test_file_with_a_secret_in_its_name_is_left_out(tmp_path: Path) -> None:
    """What is said of it has a mask in that place; a folder goes with all that is in it."""

    class Named(Exported):
        async def export(self, path: str) -> None:
            for name in ("out/a", "out/hunter2-hunter2.txt", "out/2retnuh-2retnuh/b"):
                (Path(path) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(path) / name).touch()

    directory: Any = Named()
    redactor = Redactor()
    redactor.add("hunter2-hunter2")
    kept, remarks = await export(
        directory, REPORTS, tmp_path, folder=tmp_path, redactor=redactor, measured=Measured()
    )
    assert [path.name for path in kept] == ["a"]
    words = "a secret is in its name"
    assert sorted(remarks) == [f"left out out/***.txt: {words}", f"left out out/***: {words}"]


def test_forgotten_reports_are_gone_and_others_stay(tmp_path: Path) -> None:
    """What an earlier run kept of these very reports is deleted, and nothing else."""
    (tmp_path / "html").mkdir()
    for name in ("c.xml", "html/index.html", "other.txt"):
        (tmp_path / name).write_text("x")
    forget([Coverage("c.xml", html="html"), Report("absent")], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


@pytest.mark.parametrize("path", ["/etc", "../up", "a/../../up", ".", "", "./"])
@pytest.mark.parametrize("kind", [Report, JUnit, Coverage])
def test_report_outside_the_working_directory_is_refused(kind: type[Report], path: str) -> None:
    """Its path is a path on the host too, where it must reach nothing else."""
    with pytest.raises(ValueError, match="leaves the working directory"):
        kind(path)


def test_remove_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    """Removing twice is no error, and a link is removed instead of followed."""
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(folder)
    for path in (link, tmp_path / "absent"):
        remove(path)
    assert folder.exists()
    remove(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "x", "12 \n", "99999999999999999999999 1 ", "\n\n/etc/passwd"]
)
def test_measure_that_was_written_over_is_no_error(text: str) -> None:
    """A child that a command left may have done so; sizes are unknown then."""
    assert Measured.read(text, REPORTS).sizes == {}


@pytest.mark.fault(46)
async def test_names_of_sockets_reach_nothing_else(tmp_path: Path) -> None:
    """They come from the container, where a name can be anything."""
    (tmp_path / "other").touch()
    directory: Any = Exported()
    told = Measured(sockets={"../other", str(tmp_path / "other"), "out/x"})
    kept, remarks = await export(
        directory, REPORTS, tmp_path, folder=tmp_path, redactor=Redactor(), measured=told
    )
    assert (tmp_path / "other").exists()
    assert sorted(path.name for path in kept) == ["n" * 255, "x.masked"]
    assert remarks == ["left out out/x: no regular file"]


async def test_what_cannot_be_read_is_made_readable(tmp_path: Path) -> None:
    """Modes of the container are not ours."""

    class Locked(Exported):
        async def export(self, path: str) -> None:
            await super().export(path)
            for name, mode in (("out/x", 0), ("out", 0o300)):
                (Path(path) / name).chmod(mode)

    directory: Any = Locked()
    await export(
        directory, REPORTS, tmp_path, folder=tmp_path, redactor=Redactor(), measured=Measured()
    )
    assert all(path.stat().st_mode & 0o400 for path in (tmp_path / "out").rglob("*"))
    assert (tmp_path / "out").stat().st_mode & 0o500 == 0o500
