"""Reports: out of the container, whole or not at all, regular files only, without secrets."""

from __future__ import annotations

import errno
import math
import os
import re
import shlex
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync

from penstock.redact import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import dagger

    from penstock.model import Report
    from penstock.redact import Redactor

FULL_BYTES = 1 << 20  # a disk with less room is full
# In bytes and in blocks of 1 KiB: of those a sparse file has few, and small files have more. Sockets
# are named here, as the engine exports them as empty files.
MEASURE = (
    'du() { timeout 20 du "-s$1" "$2" | { read -r size _; printf "%s " "${size:-0}"; }; }; '
    'for path in PATHS; do du b "$path"; du k "$path"; echo; done; find PATHS -type s'
)
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Measured:
    """What the reports of a command were before their export.

    Args:
        sizes: Bytes by declared path; 0 where it is missing, or the image has nothing to measure by.
        sockets: Paths of the sockets among them.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    sockets: AbstractSet[str] = frozenset()

    @classmethod
    def read(cls, text: str, reports: Sequence[Report]) -> Measured:
        """Read what `measure` had the container say."""
        paths = [path for report in reports for path in report.paths]
        lines = text.split("\n")
        # What a command left running may have written here too: whatever it is, it is no error.
        sizes = [re.fullmatch(r"(\d{1,18}) (\d{1,18}) ", line) for line in lines[: len(paths)]]
        return cls(
            {p: max(int(n[1]), int(n[2]) << 10) for p, n in zip(paths, sizes, strict=False) if n},
            frozenset(line.removeprefix("./") for line in lines[len(paths) :]),
        )


def measure(paths: Sequence[str]) -> str:
    """Return the words for a shell that measure reports, in a few milliseconds; none without."""
    return MEASURE.replace("PATHS", shlex.join(f"./{path}" for path in paths)) if paths else ":"


async def export(
    files: dagger.Directory,
    reports: Sequence[Report],
    into: Path,
    *,
    folder: Path,
    redactor: Redactor,
    measured: Measured,
) -> tuple[list[Path], list[str]]:
    """Copy the declared reports of a stage into the reports folder.

    Args:
        files: The container's working directory after the command.
        reports: What the stage declared.
        into: Where the stage's reports go.
        folder: The reports folder, above it or the same.
        redactor: Masks the secrets in what is kept.
        measured: Tells what is too large to be kept.

    Returns:
        The files that are there now, and what people should know: declared paths that are missing,
        and what was left out: entries that are no regular files or have a secret in their name, and
        whole paths that are too large.

    Raises:
        OSError: When they cannot be written here.
    """
    bounds = {path: report.most_bytes for report in reports for path in report.paths}
    sizes = {path: measured.sizes.get(path, 0) for path in bounds}
    paths = [path for path, most in bounds.items() if sizes[path] <= most]
    too_large = [
        f"left out {path}: {_words(sizes[path])}, which is more than its {_words(most)}; raise "
        f"`most_bytes` of this report, or write less"
        for path, most in bounds.items()
        if path not in paths
    ]
    into.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local folder, microseconds
    with tempfile.TemporaryDirectory(
        prefix=".incoming-", dir=folder, ignore_cleanup_errors=True
    ) as incoming:
        beside = Path(incoming)
        include = [pattern for path in paths for pattern in (path, f"{path}/**")]
        try:
            if include:  # nothing at all would mean everything
                await files.filter(include=include).export(incoming)
        except Exception as error:  # of the SDK, whose error does not tell whose disk is full
            if shutil.disk_usage(folder).free < FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(into)) from error
            raise
        _open_up(beside)
        irregular = list(_drop_irregular(beside, measured.sockets))
        remarks = [f"left out {name}: no regular file" for name in irregular]
        remarks += [f"left out {name}: a secret is in its name" for name in _drop(beside, redactor)]
        remarks += [
            *too_large,
            *(
                f"{path} is missing"
                for path in paths
                if path not in irregular and not (beside / path).exists()
            ),
        ]
        if redactor.knows_any:
            for file in _files(beside):
                await run_sync(_mask, file, redactor)
        for path in paths:
            if (beside / path).exists():
                (into / path).parent.mkdir(parents=True, exist_ok=True)
                remove(into / path)
                (beside / path).rename(into / path)
    return [file for path in bounds for file in _files(into / path)], remarks


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


def _words(size: float) -> str:
    """Return a size in bytes as people say it."""
    power = min(int(math.log2(max(size, 1)) // 10), len(UNITS) - 1)
    return f"{size / 1024**power:.3g} {UNITS[power]}"


def _open_up(folder: Path) -> None:
    """Make all readable to ourselves, whatever modes the files had in the container."""
    for place, folders, files in os.walk(folder):  # which comes to a folder after its mode is set
        for name in folders + files:
            path = Path(place, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o700 if path.is_dir() else 0o600))


def _drop_irregular(folder: Path, sockets: AbstractSet[str]) -> Iterator[str]:
    """Delete links, pipes and sockets; a reader of the reports must never follow or hang on one."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_regular = (path.is_file() and name not in sockets) or path.is_dir()
        if path.is_symlink() or not is_regular:
            path.unlink()
            yield name


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
