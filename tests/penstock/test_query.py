"""Queries of the SDK, remembered as they were before it put ids in place of what they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagger
from dagger import dag

from penstock import Command, Service
from penstock.inputs import inputs
from penstock.query import Queries

if TYPE_CHECKING:
    from pathlib import Path


def asked(container: dagger.Container) -> None:
    """Do to a query what the SDK does when it has sent it."""
    for step in container._ctx.selections:
        for name, value in step.args.items():
            if isinstance(value, list):
                step.args[name] = ["an id" if hasattr(one, "_ctx") else one for one in value]
            elif hasattr(value, "_ctx"):
                asked(value)
                step.args[name] = "an id"


def box(root: Path) -> dagger.Container:
    (root / "main.py").write_text("x = 1")
    files = dag.host().directory(str(root))
    inner = dag.container().from_("alpine:3").with_directory("/in", files)
    return dag.container().from_("python:3.11").with_directory("/src", inner.directory("/in"))


def test_what_a_step_was_given_is_known_when_the_sdk_has_forgotten_it(tmp_path: Path) -> None:
    """At every depth, and for whatever query goes on from there."""
    queries, container = Queries(), box(tmp_path)
    queries.keep(container)
    before = inputs(container, queries)
    asked(container)
    assert {"file main.py", "image alpine:3"} <= set(before)
    assert inputs(container, queries) == before
    assert inputs(container.with_exec(["make"]), queries).items() >= before.items()
    assert "file main.py" not in inputs(container)


def test_commands_and_services_are_remembered_with_what_is_in_them(tmp_path: Path) -> None:
    queries, container = Queries(), box(tmp_path)
    service = Service(container=container, port=1, name="db")
    command = Command(dag.container().from_("x:1"), "make", services=[service])
    queries.keep({"one": [command]})
    asked(container)
    assert "db: file main.py" in inputs(command, queries)


def test_what_the_engine_gave_back_is_known_by_what_it_was_made_from(tmp_path: Path) -> None:
    queries, container = Queries(), box(tmp_path)
    context: Any = container._ctx
    evaluated = dagger.Container(context.select_id("Container", "an id"))
    queries.keep_as(evaluated, container)
    asked(container)
    assert "file main.py" in inputs(evaluated, queries)
