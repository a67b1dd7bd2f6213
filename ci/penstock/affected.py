"""What a change of files affects: which folders are read by which stage, and what stands behind it."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from penstock.model import Stage


@dataclass(frozen=True)
class HostFolder:
    """Files of this machine that the engine is given, by the engine's rules for patterns.

    Args:
        path: Of the folder.
        include: Patterns relative to it; none means every file.
        exclude: Patterns left out again.

    Example:
        >>> from pathlib import Path
        >>> folder = HostFolder(Path("/shop"), ("app", "*.toml"), ("**/*.pyc",))
        >>> [folder.holds(Path("/shop", name)) for name in ("app/api/main.py", "app/main.pyc", "a/b.toml")]
        [True, False, False]
    """

    path: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def holds(self, file: Path) -> bool:
        """Return whether a file is, or was, one of them."""
        if not file.is_relative_to(self.path):
            return False
        name = file.relative_to(self.path).as_posix()
        return (not self.include or _match(name, self.include)) and not _match(name, self.exclude)


def _match(name: str, patterns: Sequence[str]) -> bool:
    """Return whether the last of the patterns that knows a path, or a folder above it, is for it."""
    parts = name.split("/")
    names = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    matched = False
    for pattern in patterns:
        if any(_pattern(pattern.removeprefix("!")).fullmatch(name) for name in names):
            matched = not pattern.startswith("!")
    return matched


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    """Return a pattern of the engine's as a regular expression: only `**` goes through folders."""
    text = "/".join(part for part in text.split("/") if part not in {"", "."}) or "**"
    words = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    pieces = re.findall(r"\*\*/|\*\*|[*?]|\[\^?[^\]]+\]|\\.|.", text, re.DOTALL)
    made = "".join(
        words.get(piece) or (piece if len(piece) > 1 else re.escape(piece)) for piece in pieces
    )
    return re.compile(made, re.DOTALL)


def affected(
    changed: AbstractSet[Path],
    stages: Mapping[str, Stage],
    reads: Mapping[str, Iterable[HostFolder]],
) -> set[str]:
    """Return the stages whose files changed, and those that stand behind one of them.

    A stage of which nobody knows yet what it reads counts as one whose files changed.
    """
    found = {
        name
        for name in stages
        if name not in reads or any(f.holds(file) for f in reads[name] for file in changed)
    }
    before = -1
    while len(found) > before:
        before = len(found)
        found |= {name for name, stage in stages.items() if found.intersection(stage.needs)}
    return found


def goes_on(
    running: AbstractSet[str], outdated: AbstractSet[str], holds: Mapping[str, AbstractSet[str]]
) -> set[str]:
    """Return the running stages that can go on while all others begin anew.

    Not one that shares a service or a lock with another: it would be stopped under its feet, or
    hold what that one wrote.

    Args:
        running: Stages at work.
        outdated: Those that a change affects.
        holds: What each stage of the run has for itself, or shares.
    """
    kept = set(running - outdated)
    while True:
        needed = {what for name, its in holds.items() if name not in kept for what in its}
        lost = {name for name in kept if holds[name] & needed}
        if not lost:
            return kept
        kept -= lost
