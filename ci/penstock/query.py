"""What the SDK has built up of a query, kept before it forgets.

Where a step was given another object, the SDK puts that object's id in its place as soon as it has
asked the engine for it, and an id is a number of this engine's that tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.model import Command, Service


@dataclass
class Queries:
    """The queries of one run, as their authors wrote them."""

    _known: dict[int, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)

    def given(self, step: Any) -> dict[str, Any]:  # noqa: ANN401 - a class of the SDK's own
        """Return what a step of a query was given, as it was when it was first seen."""
        mine = step.args  # one dict, whatever queries go on from this step
        if id(mine) not in self._known:
            seen = {name: list(v) if isinstance(v, list) else v for name, v in mine.items()}
            self._known[id(mine)] = (mine, seen)  # kept, so that no id is given twice
        return self._known[id(mine)][1]

    def keep(self, value: object) -> None:
        """Remember all queries in a value: a container, a command, a service, or several."""
        if context := getattr(value, "_ctx", None):
            for step in context.selections:
                if id(step.args) not in self._known:
                    self.keep(self.given(step))
        elif isinstance(value, Mapping):
            for each in value.values():
                self.keep(each)
        elif isinstance(value, list | tuple):
            for each in value:
                self.keep(each)
        elif isinstance(value, Command | Service):
            self.keep([value.container, *value.services])

    def keep_as(self, evaluated: Any, origin: object) -> None:  # noqa: ANN401 - an object of the SDK
        """Remember what an object that the engine gave back was made from."""
        self.keep(origin)
        (step,) = evaluated._ctx.selections  # noqa: SLF001 - there is no other way to a query
        self.given(step)["id"] = origin
