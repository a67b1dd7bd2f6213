from __future__ import annotations

import re

import pytest

from penstock import Pipeline, Secret
from penstock.errors import DefinitionError


def findings(pipeline: Pipeline) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        pipeline.check()
    assert caught.value.exit_code == 2
    return list(caught.value.findings)


def test_decorator_keeps_the_function() -> None:
    """With and without parentheses, what is decorated is handed back as it was."""
    pipeline = Pipeline("p")

    def lint() -> None: ...
    def test() -> None: ...

    assert pipeline.stage(lint) is lint
    assert pipeline.stage(needs=[lint])(test) is test
    assert pipeline.check().needs == {"lint": (), "test": ("lint",)}


def test_postponed_annotations_are_never_evaluated() -> None:
    """Injection reads names: annotations may stand for what is imported for typing only."""
    pipeline = Pipeline("p")

    @pipeline.container
    def python() -> Nowhere:  # type: ignore[name-defined]  # noqa: F821 - the point of the test
        ...

    @pipeline.stage
    def lint(python: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821 - see above
        ...

    assert list(pipeline.check().needs) == ["lint"]


def test_misspelt_parameter_names_place_and_nearest_name() -> None:
    """A name that nothing provides is found before anything runs, with file:line."""
    pipeline = Pipeline("p")

    @pipeline.service
    def postgres() -> None: ...

    @pipeline.stage
    def test(postgers: object) -> None: ...

    (finding,) = findings(pipeline)
    assert re.match(r".*test_pipeline\.py:\d+: stage 'test' takes 'postgers'", finding)
    assert finding.endswith("did you mean 'postgres'?")


def test_every_finding_is_reported_at_once() -> None:
    """Three mistakes give three lines, each with its place."""
    pipeline = Pipeline("p")

    def stranger() -> None: ...

    @pipeline.stage(needs=[stranger])
    def lint(nothing: object) -> None: ...

    @pipeline.stage(secrets={"token": Secret.env("TOKEN")})
    def push() -> None: ...

    lines = findings(pipeline)
    assert [re.search(r"test_pipeline\.py:\d+: ", line) is not None for line in lines] == [True] * 3
    assert "needs 'stranger', which is no stage" in lines[0]
    assert "takes 'nothing', which nothing provides" in lines[1]
    assert "declares the secret 'token' and has no parameter" in lines[2]


def test_duplicate_names_are_refused() -> None:
    """A second definition under a name says where the first one is."""
    pipeline = Pipeline("p")

    def lint() -> None: ...

    pipeline.stage(lint)
    pipeline.container(lint)
    assert "container 'lint' is already defined as a stage at" in findings(pipeline)[0]


def test_built_in_names_cannot_be_hidden() -> None:
    """A service named `registry` would take the place of penstock's own."""
    pipeline = Pipeline("p")

    @pipeline.service
    def registry() -> None: ...

    assert "would hide what penstock provides" in findings(pipeline)[0]


def test_result_is_only_taken_from_a_needed_stage() -> None:
    """Taking a stage's result without waiting for it is refused."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def build() -> None: ...

    @pipeline.service
    def app(build: object) -> None: ...

    @pipeline.stage
    def smoke(app: object) -> None: ...

    assert "stage 'smoke' takes the result of 'build'" in findings(pipeline)[0]


def test_cycle_of_services_is_refused() -> None:
    """Containers and services that take each other could never be made."""
    pipeline = Pipeline("p")

    @pipeline.container
    def one(two: object) -> None: ...

    @pipeline.container
    def two(one: object) -> None: ...

    assert "take each other: " in findings(pipeline)[0]


def test_a_lambda_is_no_stage() -> None:
    """Stages are named functions, because their names are what people see."""
    with pytest.raises(DefinitionError, match="is no named function"):
        Pipeline("p").stage(lambda: None)


def test_defaulted_parameters_are_left_alone() -> None:
    """A parameter with a default is the author's own business."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def lint(level: int = 3) -> int:
        return level

    assert pipeline.stages["lint"].takes == ()
    assert list(pipeline.check().needs) == ["lint"]


def test_users_of_a_service_are_found_through_other_services() -> None:
    """A database is also used by the stage that only takes the app which needs it."""
    pipeline = Pipeline("p")

    @pipeline.service
    def postgres() -> None: ...

    @pipeline.service
    def app(postgres: object) -> None: ...

    @pipeline.stage
    def smoke(app: object) -> None: ...

    @pipeline.stage
    def lint() -> None: ...

    assert pipeline.users("postgres") == ["smoke"]


def test_title_is_the_docstring_or_the_name() -> None:
    """The first line of the docstring is what people see."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def unit_tests() -> None: ...

    @pipeline.stage
    def lint() -> None:
        """Lint with ruff."""

    assert [stage.title for stage in pipeline.stages.values()] == ["unit tests", "Lint with ruff"]


def test_repr_names_the_stages() -> None:
    """A pipeline in a debugger says what it is."""
    pipeline = Pipeline("p")

    @pipeline.stage
    def lint() -> None: ...

    assert repr(pipeline) == "<Pipeline 'p': lint>"
