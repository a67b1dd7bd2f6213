"""`Pipeline`: the decorators, and the check that finds every definition error at once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, cast, overload

from penstock import matrix
from penstock.kinds import (
    BOOL,
    COUNT,
    NAME,
    NAMES,
    SECONDS,
    Kind,
    is_whole,
    mapping,
    sequence,
)
from penstock.model import Fault, Function, Provider, Stage, service_key
from penstock.place import calling_file, place_of, project_root
from penstock.secrets import Secret
from penstock.when import Condition

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
        retries: Most further attempts after a fault of a class in `retry_on`, each of the whole
            stage. Without it what asks a registry is asked again, four times within eight
            seconds: the pull of an image before its command runs, each step of `registry.push`;
            never the stage's own code. 0 is for not even that.
        retry_on: Of `engine`, `registry` and `service` (all three by default) and exit codes of
            its command; only beside `retries`. A failing test is never tried again unasked.
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
KINDS = {
    "needs": sequence("write a list of stages"),
    "retry_on": sequence(
        "write a list of classes of faults and exit codes",
        lambda value: isinstance(value, str) or is_whole(value),
    ),
    **dict.fromkeys(("uses", "tags"), NAMES),
    "exclude": sequence("write a list of dicts", lambda value: isinstance(value, Mapping)),
    **dict.fromkeys(("gate", "allow_failure", "always"), BOOL),
    "deadline_s": SECONDS,
    "retries": COUNT,
    "when": Kind(
        "take a condition from `penstock.when`", lambda value: isinstance(value, Condition)
    ),
    "matrix": mapping("write a dict of lists"),
    "secrets": mapping(
        "write a dict of `Secret.env(...)` and the like",
        holds=lambda value: isinstance(value, Secret) and NAME.holds(value.source),
    ),
}
OF_A_PIPELINE = {
    "name": NAME,
    "root": Kind(
        "give the path of a folder",
        lambda value: value is None or (isinstance(value, Path) and value.is_dir()),
    ),
    "deadline_s": SECONDS,
    "teardown_s": SECONDS,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Definition(Provider):
    """A stage as its author defined it: one function, and one stage for each cell of its matrix.

    Args:
        given: The options as the decorator was given them.
    """

    kind: str = "stage"
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def options(self) -> StageOptions:
        """What it was given, lists as tuples, without the values that are of a wrong kind."""
        options = {
            name: tuple(value) if name in LISTS else value
            for name, value in self.given.items()
            if name not in KINDS or KINDS[name].holds(value)
        }
        return cast("StageOptions", options)

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
        self.root = root if root and isinstance(root, Path) else project_root(self.file)
        self.deadline_s = deadline_s
        self.teardown_s = teardown_s
        self.providers: dict[str, Provider] = {}
        given = {"name": name, "root": root, "deadline_s": deadline_s, "teardown_s": teardown_s}
        self.findings = [
            f"{place_of(None)}: the pipeline {words}"
            for option, kind in OF_A_PIPELINE.items()
            for words in kind.findings(option, given[option])
        ]

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
        return self._define(function, Provider, kind="container")

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
        return self._define(function, Provider, kind="service", deadline_s=deadline_s)

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
        return self._define(function, Definition, given=options)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the pipeline from the command line and return the exit code."""
        from penstock.cli import main

        return main(self, argv)

    def check(self) -> dict[str, Stage]:
        """Return every stage by name, in definition order.

        Raises:
            DefinitionError: With every finding, each with the place of its decorator.
        """
        from penstock.check import Check

        return Check(self).stages()

    def reached(self, name: str) -> set[str]:
        """Return every provider that one takes, at any depth, up to and including stages."""
        reached: set[str] = set()
        queue = list(self.providers[name].takes)
        while queue:
            taken = self.providers.get(queue.pop())
            if taken and taken.name not in reached:
                reached.add(taken.name)
                if taken.kind != "stage":
                    queue += taken.takes
        return reached

    def services(self, stage: Stage) -> set[str]:
        """Return the keys of the services that a stage may use, the registry of rehearsals included."""
        reached = self.reached(stage.family)
        takes = {name for one in (stage.family, *reached) for name in self.providers[one].takes}
        cell = matrix.suffix(stage.cell)
        used = {name for name in reached if self.providers[name].kind == "service"}
        return {service_key(name, cell) for name in used} | takes & {"registry"}

    def _define(
        self,
        function: F | None,
        make: Callable[..., Provider],
        **given: Any,  # noqa: ANN401 - whatever that kind of provider is made of
    ) -> F | Callable[[F], F]:
        """Serve as each of the decorators, with and without parentheses."""

        def define(function: F) -> F:
            name = getattr(function, "__name__", "")
            has_code = hasattr(inspect.unwrap(function), "__code__")  # what C has no signature
            if inspect.isroutine(function) and has_code and name.isidentifier():
                self._add(make(name=name, function=function, **given))
            else:
                what = name or type(function).__name__
                self.findings.append(
                    f"{place_of(function)}: '{what}' is no named function; write `def name(...)`"
                )
            given_back: object = function
            # `stage("x")` is no function, and is called with one next.
            return cast("F", given_back if callable(given_back) else define)

        return define if function is None else define(function)

    def _add(self, provider: Provider) -> None:
        name = provider.name
        if (first := self.providers.get(name)) is not None:
            words = f"is already defined as a {first.kind} at {first.place}; rename one of them"
            self.findings.append(provider.finding(words))
        elif name in BUILT_IN:
            words = "would hide what penstock provides under that name; rename it"
            self.findings.append(provider.finding(words))
        self.providers[name] = provider
