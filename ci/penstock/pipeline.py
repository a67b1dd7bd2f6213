"""`Pipeline`: the decorators, and the check that finds every definition error at once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

from penstock import matrix
from penstock.errors import DefinitionError, did_you_mean
from penstock.graph import Graph
from penstock.model import FAULTS, Fault, Function, Provider, Stage
from penstock.place import calling_file, place_of, project_root
from penstock.when import Condition

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.secrets import Secret

F = TypeVar("F", bound=Callable[..., Any])

BUILT_IN = ("commit", "registry", "run")


class StageOptions(TypedDict, total=False):
    """What `stage` takes.

    Attributes:
        needs: The stages, as functions, that must have passed before it starts; of a matrix some
            cells by `penstock.matrix.cell` and `matching`.
        gate: What needs it never runs without it having passed, whatever is skipped or allowed.
        allow_failure: Its failure is a warning; what needs it runs.
        always: A teardown stage: it runs whatever became of what it needs, on cancel too.
        deadline_s: Bound of one attempt in seconds, by default 600; past it the result is
            `timeout`.
        retries: Most further attempts, by default none, after a fault of a class in `retry_on`.
        retry_on: Of `engine`, `registry` and `service` (by default all three) and exit codes of
            its command. A failing test is never tried again unasked.
        uses: Named locks that it holds while it runs, so that no two stages use them at once.
        tags: Words to select it by, `-t slow`.
        when: A condition of `penstock.when`; where it does not hold the stage is skipped.
        matrix: Values by axis; the stage runs once for each combination and takes the values by
            the names of the axes.
        exclude: Combinations that are left out; `{"db": "14"}` leaves out every cell with it.
        secrets: Values it takes by parameter name; missing ones stop the run before it starts.
    """

    needs: Sequence[Function | matrix.CellsOf]
    gate: bool
    allow_failure: bool
    always: bool
    deadline_s: float
    retries: int
    retry_on: Sequence[Fault | int]
    uses: Sequence[str]
    tags: Sequence[str]
    when: Condition
    matrix: matrix.Axes
    exclude: Sequence[matrix.Cell]
    secrets: Mapping[str, Secret]


# Options that are handed on to the runner as they are.
POLICY = ("gate", "allow_failure", "always", "deadline_s", "retries", "retry_on", "uses", "tags")
LISTS = ("needs", "retry_on", "uses", "tags", "exclude")
KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(LISTS, (Sequence, "write a list")),
    **dict.fromkeys(("gate", "allow_failure", "always"), (bool, "write True or False")),
    "deadline_s": (int | float, "write a number of seconds"),
    "retries": (int, "write a whole number"),
    "when": (Condition, "take a condition from `penstock.when`"),
    **dict.fromkeys(("matrix", "secrets"), (Mapping, "write a dict")),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Definition(Provider):
    """A stage as its author defined it: one function, and one stage for each cell of its matrix.

    Args:
        options: What the decorator was given.
    """

    kind: str = "stage"
    options: StageOptions = dataclasses.field(default_factory=StageOptions)

    @property
    def axes(self) -> matrix.Axes:
        """The axes of its matrix."""
        return self.options.get("matrix", {})

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """What nobody may see, by parameter name."""
        return self.options.get("secrets", {})

    def stages(self) -> list[Stage]:
        """Return its stages, which need nothing yet."""
        policy: dict[str, Any] = {n: v for n, v in self.options.items() if n in POLICY}
        for name in set(policy) & set(LISTS):
            policy[name] = tuple(policy[name])
        return [
            Stage(
                name=f"{self.name}{matrix.suffix(cell)}",
                family=self.name,
                title=f"{self.title} {matrix.suffix(cell)}".rstrip(),
                place=self.place,
                cell=cell,
                **policy,
            )
            for cell in matrix.cells(self.axes, self.options.get("exclude", ()))
        ]


class Pipeline:
    """A pipeline: stages, and the containers and services that they take by name.

    Args:
        name: Shown to people and used as the image's name.
        root: The project's folder; by default the nearest folder above the defining file that
            holds `pyproject.toml` or `.git`.
        deadline_s: Bound of a run, in seconds; past it the result is `timeout`.
        teardown_s: What teardown stages get, all together, once that bound is passed.

    Example:
        >>> pipeline = Pipeline("shop", deadline_s=900)
        >>> @pipeline.stage
        ... def lint(): ...
        >>> @pipeline.stage(needs=[lint], matrix={"python": ["3.11", "3.12"]})
        ... def test(python): ...
        >>> list(pipeline.check())
        ['lint', 'test[python=3.11]', 'test[python=3.12]']
    """

    def __init__(
        self,
        name: str,
        *,
        root: Path | None = None,
        deadline_s: float = 1800.0,
        teardown_s: float = 60.0,
    ) -> None:
        self.name = name
        self.file = calling_file()
        self.root = root or project_root(self.file)
        self.deadline_s = deadline_s
        self.teardown_s = teardown_s
        self.providers: dict[str, Provider] = {}
        self._findings: list[str] = []

    def __repr__(self) -> str:
        """Name the pipeline and its stages."""
        return f"<Pipeline {self.name!r}: {', '.join(self.definitions)}>"

    @property
    def definitions(self) -> dict[str, Definition]:
        """Every stage's function by name, in definition order."""
        return {n: p for n, p in self.providers.items() if isinstance(p, Definition)}

    @overload
    def container(self, function: F, /) -> F: ...

    @overload
    def container(self, function: None = None, /) -> Callable[[F], F]: ...

    def container(self, function: F | None = None, /) -> F | Callable[[F], F]:
        """Define a container: made once per run, when a stage or a service first takes it."""

        def define(function: F) -> F:
            if name := self._name(function):
                self._add(Provider(name=name, kind="container", function=function))
            return function

        return define if function is None else define(function)

    @overload
    def service(self, function: F, /) -> F: ...

    @overload
    def service(
        self, function: None = None, /, *, deadline_s: float | None = ...
    ) -> Callable[[F], F]: ...

    def service(
        self, function: F | None = None, /, *, deadline_s: float | None = None
    ) -> F | Callable[[F], F]:
        """Define a service: started when first needed, stopped after its last user.

        Args:
            function: Returns a `Service`.
            deadline_s: Bound of its start in seconds; by default what its health check allows.
        """

        def define(function: F) -> F:
            if name := self._name(function):
                self._add(
                    Provider(name=name, kind="service", function=function, deadline_s=deadline_s)
                )
            return function

        return define if function is None else define(function)

    @overload
    def stage(self, function: F, /) -> F: ...

    @overload
    def stage(
        self, function: None = None, /, **options: Unpack[StageOptions]
    ) -> Callable[[F], F]: ...

    def stage(
        self, function: F | None = None, /, **options: Unpack[StageOptions]
    ) -> F | Callable[[F], F]:
        """Define a stage; `StageOptions` says what it takes.

        Args:
            function: Returns what should happen: a `Command`, a container, several of either by
                name, or, when it is `async`, any value for the stages that need it.
            options: See `StageOptions`.
        """

        def define(function: F) -> F:
            if name := self._name(function):
                wrong = _wrong_kinds(options)
                kept: Any = {n: value for n, value in options.items() if n not in wrong}
                definition = Definition(name=name, function=function, options=kept)
                head = f"{definition.place}: stage '{name}'"
                self._findings += [f"{head} {words}" for words in wrong.values()]
                self._add(definition)
            return function

        return define if function is None else define(function)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the pipeline from the command line and return the exit code."""
        from penstock.cli import main

        return main(self, argv)

    def check(self) -> dict[str, Stage]:
        """Return every stage by name, in definition order.

        Raises:
            DefinitionError: With every finding, each with the place of its decorator.
        """
        return _Check(self.providers, self._findings).stages()

    def reached(self, name: str) -> set[str]:
        """Return every provider that one takes, at any depth, up to and including stages."""
        return _reached(self.providers, self.providers[name])

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

    def _name(self, function: Function) -> str:
        """Return a function's name; of anything else nothing, and a finding."""
        name: str = getattr(function, "__name__", "")
        if inspect.isroutine(function) and name.isidentifier():
            return name
        what = name or type(function).__name__
        self._findings.append(
            f"{place_of(function)}: '{what}' is no named function; write `def name(...)`"
        )
        return ""


