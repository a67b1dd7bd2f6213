"""`run.json` and `events.jsonl`: the run for machines."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from penstock.errors import FolderError
from penstock.events import (
    EngineConnected,
    Event,
    RunFinished,
    RunStarted,
    ServiceFailed,
    ServiceStarted,
    StageFinished,
    StagesAdded,
    plain,
    to_dict,
)
from penstock.export import remove
from penstock.state import to_json, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.model import Stage

logger = logging.getLogger(__name__)

SCHEMA = "penstock.run/1"
OWN_FILES = ("run.json", "events.jsonl")


class Record:
    """Writes each event as it comes, and the record of the run at its end.

    Args:
        folder: The reports folder.

    Raises:
        FolderError: When nothing can be written there. Later on, what cannot be written is warned
            of and left out: the result of a run does not depend on its record.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: Path | None = folder / "events.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            clear(folder)
            self._events.touch()
        except OSError as error:
            raise FolderError(folder, error) from error
        self._run: dict[str, Any] = {"schema": SCHEMA}
        self._stages: dict[str, dict[str, Any]] = {}
        self._services: dict[str, dict[str, Any]] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._append(event)
        match event:
            case RunStarted():
                self._run |= {
                    "pipeline": event.pipeline,
                    "run_id": event.run_id,
                    "commit": event.commit,
                    "started_at": event.started_at,
                }
                self._add(event.stages)
            case StagesAdded():
                self._add(event.stages)
            case EngineConnected():
                self._run["engine"] = event.version
            case ServiceStarted():
                self._services[event.service] = {"result": "success", "ready_s": event.duration_s}
            case ServiceFailed():
                self._services[event.service] = {"result": "error", "reason": event.reason}
            case StageFinished():
                self._stages[event.stage] |= plain(event.outcome)
            case RunFinished():
                self._finish(event)

    def _append(self, event: Event) -> None:
        if self._events is None:
            return
        line = json.dumps(to_dict(event), ensure_ascii=False)
        try:
            with self._events.open("a", encoding="utf-8", errors="backslashreplace") as lines:
                lines.write(f"{line}\n")
        except OSError as error:
            _warn(self._events, error)
            self._events = None  # a reader bears half a line at the end only

    def _add(self, stages: tuple[Stage, ...]) -> None:
        for stage in stages:
            self._stages[stage.name] = {
                "name": stage.name,
                "title": stage.title,
                "needs": list(stage.needs),
            }

    def _finish(self, event: RunFinished) -> None:
        self._run |= {
            "result": str(event.result),
            "exit_code": event.exit_code,
            "reason": event.reason,
            "root": event.root,
            "warnings": list(event.warnings),
            "duration_s": event.duration_s,
            "services": [{"name": name, **facts} for name, facts in self._services.items()],
            "stages": list(self._stages.values()),
        }
        path = self._folder / "run.json"
        try:
            write_whole(path, to_json(self._run))
        except OSError as error:
            _warn(path, error)


def _warn(path: Path, error: OSError) -> None:
    message = "WARNING: cannot write %s (%s); the run goes on, its record is incomplete"
    logger.warning(message, path, error.strerror)


def clear(folder: Path) -> None:
    """Delete what the last run left, as far as its record names it, and nothing else."""
    try:
        last = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        kept = [entry["path"] for stage in last["stages"] for entry in stage.get("artifacts", ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = []
    for path in [*kept, *OWN_FILES]:
        inside = folder / path
        if inside.resolve().is_relative_to(folder.resolve()):
            remove(inside)
