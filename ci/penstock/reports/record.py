"""`run.json` and `events.jsonl`: the run for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

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

SCHEMA = "penstock.run/1"
OWN_FILES = ("run.json", "events.jsonl")


class Record:
    """Writes each event as it comes, and the record of the run at its end.

    Args:
        folder: The reports folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        clear(folder)
        self._events = folder / "events.jsonl"
        self._run: dict[str, Any] = {"schema": SCHEMA}
        self._stages: dict[str, dict[str, Any]] = {}
        self._services: dict[str, dict[str, Any]] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        with self._events.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(to_dict(event), ensure_ascii=False) + "\n")
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
        write_whole(self._folder / "run.json", to_json(self._run))


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
