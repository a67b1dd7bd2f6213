"""Writes the published JSON Schemas: `PYTHONPATH=ci python -m tests.penstock.schemas`.

Fields that have a default are not required, and fields that are not described are allowed: a later
penstock may add some without another version.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

import penstock
from penstock import events, evidence, model
from penstock.reports import record
from penstock.state import to_json

if TYPE_CHECKING:
    from penstock.events import Event

FOLDER = Path(penstock.__file__).parent / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS: dict[str, type[Event]] = {name: kind for kind, name in events._NAMES.items()}


def schemas() -> dict[str, str]:
    """Return the text of each schema by the name of its file."""
    run = TypeAdapter(record.RunRecord).json_schema()
    run["$defs"]["RunRecord"] = {key: run.pop(key) for key in ("type", "properties", "required")}
    run["$ref"] = "#/$defs/RunRecord"
    line = TypeAdapter(reduce(or_, KINDS.values())).json_schema()
    line["oneOf"] = line.pop("anyOf")
    for name, kind in KINDS.items():
        _say(line["$defs"][kind.__name__], {"schema": events.SCHEMA, "event": name})
    _say(run["$defs"]["RunRecord"], {"schema": record.SCHEMA})
    return {
        "run-1.schema.json": _finished(run, record.SCHEMA, "The content of penstock's `run.json`."),
        "events-1.schema.json": _finished(
            line, events.SCHEMA, "A line of penstock's `events.jsonl`: something that happened."
        ),
    }


def _say(definition: dict[str, Any], constants: dict[str, str]) -> None:
    """Add what names the form; it is required."""
    said = {name: {"const": value} for name, value in constants.items()}
    definition["properties"] = definition["properties"] | said
    definition["required"] = [*constants, *definition.get("required", [])]


def _finished(schema: dict[str, Any], version: str, description: str) -> str:
    named = vars(record) | vars(events) | vars(model) | vars(evidence)
    for name, definition in schema["$defs"].items():
        _describe(definition, named[name])
    name, _, number = version.partition("/")
    head = {
        "$schema": DIALECT,
        "$id": f"urn:{name.replace('.', ':')}:{number}",
        "title": version,
        "description": description,
    }
    rest = {key: schema[key] for key in ("$ref", "oneOf", "$defs") if key in schema}
    return to_json(head | rest)


def _describe(definition: dict[str, Any], kind: type[Any]) -> None:
    """Take the words of the docstrings, and leave out what is never recorded."""
    words = inspect.getdoc(kind) or ""
    definition["description"] = re.split(r"\n+(?:Args|Attributes|Source):", words)[0]
    definition.pop("title", None)
    said = {name: text for base in reversed(kind.__mro__) for name, text in _arguments(base)}
    hidden = [f.name for f in _fields(kind) if not f.metadata.get("recorded", True)]
    properties = definition.get("properties", {})
    for name in hidden:
        del properties[name]
    for name, content in properties.items():
        content.pop("title", None)
        if name in said:
            content["description"] = said[name]


def _fields(kind: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _arguments(kind: type[Any]) -> list[tuple[str, str]]:
    """Return the names and words of a docstring's `Args`."""
    words = inspect.cleandoc(kind.__doc__ or "")
    found = re.search(r"^Args:\n((?: .*\n?|\n)*)", words, re.MULTILINE)
    lines = textwrap.dedent(found[1]).strip() if found else ""
    entries = re.findall(r"^(\w+): (.*(?:\n .*)*)", lines, re.MULTILINE)
    return [(name, " ".join(text.split())) for name, text in entries]


if __name__ == "__main__":
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
