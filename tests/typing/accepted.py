"""What must type-check: decorators keep what they decorate, options have their types."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, assert_type

from penstock import Command, Coverage, Pipeline, Secret, Service
from penstock.matrix import cell, matching
from penstock.when import changed, env, on_branch, on_tag

if TYPE_CHECKING:
    from collections.abc import Callable

    import dagger

pipeline = Pipeline("typed", deadline_s=900, teardown_s=30)


class Database(Enum):
    """An axis."""

    OLD = "14"
    NEW = "15"


@pipeline.container
def python() -> dagger.Container:
    """A container."""
    raise NotImplementedError


@pipeline.container()
def other(python: dagger.Container) -> dagger.Container:
    """A container, with parentheses."""
    return python


@pipeline.service(deadline_s=5)
def postgres(python: dagger.Container) -> Service:
    """A service."""
    return Service(container=python, port=5432)


@pipeline.stage
def lint(python: dagger.Container) -> Command:
    """A stage without parentheses."""
    return Command(python, "ruff check .")


@pipeline.stage(
    needs=[lint],
    matrix={"db": Database, "version": ["3.11", "3.12"]},
    exclude=[{"db": Database.OLD}],
    retries=2,
    retry_on=["registry", 75],
    when=(on_branch("main") | on_tag("v*")) & ~env("SKIP") & changed("app/**"),
    uses=["cluster"],
    tags=["slow"],
    secrets={"token": Secret.env("TOKEN")},
)
def test(python: dagger.Container, db: Database, version: str, token: dagger.Secret) -> Command:
    """A stage with everything."""
    del db, version
    container = python.with_secret_variable("TOKEN", token)
    return Command(container, ["pytest"], reports=[Coverage("coverage.xml", at_least=80)])


@pipeline.stage(needs=[matching(test), cell(test, version="3.12")], always=True, gate=False)
async def collect(test: dict[str, dagger.Container]) -> list[str]:
    """An async stage."""
    return [await done.stdout() for done in test.values()]


assert_type(lint(python()), Command)
keeps: Callable[[dagger.Container], Command] = lint
assert_type(pipeline.main(["--list"]), int)
assert_type(postgres(python()).key, str)
