from __future__ import annotations

import enum
import functools
import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

from penstock import Pipeline, Secret
from penstock.errors import DefinitionError
from penstock.matrix import cell, matching
from penstock.when import on_branch, on_tag
from tests.penstock.elsewhere import shared_lint

if TYPE_CHECKING:
    from collections.abc import Callable


def findings(pipeline: Pipeline) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        pipeline.check()
    assert caught.value.exit_code == 2
    return list(caught.value.findings)


def line_of(function: Callable[..., object]) -> int:
    return inspect.getsourcelines(function)[1]


def test_decorator_keeps_the_function() -> None:
    """With and without parentheses, what is decorated is handed back as it was."""
    pipeline = Pipeline("p")

    def lint() -> None: ...

    def test() -> None: ...

    def python() -> None: ...

    def db() -> None: ...

    assert pipeline.stage(lint) is lint
    assert pipeline.stage(needs=[lint])(test) is test
    assert pipeline.container()(python) is python
    assert pipeline.service(deadline_s=5)(db) is db
    assert pipeline.check()["test"].needs == ("lint",)
    assert pipeline.providers["db"].deadline_s == 5


def test_postponed_annotations_are_never_evaluated() -> None:
    """Injection reads names: annotations may stand for what is imported for typing only."""
    pipeline = Pipeline("p")

    @pipeline.container
    def python() -> Nowhere:  # type: ignore[name-defined]  # noqa: F821 - the point of the test
        ...

    @pipeline.stage
    def lint(python: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821 - see above
        ...

    assert list(pipeline.check()) == ["lint"]


def test_misspelt_parameter_names_place_and_nearest_name() -> None:
    """A name that nothing provides is found before anything runs, with file:line."""
    pipeline = Pipeline("p")

    @pipeline.service
    def postgres() -> None: ...

    @pipeline.stage
    def test(postgers: object) -> None: ...

    (finding,) = findings(pipeline)
    place = f"tests/penstock/test_pipeline.py:{line_of(test)}: "
    assert finding.endswith(
        f"{place}stage 'test' takes 'postgers', which nothing provides; did you mean 'postgres'?"
    )


def broken() -> Pipeline:
    """Return a pipeline with every kind of mistake in it, one a line of `MISTAKES`."""
    pipeline = Pipeline("p")

    def stranger() -> None: ...

    def itself() -> None: ...

    @pipeline.container
    def python() -> None: ...

    @pipeline.stage(always=True)
    def clean() -> None: ...

    @pipeline.stage(matrix={"db": ["14", "15"]})
    def cells(db: str) -> None: ...

    pipeline.stage(named("unknown"))
    pipeline.stage(needs=[stranger])(named("stranger_needed"))
    pipeline.stage(needs=[python])(named("container"))
    pipeline.stage(needs=[itself])(itself)
    pipeline.stage(needs=[clean])(named("behind_clean"))
    pipeline.stage(needs=[cell(cells, db="16")])(named("no_cell"))
    pipeline.stage(gate=True, allow_failure=True)(named("gate"))
    pipeline.stage(deadline_s=0)(named("deadline"))
    pipeline.stage(retries=-1)(named("retries"))
    pipeline.stage(retries=1, retry_on=["registri"])(named("retry_on"))  # type: ignore[list-item]  # the point
    pipeline.stage(retries=1, retry_on=[0])(named("zero"))
    pipeline.stage(retry_on=[1])(named("once"))
    pipeline.stage(tags="slow")(named("text"))
    for number, (option, value) in enumerate(WRONG_KINDS.items()):
        pipeline.stage(**{option: value})(named(f"kind{number}"))
    pipeline.stage(dedline_s=5)(named("option"))  # type: ignore[call-overload]  # the point
    pipeline.stage(secrets={"token": Secret.env("T")})(named("secret"))
    pipeline.stage(when=on_branch("main") & on_tag())(named("when"))
    pipeline.stage(matrix={"db": []})(named("no_value"))
    pipeline.stage(matrix={"db": ["1"]}, exclude=[{"db": "1"}])(named("no_cells"))
    pipeline.stage(matrix={"db": ["1"]}, exclude=[{"bd": "1"}])(named("no_axis"))
    pipeline.stage(matrix={"python": ["1"]})(named("hides"))
    pipeline.stage(lambda: None)
    pipeline.stage(functools.partial(stranger))
    pipeline.stage(Pipeline)
    pipeline.container(named("registry"))
    pipeline.container(named("unknown"))
    return pipeline


def named(name: str) -> Any:  # noqa: ANN401 - any function
    """Return a function of that name, which takes nothing."""
    namespace: dict[str, Any] = {}
    code = compile(f"def {name}(): ...", __file__, "exec")
    exec(code, namespace)  # noqa: S102 - our own two words
    return namespace[name]


WRONG_KINDS: dict[str, Any] = {
    "needs": named,
    "matrix": ["14"],
    "secrets": "token",
    "when": "main",
    "deadline_s": "5",
    "retries": 1.5,
    "always": "yes",
    "exclude": {"db": "14"},
}
MISTAKES = [
    "stage 'kind0' has the function 'named' as `needs`; write a list",
    "stage 'kind1' has ['14'] as `matrix`; write a dict",
    "stage 'kind2' has one text as `secrets`; write a dict",
    "stage 'kind3' has one text as `when`; take a condition from `penstock.when`",
    "stage 'kind4' has one text as `deadline_s`; write a number of seconds",
    "stage 'kind5' has 1.5 as `retries`; write a whole number",
    "stage 'kind6' has one text as `always`; write True or False",
    "stage 'kind7' has {'db': 'str'} as `exclude`; write a list",
    "stage 'zero' is tried again on the exit code 0, with which no command fails",
    "stage 'stranger_needed' needs 'stranger', which is no stage of this pipeline",
    "stage 'container' needs container 'python', which is no stage",
    "stage 'itself' needs itself",
    "stage 'behind_clean' can never run before the end: it needs the teardown stage 'clean'",
    "stage 'no_cell' needs a cell of 'cells' that does not exist; it has cells[db=14], cells[db=15]",
    "stage 'gate' is a gate and allowed to fail",
    "stage 'deadline' has 0 as `deadline_s`; write a number of seconds above 0",
    "stage 'retries' has -1 as `retries`; write a whole number, 0 or more",
    "stage 'retry_on' is tried again on 'registri', which is no class of faults; did you mean 'registry'?",
    "stage 'once' has `retry_on` and is never tried again; write `retries=N` too",
    "stage 'text' has one text as `tags`; write a list",
    "stage 'option' has the option 'dedline_s', which `stage` does not know; did you mean 'deadline_s'?",
    "stage 'secret' declares the secret 'token' and has no parameter of that name",
    "stage 'when' can never run: it wants a branch and a tag",
    "stage 'no_value' has no value on the matrix axis 'db'",
    "stage 'no_cells' can never run: every cell of its matrix is excluded",
    "stage 'no_axis' excludes a cell by the axis 'bd', which its matrix does not have",
    "stage 'hides' has a matrix axis or a secret 'python', which hides the container 'python'",
    "'<lambda>' is no named function; write `def name(...)`",
    "'partial' is no named function",
    "'Pipeline' is no named function",
    "container 'registry' would hide what penstock provides under that name",
    "container 'unknown' is already defined as a stage at ",
]


@pytest.fixture(scope="module")
def all_findings() -> list[str]:
    return findings(broken())


@pytest.mark.fault(36)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_found_at_once_with_its_place(
    mistake: str, all_findings: list[str]
) -> None:
    """All of them in one error, each beginning with file:line of the decorator or the call."""
    (found,) = [finding for finding in all_findings if mistake in finding]
    assert re.match(r"\S*tests/penstock/test_pipeline\.py:\d+: ", found)


def test_no_mistake_is_told_twice(all_findings: list[str]) -> None:
    """As many lines as mistakes."""
    assert len(all_findings) == len(MISTAKES)


@pytest.mark.fault(36)
def test_cycle_is_spelled_out() -> None:
    """Stages that wait for each other are named in the direction of their needs."""
    pipeline = Pipeline("p")
    a, b, c = named("a"), named("b"), named("c")
    pipeline.stage(needs=[b])(a)
    pipeline.stage(needs=[c])(b)
    pipeline.stage(needs=[a])(c)
    (finding,) = findings(pipeline)
    cycle = finding.partition("in a cycle: ")[2].split(" -> ")
    assert cycle[0] == cycle[-1]
    assert "".join(cycle[:-1]) in "abcabc"


def test_stage_of_another_module_is_placed_there() -> None:
    """Shared stages are decorated where they are used, and blamed where they are written."""
    pipeline = Pipeline("p")
    pipeline.stage(shared_lint)
    (finding,) = findings(pipeline)
    assert re.match(rf"\S*tests/penstock/elsewhere\.py:{line_of(shared_lint)}: ", finding)


def test_result_is_only_taken_from_a_needed_stage() -> None:
    """Taking a stage's result, even through a service, without waiting for it is refused."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def build() -> None: ...

    @pipeline.service
    def app(build: object) -> None: ...

    @pipeline.stage
    def smoke(app: object) -> None: ...

    assert "stage 'smoke' takes the result of 'build' and does not need it" in findings(pipeline)[0]


def test_taken_results_are_known_to_the_runner() -> None:
    """Of what a stage needs, the runner knows which it cannot do without."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def lint() -> None: ...

    @pipeline.stage
    def build() -> None: ...

    @pipeline.service
    def app(build: object) -> None: ...

    @pipeline.stage(needs=[lint, build])
    def smoke(app: object) -> None: ...

    smoked = pipeline.check()["smoke"]
    assert (smoked.needs, smoked.takes) == (("lint", "build"), ("build",))


def test_cycle_of_services_is_refused() -> None:
    """Containers and services that take each other could never be made."""
    pipeline = Pipeline("p")

    @pipeline.container
    def one(two: object) -> None: ...

    @pipeline.container
    def two(one: object) -> None: ...

    assert "take each other: " in findings(pipeline)[0]


def test_defaulted_parameters_are_left_alone() -> None:
    """A parameter with a default is the author's own business, and so are `*args`."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def lint(level: int = 3, *args: object, **kwargs: object) -> int:
        del args, kwargs
        return level

    assert pipeline.definitions["lint"].takes == ()
    assert list(pipeline.check()) == ["lint"]


def test_positional_only_parameter_is_refused() -> None:
    """What is taken by name must be given by name."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def lint(commit: str, /) -> None: ...

    assert "takes 'commit' by position only; drop the `/`" in findings(pipeline)[0]


def test_reached_goes_through_services_and_stops_at_stages() -> None:
    """A database is also used by the stage that only takes the app which needs it."""
    pipeline = Pipeline("p")

    @pipeline.service
    def postgres() -> None: ...

    @pipeline.stage
    def build(postgres: object) -> None: ...

    @pipeline.service
    def app(build: object) -> None: ...

    @pipeline.stage(needs=[build])
    def smoke(app: object) -> None: ...

    assert pipeline.reached("smoke") == {"app", "build"}
    assert pipeline.reached("build") == {"postgres"}


def test_title_is_the_docstring_or_the_name() -> None:
    """The first line of the docstring is what people see."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def unit_tests() -> None: ...

    @pipeline.stage(matrix={"db": ["14"]})
    def lint(db: str) -> None:
        """Lint with ruff."""

    titles = [stage.title for stage in pipeline.check().values()]
    assert titles == ["unit tests", "Lint with ruff [db=14]"]


def test_repr_names_the_stages() -> None:
    """A pipeline in a debugger says what it is."""
    pipeline = Pipeline("p")
    pipeline.stage(named("lint"))
    assert repr(pipeline) == "<Pipeline 'p': lint>"


def test_policy_reaches_the_runner() -> None:
    """What the decorator is given is what the runner sees, lists as tuples."""
    pipeline = Pipeline("p")
    options: Any = {
        "gate": True,
        "deadline_s": 5.0,
        "retries": 2,
        "retry_on": ["service", 75],
        "uses": ["registry"],
        "tags": ["slow"],
    }
    pipeline.stage(**options)(named("push"))
    stage = pipeline.check()["push"]
    assert {name: getattr(stage, name) for name in options} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }


class Database(enum.Enum):
    OLD = "14"
    NEW = "15"


def matrix_pipeline() -> Pipeline:
    pipeline = Pipeline("p")

    @pipeline.container
    def env(python: str) -> str:
        return python

    @pipeline.stage(
        matrix={"python": ("3.11", "3.12"), "db": Database},
        exclude=[{"python": "3.11", "db": Database.NEW}],
    )
    def test(env: object, db: Database) -> None: ...

    @pipeline.stage(needs=[matching(test)], matrix={"python": ["3.11", "3.12"]})
    def wheel(python: str) -> None: ...

    @pipeline.stage(needs=[cell(test, python="3.12", db=Database.NEW)])
    def newest() -> None: ...

    @pipeline.stage(needs=[test, wheel])
    def publish(wheel: object) -> None: ...

    return pipeline


def test_matrix_makes_a_stage_for_each_cell() -> None:
    """Cells carry their values as the author wrote them; needs are all, matching or chosen cells."""
    stages = matrix_pipeline().check()
    tests = ["test[python=3.11,db=14]", "test[python=3.12,db=14]", "test[python=3.12,db=15]"]
    wheels = ["wheel[python=3.11]", "wheel[python=3.12]"]
    assert list(stages) == [*tests, *wheels, "newest", "publish"]
    assert stages[tests[2]].cell == {"python": "3.12", "db": Database.NEW}
    assert stages[wheels[0]].needs == (tests[0],)
    assert stages[wheels[1]].needs == tuple(tests[1:])
    assert stages["newest"].needs == (tests[2],)
    assert stages["publish"].needs == (*tests, *wheels)
    assert stages["publish"].takes == tuple(wheels)


def test_axis_of_a_container_must_be_on_every_stage_that_takes_it() -> None:
    """A container made per cell cannot be taken by a stage without that axis."""
    pipeline = matrix_pipeline()

    @pipeline.stage
    def lint(env: object) -> None: ...

    (finding,) = findings(pipeline)
    assert "container 'env' takes the matrix axis 'python', which stage 'lint' (" in finding


@pytest.mark.parametrize("kind", ["container", "service", "stage"])
def test_only_named_functions_are_decorated(kind: str) -> None:
    """Whatever it is, the place of the call is named and the others are still checked."""
    pipeline = Pipeline("p")
    getattr(pipeline, kind)(lambda: None)
    assert "'<lambda>' is no named function; write `def name(...)`" in findings(pipeline)[0]