class _Check:
    """Finds every error of a definition.

    Args:
        providers: Containers, services and stages by name.
        findings: What the decorators found already.
    """

    def __init__(self, providers: Mapping[str, Provider], findings: Sequence[str]) -> None:
        self._providers = providers
        self._definitions = [p for p in providers.values() if isinstance(p, Definition)]
        self._findings = list(findings)
        self._cells: dict[str, list[Stage]] = {}

    def stages(self) -> dict[str, Stage]:
        """Return every stage, or raise with all that was found."""
        for definition in self._definitions:
            found = list(_option_findings(definition))
            self._find(definition, found)
            self._cells[definition.name] = [] if found else definition.stages()
        by_function = {id(d.function): d for d in self._definitions}
        stages: dict[str, Stage] = {}
        for definition in self._definitions:
            for stage in self._with_needs(definition, by_function):
                stages[stage.name] = stage
        for provider in self._providers.values():
            self._find(provider, self._parameter_findings(provider))
        if not self._findings:
            self._find_cycles(stages)
        if self._findings:
            raise DefinitionError(list(dict.fromkeys(self._findings)))
        return stages

    def _find(self, provider: Provider, found: Sequence[str] | Iterator[str]) -> None:
        head = f"{provider.place}: {provider.kind} '{provider.name}'"
        self._findings += [f"{head} {words}" for words in found]

    def _with_needs(
        self, definition: Definition, by_function: Mapping[int, Definition]
    ) -> Iterator[Stage]:
        """Yield the stages of a definition with their needs, as names."""
        needed: list[tuple[matrix.CellsOf, Definition]] = []
        for need in definition.options.get("needs", ()):
            cells_of = need if isinstance(need, matrix.CellsOf) else matrix.CellsOf(need, {})
            target = by_function.get(id(cells_of.function))
            if target is None:
                self._find(definition, [self._no_stage(cells_of.function)])
            elif target is definition:
                self._find(definition, ["needs itself; drop it from its `needs`"])
            elif _is_teardown(target) and not _is_teardown(definition):
                words = f"can never run before the end: it needs the teardown stage '{target.name}'"
                self._find(definition, [f"{words}; mark it `always=True` too, or drop the need"])
            else:
                needed.append((cells_of, target))
        reached = _reached(self._providers, definition)
        taken = {name for name in reached if isinstance(self._providers[name], Definition)}
        self._find(
            definition,
            (
                f"takes the result of '{name}' and does not need it; add needs=[{name}]"
                for name in sorted(taken - {target.name for _, target in needed})
            ),
        )
        for stage in self._cells[definition.name]:
            names: dict[str, str] = {}
            for cells_of, target in needed:
                meant = [
                    s for s in self._cells[target.name] if cells_of.includes(s.cell, stage.cell)
                ]
                if not meant and self._cells[target.name]:
                    words = f"needs a cell of '{target.name}' that does not exist"
                    self._find(definition, [f"{words}; it has {self._listed(target)}"])
                names |= {s.name: target.name for s in meant}
            takes = tuple(name for name, family in names.items() if family in taken)
            yield dataclasses.replace(stage, needs=tuple(names), takes=takes)

    def _listed(self, definition: Definition) -> str:
        return ", ".join(stage.name for stage in self._cells[definition.name])

    def _no_stage(self, function: object) -> str:
        name = getattr(function, "__name__", None) or repr(function)
        kinds = [p for p in self._providers.values() if p.function is function]
        what = f"{kinds[0].kind} '{name}'" if kinds else f"'{name}'"
        return f"needs {what}, which is no stage of this pipeline; `needs` takes decorated stages"

    def _parameter_findings(self, provider: Provider) -> Iterator[str]:
        """Yield each parameter that nothing provides."""
        definition = provider if isinstance(provider, Definition) else None
        own = {*definition.secrets, *definition.axes} if definition else set()
        for name in provider.by_position:
            yield f"takes '{name}' by position only; drop the `/`, stages are called by name"
        for name in provider.takes:
            if name in own or name in self._providers or name in BUILT_IN:
                continue
            axes = {axis for d in self._definitions for axis in d.axes}
            if definition is None and name in axes:
                yield from self._axis_findings(provider, name)
                continue
            hint = did_you_mean(name, [*self._providers, *BUILT_IN, *own, *axes])
            advice = hint or "; define it with `container` or `service`"
            yield f"takes '{name}', which nothing provides{advice}"
        for name in sorted(n for n in own if n in self._providers or n in BUILT_IN):
            kind = self._providers[name].kind if name in self._providers else "built-in"
            yield f"has a matrix axis or a secret '{name}', which hides the {kind} '{name}'; rename it"
        for name in sorted(own - set(provider.takes)):
            if definition and name in definition.secrets:
                yield (
                    f"declares the secret '{name}' and has no parameter of that name; add it or "
                    f"drop the secret"
                )

    def _axis_findings(self, provider: Provider, axis: str) -> Iterator[str]:
        """Yield each stage that takes something made per cell and has no such axis."""
        for definition in self._definitions:
            if (
                provider.name in _reached(self._providers, definition)
                and axis not in definition.axes
            ):
                yield (
                    f"takes the matrix axis '{axis}', which stage '{definition.name}' "
                    f"({definition.place}) does not have; add it to its `matrix`"
                )

    def _find_cycles(self, stages: Mapping[str, Stage]) -> None:
        graph = Graph({name: stage.needs for name, stage in stages.items()})
        if cycle := graph.cycle():
            place = stages[cycle[0]].place
            self._findings.append(
                f"{place}: stages need each other in a cycle: {' -> '.join(cycle)}"
            )
        makers = {n: p for n, p in self._providers.items() if p.kind != "stage"}
        takes = Graph({n: [t for t in p.takes if t in makers] for n, p in makers.items()})
        if cycle := takes.cycle():
            place = makers[cycle[0]].place
            words = f"containers and services take each other: {' -> '.join(cycle)}"
            self._findings.append(f"{place}: {words}")


