"""Finds everything that is wrong with a pipeline's definitions, at once and before anything runs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock import matrix
from penstock.errors import DefinitionError, did_you_mean
from penstock.graph import Graph
from penstock.kinds import MAYBE_SECONDS
from penstock.model import FAULTS, Provider, Stage
from penstock.pipeline import BUILT_IN, KINDS, Definition, StageOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.pipeline import Pipeline


class Check:
    """Finds every error of a pipeline's definitions.

    Args:
        pipeline: As its author wrote it.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._reached = pipeline.reached
        self._providers = pipeline.providers
        self._definitions = pipeline.definitions.values()
        self._by_function = {id(p.function): p for p in self._providers.values()}
        self._known = {*self._providers, *BUILT_IN}
        self._axes = {axis for definition in self._definitions for axis in definition.axes}
        self._findings = list(pipeline.findings)
        self._cells: dict[str, list[Stage]] = {}

    def stages(self) -> dict[str, Stage]:
        """Return every stage by name, in definition order.

        Raises:
            DefinitionError: With every finding, each with the place of its decorator.
        """
        for definition in self._definitions:
            found = [*_kind_findings(definition), *_option_findings(definition)]
            self._find(definition, *found)
            self._cells[definition.name] = [] if found else definition.stages()
        stages = {s.name: s for d in self._definitions for s in self._with_needs(d)}
        for provider in self._providers.values():
            self._find(provider, *self._parameter_findings(provider))
        if not self._findings:
            self._find_cycles(stages)
        if self._findings:
            raise DefinitionError(list(dict.fromkeys(self._findings)))
        return stages

    def _find(self, provider: Provider, *found: str) -> None:
        self._findings += map(provider.finding, found)

    def _with_needs(self, definition: Definition) -> Iterator[Stage]:
        """Yield the stages of a definition with their needs, as names."""
        needed = list(self._needed(definition))
        reached = self._reached(definition.name)
        taken = {name for name in reached if self._providers[name].kind == "stage"}
        for name in sorted(taken - {target.name for _, target in needed}):
            words = f"takes the result of '{name}' and does not need it; add needs=[{name}]"
            self._find(definition, words)
        for stage in self._cells[definition.name]:
            families: dict[str, str] = {}
            for cells_of, target in needed:
                offered = self._cells[target.name]
                meant = [s.name for s in offered if cells_of.includes(s.cell, stage.cell)]
                if offered and not meant:
                    listed = ", ".join(s.name for s in offered)
                    words = f"needs a cell of '{target.name}' that does not exist; it has {listed}"
                    self._find(definition, words)
                families |= dict.fromkeys(meant, target.name)
            takes = tuple(name for name, family in families.items() if family in taken)
            yield dataclasses.replace(stage, needs=tuple(families), takes=takes)

    def _needed(self, definition: Definition) -> Iterator[tuple[matrix.CellsOf, Definition]]:
        """Yield what a definition may need, of all that it says."""
        for need in definition.options.get("needs", ()):
            cells_of = need if isinstance(need, matrix.CellsOf) else matrix.CellsOf(need, {})
            target = self._by_function.get(id(cells_of.function))
            if not isinstance(target, Definition):
                name = getattr(cells_of.function, "__name__", repr(cells_of.function))
                what = f"{target.kind} '{name}'" if target else f"'{name}'"
                words = f"needs {what}, which is no stage of this pipeline"
                self._find(definition, f"{words}; `needs` takes decorated stages")
            elif target is definition:
                self._find(definition, "needs itself; drop it from its `needs`")
            elif target.options.get("always") and not definition.options.get("always"):
                words = f"can never run before the end: it needs the teardown stage '{target.name}'"
                self._find(definition, f"{words}; mark it `always=True` too, or drop the need")
            else:
                yield cells_of, target

    def _parameter_findings(self, provider: Provider) -> Iterator[str]:
        """Yield each parameter that nothing provides."""
        definition = provider if isinstance(provider, Definition) else None
        secrets = definition.secrets.keys() if definition else set()
        own = {*secrets, *definition.axes} if definition else set()
        wrong = definition.given.get("secrets") if definition and not secrets else None
        meant = {*wrong} if isinstance(wrong, Mapping) else set()  # which is a finding already
        for name in provider.by_position:
            yield f"takes '{name}' by position only; drop the `/`, stages are called by name"
        function = inspect.unwrap(provider.function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            yield "yields, and is asked only once; return the value"
        yield from MAYBE_SECONDS.findings("deadline_s", provider.deadline_s)
        for name in provider.takes:
            if name in self._known | own | meant:
                continue
            if name in self._axes and not definition:
                yield from self._axis_findings(provider, name)
                continue
            hint = did_you_mean(name, self._known | self._axes | own)
            advice = hint or "; define it with `container` or `service`"
            yield f"takes '{name}', which nothing provides{advice}"
        for name in sorted(own & self._known):
            kind = self._providers[name].kind if name in self._providers else "built-in"
            yield f"has a matrix axis or a secret '{name}', which hides the {kind} '{name}'; rename it"
        for name in sorted(secrets - set(provider.takes)):
            words = f"declares the secret '{name}' and has no parameter of that name"
            yield f"{words}; add it or drop the secret"

    def _axis_findings(self, provider: Provider, axis: str) -> Iterator[str]:
        """Yield each stage that takes something made per cell and has no such axis."""
        for stage in self._definitions:
            if axis not in stage.axes and provider.name in self._reached(stage.name):
                words = f"takes the matrix axis '{axis}', which stage '{stage.name}'"
                yield f"{words} ({stage.place}) does not have; add it to its `matrix`"

    def _find_cycles(self, stages: Mapping[str, Stage]) -> None:
        makers = {n: p for n, p in self._providers.items() if p.kind != "stage"}
        needs = {name: stage.needs for name, stage in stages.items()}
        takes = {n: [t for t in p.takes if t in makers] for n, p in makers.items()}
        for what, edges in (
            ("stages need each other in a cycle", needs),
            ("containers and services take each other", takes),
        ):
            if cycle := Graph(edges).cycle():
                first = stages.get(cycle[0]) or makers[cycle[0]]
                self._findings.append(f"{first.place}: {what}: {' -> '.join(cycle)}")


def _kind_findings(definition: Definition) -> Iterator[str]:
    """Yield what is said of each option whose value is of another kind than its type says."""
    for name, value in definition.given.items():
        if name in KINDS:
            yield from KINDS[name].findings(name, value)


def _option_findings(definition: Definition) -> Iterator[str]:
    """Yield what else is wrong with a stage by itself."""
    options = definition.options
    known = StageOptions.__annotations__
    for name in (name for name in options if name not in known):
        hint = did_you_mean(name, known)
        yield f"has the option '{name}', which `stage` does not know{hint}"
    if options.get("gate") and options.get("allow_failure"):
        yield "is a gate and allowed to fail; a gate that lets everything through is none"
    if "retry_on" in options and "retries" not in definition.given:
        yield "has `retry_on` and is never tried again; write `retries=N` too"
    for wanted in options.get("retry_on", ()):
        if isinstance(wanted, str) and wanted not in FAULTS:
            hint = did_you_mean(wanted, FAULTS) or f"; there are {', '.join(FAULTS)} and exit codes"
            yield f"is tried again on '{wanted}', which is no class of faults{hint}"
        if isinstance(wanted, int) and wanted < 1:
            yield f"is tried again on the exit code {wanted}, with which no command fails"
    condition = options.get("when")
    if condition is not None and condition.only_on >= {"branch", "tag"}:
        yield "can never run: it wants a branch and a tag, and a run is on one of them"
    yield from matrix.findings(definition.axes, options.get("exclude", ()))
