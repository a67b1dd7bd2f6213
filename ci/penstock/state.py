"""What one run tells the next: which definitions passed here, what was rehearsed, how long it took.

Nothing in here is needed: a lost or broken file costs time, never a verdict.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Passed:
    """A command that passed on this engine.

    Args:
        definition: The engine's id of it.
        again: The value that had made the engine execute it again, if one was needed.
    """

    definition: str
    again: str = ""


@dataclass
class State:
    """The project's memory, one small file in `.penstock/`.

    Args:
        folder: Where it lies.
        passed: By stage.
        rehearsed: By image identity: the references that were pushed.
        durations_s: By stage, of the last time that it passed and was not taken from the cache.
        images: By stage: the images it is made from.
        failed: Stages of the last run that did not pass; absent before any.
    """

    folder: Path
    passed: dict[str, Passed] = field(default_factory=dict)
    rehearsed: dict[str, list[str]] = field(default_factory=dict)
    durations_s: dict[str, float] = field(default_factory=dict)
    images: dict[str, list[str]] = field(default_factory=dict)
    failed: list[str] | None = None

    @classmethod
    def load(cls, root: Path) -> State:
        """Read the project's memory; whatever cannot be read counts as forgotten."""
        folder = root / ".penstock"
        try:
            stored = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if stored["schema"] != SCHEMA:
                return cls(folder)
            passed = {name: Passed(**entry) for name, entry in stored["passed"].items()}
            stored = {f.name: stored[f.name] for f in fields(cls) if f.name != "folder"}
            return cls(folder, **stored | {"passed": passed})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(folder)

    def save(self) -> None:
        """Write the memory, whole or not at all."""
        content = {
            "schema": SCHEMA,
            "passed": {name: asdict(entry) for name, entry in self.passed.items()},
            "rehearsed": self.rehearsed,
            "durations_s": self.durations_s,
            "images": self.images,
            "failed": self.failed,
        }
        self.folder.mkdir(exist_ok=True)
        write_whole(self.folder / ".gitignore", "*\n")
        write_whole(self.folder / "state.json", to_json(content))


def to_json(content: Any) -> str:  # noqa: ANN401 - any value
    """Return readable JSON with a final newline."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old or the new one and nothing between."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
