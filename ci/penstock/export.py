"""Reports: out of the container, whole or not at all, regular files only, without secrets."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.model import Artifact, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import dagger

    from penstock.redact import Redactor


PIECE = 1 << 20  # characters


async def export(
    files: dagger.Directory,
    reports: Sequence[Report],
    into: Path,
    *,
    folder: Path,
    redactor: Redactor,
) -> tuple[list[Artifact], list[str]]:
    """Copy the declared reports of a stage into the reports folder.

    Args:
        files: The container's working directory after the command.
        reports: What the stage declared.
        into: Where the stage's reports go.
        folder: The reports folder, above it or the same; what is kept is named relative to it.
        redactor: Masks the secrets in what is kept.

    Returns:
        What is there now, and what people should know: declared paths that are missing, and
        entries left out because they are no regular files.
    """
    paths = [path for report in reports for path in report.paths]
    into.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local folder, microseconds
    beside = Path(tempfile.mkdtemp(prefix=".incoming-", dir=folder))
    try:
        include = [pattern for path in paths for pattern in (path, f"{path}/**")]
        await files.filter(include=include).export(str(beside))
        remarks = [f"left out {name}: no regular file" for name in _drop_irregular(beside)]
        remarks += [f"{path} is missing" for path in paths if not (beside / path).exists()]
        _mask_all(beside, redactor)
        for path in paths:
            if (beside / path).exists():
                _move(beside / path, into / path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return list(_artifacts(into, folder, paths)), remarks


def _mask_all(folder: Path, redactor: Redactor) -> None:
    if redactor.knows_any:
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            _mask(file, redactor)


def _mask(file: Path, redactor: Redactor) -> None:
    """Mask the secrets in a file, in pieces, whatever its size; other bytes stay as they are."""
    masker = redactor.stream()
    beside = file.with_name(f"{file.name}.masked")
    lossless = partial(Path.open, encoding="utf-8", errors="surrogateescape", newline="")
    with lossless(file) as source, lossless(beside, "w") as target:
        while piece := source.read(PIECE):
            target.write(masker.feed(piece))
        target.write(masker.flush())
    beside.replace(file)


def _drop_irregular(folder: Path) -> Iterator[str]:
    """Delete links, pipes and sockets; a reader of the reports must never follow or hang on one."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            path.unlink()
            yield path.relative_to(folder).as_posix()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    source.rename(target)


def forget(reports: Iterable[Report], into: Path) -> None:
    """Delete what an earlier run kept of these reports: it must never pass for this run's."""
    for report in reports:
        for path in report.paths:
            remove(into / path)


def remove(path: Path) -> None:
    """Delete a file or a folder; one that is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def _artifacts(into: Path, folder: Path, paths: Iterable[str]) -> Iterator[Artifact]:
    for path in paths:
        top = into / path
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for file in files:
            if file.is_file():
                yield Artifact(file.relative_to(folder).as_posix(), file.stat().st_size)
