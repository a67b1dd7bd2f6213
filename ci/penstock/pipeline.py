"""`Pipeline`: the decorators, and the check that finds every definition error at once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from penstock.errors import DefinitionError, did_you_mean
from penstock.graph import Graph
from penstock.model import Function, Provider, Stage, calling_file, project_root

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.secrets import Secret

F = TypeVar("F", bound=Callable[..., Any])

BUILT_IN = ("commit", "registry", "run")


class Pipeline:
    """A pipeline: stages, and the containers and services that they take by name.

    Args:
        name: Shown to people and used as the image's name.
        root: The project's folder; by default the nearest folder above the defining file that
            holds `pyproject.toml` or `.git`.
    """

    def __init__(self, name: str, *, root: Path | None = None) -> None:
        self.name = name
        self.file = calling_file()
        self.root = root or project_root(self.file)
        self.providers: dict[str, Provider] = {}
        self._needs: dict[str, Sequence[Function]] = {}
        self._findings: list[str] = []

    def __repr__(self) -> str:
        """Name the pipeline and its stages."""
        return f"<Pipeline {self.name!r}: {', '.join(self.stages)}>"

    @property
    def stages(self) -> dict[str, Stage]:
        """Every stage by name, in definition order."""
        return {n: p for n, p in self.providers.items() if isinstance(p, Stage)}

    def container(self, function: F) -> F:
        """Define a container: made once per run, when a stage or a service first takes it."""
        self._add(Provider(name=_name(function), kind="container", function=function))
        return function

    def service(self, function: F) -> F:
        """Define a service: started when first needed, stopped after its last user."""
        self._add(Provider(name=_name(function), kind="service", function=function))
        return function

    @overload
    def stage(self, function: F, /) -> F: ...

    @overload
    def stage(
        self,
        function: None = None,
        /,
        *,
        needs: Sequence[Function] = ...,
        deadline_s: float = ...,
        secrets: Mapping[str, Secret] | None = ...,
    ) -> Callable[[F], F]: ...

    def stage(
        self,
        function: F | None = None,
        /,
        *,
        needs: Sequence[Function] = (),
        deadline_s: float = 600.0,
        secrets: Mapping[str, Secret] | None = None,
    ) -> F | Callable[[F], F]:
        """Define a stage.

        Args:
            function: Returns what should happen: a `Command`, a container, or, when it is
                `async`, any value for the stages that need it.
            needs: The stages, as functions, that must have passed before it starts.
            deadline_s: Bound of its run in seconds; past it the result is `timeout`.
            secrets: Values it takes by parameter name; missing ones stop the run before it starts.
        """

        def define(function: F) -> F:
            name = _name(function)
            self._needs[name] = needs
            self._add(
                Stage(name=name, function=function, deadline_s=deadline_s, secrets=secrets or {})
            )
            return function

        return define if function is None else define(function)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the pipeline from the command line and return the exit code."""
        from penstock.cli import main

        return main(self, argv)

    def check(self) -> Graph:
        """Return the graph of all stages.

        Raises:
            DefinitionError: With every finding, each with the place of its decorator.
        """
        findings = [*self._findings, *self._resolve_needs()]
        for provider in self.providers.values():
            findings += self._parameter_findings(provider)
        graph = Graph({name: stage.needs for name, stage in self.stages.items()})
        if not findings and (cycle := graph.cycle()):
            place = self.providers[cycle[0]].place
            findings.append(f"{place}: stages need each other in a cycle: {' -> '.join(cycle)}")
        if not findings:
            findings += self._provider_cycles()
        if findings:
            raise DefinitionError(findings)
        return graph

    def users(self, name: str) -> list[str]:
        """Return the stages that take a provider, directly or through another one."""
        return [stage for stage in self.stages if name in self._taken(stage)]

    def _taken(self, name: str) -> set[str]:
        """Return every container and service that a provider takes, at any depth."""
        taken: set[str] = set()
        queue = list(self.providers[name].takes)
        while queue:
            provider = self.providers.get(queue.pop())
            if provider and provider.kind != "stage" and provider.name not in taken:
                taken.add(provider.name)
                queue += provider.takes
        return taken

    def _add(self, provider: Provider) -> None:
        if (first := self.providers.get(provider.name)) is not None:
            self._findings.append(
                f"{provider.place}: {provider.kind} '{provider.name}' is already defined as a "
                f"{first.kind} at {first.place}; rename one of them"
            )
        elif provider.name in BUILT_IN:
            self._findings.append(
                f"{provider.place}: {provider.kind} '{provider.name}' would hide what penstock "
                f"provides under that name; rename it"
            )
        self.providers[provider.name] = provider

    def _resolve_needs(self) -> Iterator[str]:
        """Turn needed functions into names; yield what is wrong with them."""
        names = {id(provider.function): provider for provider in self.providers.values()}
        for name, stage in self.stages.items():
            resolved: list[str] = []
            for function in self._needs[name]:
                needed = names.get(id(function))
                if isinstance(needed, Stage):
                    resolved.append(needed.name)
                    continue
                what = f"{needed.kind} '{needed.name}'" if needed else _describe(function)
                yield (
                    f"{stage.place}: stage '{name}' needs {what}, which is no stage of pipeline "
                    f"'{self.name}'; `needs` takes functions decorated with its `stage`"
                )
            self.providers[name] = dataclasses.replace(stage, needs=tuple(dict.fromkeys(resolved)))

    def _parameter_findings(self, provider: Provider) -> Iterator[str]:
        """Yield each parameter that nothing provides, or that would not be there in time."""
        secrets = provider.secrets if isinstance(provider, Stage) else {}
        for name in provider.takes:
            if name in secrets or name in BUILT_IN:
                continue
            given = self.providers.get(name)
            if given is None:
                known = [*self.providers, *BUILT_IN, *secrets]
                hint = did_you_mean(name, known)
                yield (
                    f"{provider.place}: {provider.kind} '{provider.name}' takes '{name}', which "
                    f"nothing provides{hint or '; define it with `container` or `service`'}"
                )
            elif isinstance(given, Stage):
                yield from self._result_findings(provider, given)
        for name in secrets:
            if name not in provider.takes:
                yield (
                    f"{provider.place}: stage '{provider.name}' declares the secret '{name}' and "
                    f"has no parameter of that name; add it or drop the secret"
                )

    def _result_findings(self, provider: Provider, given: Stage) -> Iterator[str]:
        """Yield each stage that would take a result without waiting for it."""
        takers = [provider.name] if isinstance(provider, Stage) else self.users(provider.name)
        for taker in takers:
            if given.name not in self.stages[taker].needs:
                yield (
                    f"{self.stages[taker].place}: stage '{taker}' takes the result of "
                    f"'{given.name}' and does not need it; add needs=[{given.name}]"
                )

    def _provider_cycles(self) -> Iterator[str]:
        makers = {n: p for n, p in self.providers.items() if p.kind != "stage"}
        takes = Graph({n: [t for t in p.takes if t in makers] for n, p in makers.items()})
        if cycle := takes.cycle():
            place = makers[cycle[0]].place
            yield f"{place}: containers and services take each other: {' -> '.join(cycle)}"


def _name(function: Function) -> str:
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or not name.isidentifier():
        file = calling_file()
        message = f"{file}: {_describe(function)} is no named function; write `def name(...)`"
        raise DefinitionError([message])
    return name


def _describe(function: object) -> str:
    return f"'{getattr(function, '__name__', None) or repr(function)}'"