def _reached(providers: Mapping[str, Provider], provider: Provider) -> set[str]:
    """Return what a provider takes, itself or through the containers and services that it takes."""
    reached: set[str] = set()
    queue = list(provider.takes)
    while queue:
        taken = providers.get(queue.pop())
        if taken and taken.name not in reached:
            reached.add(taken.name)
            if taken.kind != "stage":
                queue += taken.takes
    return reached


def _is_teardown(definition: Definition) -> bool:
    return definition.options.get("always", False)


def _wrong_kinds(options: StageOptions) -> dict[str, str]:
    """Return what is wrong with each option whose value is of another kind than its type says."""
    wrong: dict[str, str] = {}
    for name, value in options.items():
        kind, words = KINDS.get(name, (object, ""))
        if not isinstance(value, kind) or (kind is Sequence and isinstance(value, (str, bytes))):
            what = "one text" if isinstance(value, str) else _described(value)
            wrong[name] = f"has {what} as `{name}`; {words}"
    return wrong


def _described(value: object) -> str:
    name = getattr(value, "__name__", None)
    return f"the function '{name}'" if inspect.isroutine(value) else f"{value!r}"


def _option_findings(definition: Definition) -> Iterator[str]:
    """Yield what is wrong with a stage by itself."""
    options = definition.options
    for name in options.keys() - StageOptions.__annotations__.keys():
        hint = did_you_mean(name, StageOptions.__annotations__)
        yield f"has the option '{name}', which `stage` does not know{hint}"
    if options.get("gate") and options.get("allow_failure"):
        yield "is a gate and allowed to fail; a gate that lets everything through is none"
    if not options.get("deadline_s", 1) > 0:
        yield f"has the deadline {options['deadline_s']:g} s; give it more than 0 s, or leave it out"
    if options.get("retries", 0) < 0:
        yield f"has {options['retries']} retries; give it 0 or more"
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
