"""Reports: out of the container, whole or not at all, regular files only, without secrets."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync

from penstock.redact import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import dagger

    from penstock.model import Report
    from penstock.redact import Redactor

FULL_BYTES = 1 << 20  # a disk with less room is full


async def export(
    files: dagger.Directory,
    reports: Sequence[Report],
    into: Path,
    *,
    folder: Path,
    redactor: Redactor,
) -> tuple[list[Path], list[str]]:
    """Copy the declared reports of a stage into the reports folder.

    Args:
        files: The container's working directory after the command.
        reports: What the stage declared.
        into: Where the stage's reports go.
        folder: The reports folder, above it or the same.
        redactor: Masks the secrets in what is kept.

    Returns:
        The files that are there now, and what people should know: declared paths that are missing,
        and entries left out because they are no regular files or have a secret in their name.

    Raises:
        OSError: When they cannot be written here.
    """
    paths = [path for report in reports for path in report.paths]
    into.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local folder, microseconds
    with tempfile.TemporaryDirectory(
        prefix=".incoming-", dir=folder, ignore_cleanup_errors=True
    ) as incoming:
        beside = Path(incoming)
        include = [pattern for path in paths for pattern in (path, f"{path}/**")]
        try:
            await files.filter(include=include).export(incoming)
        except Exception as error:  # of the SDK, whose error does not tell whose disk is full
            if shutil.disk_usage(folder).free < FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(into)) from error
            raise
        remarks = [f"left out {name}: no regular file" for name in _drop_irregular(beside)]
        remarks += [f"left out {name}: a secret is in its name" for name in _drop(beside, redactor)]
        remarks += [f"{path} is missing" for path in paths if not (beside / path).exists()]
        if redactor.knows_any:
            for file in _files(beside):
                await run_sync(_mask, file, redactor)
        for path in paths:
            if (beside / path).exists():
                (into / path).parent.mkdir(parents=True, exist_ok=True)
                remove(into / path)
                (beside / path).rename(into / path)
    return [file for path in paths for file in _files(into / path)], remarks


def _mask(file: Path, redactor: Redactor) -> None:
    """Mask the secrets in a file, in pieces, whatever its size; other bytes stay as they are."""
    masker = redactor.stream()
    beside = file.with_name(f".{os.urandom(8).hex()}")  # no name that a tool gives
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


def _drop(folder: Path, redactor: Redactor) -> Iterator[str]:
    """Delete what has a secret in its name; what remains of the name is yielded."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (shown := redactor.mask(name)) != name and path.exists():
            remove(path)
            yield shown


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


def _files(top: Path) -> list[Path]:
    """Return a file itself, or all that lie in a folder."""
    return [path for path in (top, *sorted(top.rglob("*"))) if path.is_file()]
