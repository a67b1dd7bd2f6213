"""Files of the project, as containers get them."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.affected import HostFolder
from penstock.kinds import NAMES, PATTERNS, Kind, require
from penstock.place import calling_file, project_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import dagger

made: list[Source] = []  # in this process, for those that watch their files
SOME_PATTERNS = Kind(PATTERNS.words, lambda value: PATTERNS.holds(value) and bool(value))


@dataclass(frozen=True)
class Source:
    """Files of the project that a container gets, by an include list.

    Args:
        include: Patterns relative to the project's folder; an edit of any other file keeps the
            cache.
        exclude: Patterns left out again.
        root: The project's folder; by default the nearest folder above the file in which the
            source is written that holds `pyproject.toml` or `.git`.

    Example:
        >>> Source(include=["app", "pyproject.toml", "uv.lock"]).include
        ['app', 'pyproject.toml', 'uv.lock']
    """

    include: Sequence[str]
    _: KW_ONLY
    exclude: Sequence[str] = ("**/__pycache__", "**/*.pyc", "**/.*_cache")
    root: Path = field(default_factory=lambda: project_root(calling_file()))

    def __post_init__(self) -> None:
        """Refuse patterns that could match nothing; to the engine, no pattern means every file."""
        require(self, include=SOME_PATTERNS, exclude=NAMES)
        made.append(self)

    @property
    def folder(self) -> HostFolder:
        """What of this machine it is."""
        return HostFolder(self.root.absolute(), tuple(self.include), tuple(self.exclude))

    def directory(self) -> dagger.Directory:
        """Return the files as a Dagger directory (needs an open session)."""
        from dagger import dag

        return dag.host().directory(
            str(self.root), include=list(self.include), exclude=list(self.exclude)
        )


def look_again(number: Callable[[], int]) -> None:
    """Have the folders of this machine read anew in each round.

    The engine reads a folder once in a session. By a pattern that excludes nothing, and not by
    `no_cache`, as all stages of a round have to see the same files.
    """
    import dagger

    directory, file = dagger.Host.directory, dagger.Host.file

    def read_directory(
        self: dagger.Host,
        path: str,
        *,
        exclude: list[str] | None = None,
        **options: Any,  # noqa: ANN401 - the SDK's own
    ) -> dagger.Directory:
        mark = [f".penstock-round-{number()}"] if number() > 1 else []
        return directory(self, path, exclude=[*(exclude or ()), *mark], **options)

    def read_file(self: dagger.Host, path: str, *, no_cache: bool | None = False) -> dagger.File:
        return file(self, path, no_cache=bool(no_cache) or number() > 1)

    dagger.Host.directory = read_directory  # type: ignore[method-assign]  # no other way in
    dagger.Host.file = read_file  # type: ignore[method-assign]  # no other way in
