"""Which stages may be begun early: those whose work nobody notices when it is thrown away."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.graph import Graph
from penstock.pipeline import Definition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.model import Provider, Stage
    from penstock.pipeline import Pipeline

# Of steps of a query and their arguments: what reaches beyond the container that they make.
BEYOND = re.compile(
    "secret|service|socket|auth|nesting|insecure|publish|export|tunnel", re.IGNORECASE
)


@dataclass(frozen=True)
class Conditions:
    """When the work of a stage may begin.

    Args:
        gates: Of these one has started; so nothing is begun for code that does not come that far,
            and the first and shortest gates have the machine for themselves.
        waits_for: These have passed: those whose results it takes, and those before it that may
            change what it finds outside the engine.
    """

    gates: frozenset[str]
    waits_for: frozenset[str]


def begins_early(pipeline: Pipeline, stages: Mapping[str, Stage]) -> dict[str, Conditions]:
    """Return the stages whose work may begin before their gates have passed."""
    graph = Graph({name: stage.needs for name, stage in stages.items()})
    acting = {name for name, stage in stages.items() if _acts(_makers(pipeline, stage.family))}
    found = {}
    for name, stage in stages.items():
        if not is_pure(pipeline, stage):
            continue
        waits_for = acting.intersection(graph.closure(stage.needs)).union(stage.takes)
        sooner = graph.closure(first for need in stage.needs for first in graph.needs[need])
        if gates := frozenset(stage.needs) - waits_for - sooner:
            found[name] = Conditions(gates, frozenset(waits_for))
    return found


def is_pure(pipeline: Pipeline, stage: Stage) -> bool:
    """Return whether nobody can notice that the work of a stage was done, and then thrown away.

    Its author says so: by a function that returns a container and is not `async`. Neither it nor
    anything that it is made from may take the registry, a secret or a service.
    """
    if stage.skip or stage.always or stage.uses:
        return False
    families = [stage.family]
    for family in families:
        makers = _makers(pipeline, family)
        if _acts(makers) or any(maker.kind == "service" for maker in makers):
            return False
        taken = pipeline.reached(family) & pipeline.definitions.keys()
        families += sorted(taken.difference(families))
    return _returns_container(pipeline.definitions[stage.family])


def _makers(pipeline: Pipeline, family: str) -> list[Provider]:
    """Return a stage's function, and those of the containers and services that it is made from."""
    names = [family, *(pipeline.reached(family) - pipeline.definitions.keys())]
    return [pipeline.providers[name] for name in names]


def _acts(makers: list[Provider]) -> bool:
    """Return whether one of them may do something that is seen outside the engine."""
    return any(
        "registry" in maker.takes
        or inspect.iscoroutinefunction(inspect.unwrap(maker.function))
        or (isinstance(maker, Definition) and bool(maker.secrets))
        for maker in makers
    )


def _returns_container(definition: Definition) -> bool:
    """Return whether its author says so; the annotation is read and not evaluated."""
    said = inspect.unwrap(definition.function).__annotations__.get("return", "")
    name = said if isinstance(said, str) else getattr(said, "__name__", "")
    return name.strip("'\"").rpartition(".")[2] == "Container"


def reaches_out(value: object) -> bool:
    """Return whether a container's own steps take what no early work may, or lock a cache volume."""
    if isinstance(value, list | tuple):
        return any(map(reaches_out, value))
    context = getattr(value, "_ctx", None)
    return any(
        BEYOND.search(step.name)
        or step.args.get("sharing") == "LOCKED"
        or any(BEYOND.search(name) or reaches_out(given) for name, given in step.args.items())
        for step in (context.selections if context else ())
    )
