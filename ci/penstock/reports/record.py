"""`run.json` and `events.jsonl`: the run for machines."""

from __future__ import annotations

import dataclasses
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
)
from penstock.export import remove
from penstock.model import Artifact, Outcome
from penstock.state import to_json, write_whole

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "penstock.run/1"
EVENTS_SCHEMA = "penstock.events/1"
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
                self._stages = {
                    plan.name: {"name": plan.name, "title": plan.title, "needs": list(plan.needs)}
                    for plan in event.stages
                }
            case EngineConnected():
                self._run["engine"] = event.version
            case ServiceStarted():
                self._services[event.service] = {"result": "success", "ready_s": event.duration_s}
            case ServiceFailed():
                self._services[event.service] = {"result": "error", "reason": event.reason}
            case StageFinished():
                self._stages[event.stage] |= outcome_to_dict(event.outcome)
            case RunFinished():
                self._finish(event)

    def _finish(self, event: RunFinished) -> None:
        self._run |= {
            "result": str(event.result),
            "exit_code": event.exit_code,
            "reason": event.reason,
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


def to_dict(event: Event) -> dict[str, Any]:
    """Return the JSON form of an event."""
    name = type(event).__name__
    kind = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    content = {f.name: _plain(getattr(event, f.name)) for f in dataclasses.fields(event)}
    return {"schema": EVENTS_SCHEMA, "event": kind, **content}


def outcome_to_dict(outcome: Outcome) -> dict[str, Any]:
    """Return the JSON form of an outcome; the value it hands on is no part of it."""
    names = [f.name for f in dataclasses.fields(outcome) if f.name != "value"]
    return {name: _plain(getattr(outcome, name)) for name in names}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value
    match value:
        case Outcome():
            return outcome_to_dict(value)
        case Artifact():
            return dataclasses.asdict(value)
        case tuple():
            return [_plain(item) for item in value]
        case float():
            return round(value, 6)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
    return value
