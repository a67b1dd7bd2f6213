"""Where the team's cache lies, and who may use it; what is in it needs an engine to be tested."""

from __future__ import annotations

import pytest
from dagger import dag

from penstock.cache import Repository
from penstock.errors import UsageError
from penstock.recipes import prepared
from penstock.verdicts import _read

NAME = "registry.example:5000/team/app/cache"
LOGIN = {"REGISTRY_USER": "robot", "REGISTRY_TOKEN": "token-of-the-registry"}


def test_without_the_variable_there_is_no_cache() -> None:
    """And nothing becomes of what an author has prepared."""
    container = dag.container().from_("python:3.11-slim")
    assert Repository.discover({}) is None
    assert Repository.discover({"PENSTOCK_CACHE": ""}) is None
    assert prepared(container) is container


def test_login_of_the_registry_is_given_to_its_own_host_only() -> None:
    ours = Repository.discover(
        {"PENSTOCK_CACHE": NAME, "REGISTRY": "registry.example:5000"} | LOGIN
    )
    other = Repository.discover({"PENSTOCK_CACHE": NAME, "REGISTRY": "registry.example"} | LOGIN)
    nowhere = Repository.discover({"PENSTOCK_CACHE": NAME} | LOGIN)
    assert ours == Repository(NAME, "robot", "token-of-the-registry")
    assert other == nowhere == Repository(NAME)
    assert "token-of" not in repr(ours)


@pytest.mark.parametrize(
    "name",
    [
        "cache",
        "https://registry.example/team/cache",
        "registry.example/Team/cache",
        f"{NAME}:tag",
        f"{NAME} ",
        "registry.example/",
    ],
)
def test_name_that_no_image_could_have_is_refused(name: str) -> None:
    """Before anything starts, with the variable's name and an example."""
    with pytest.raises(UsageError, match=r"PENSTOCK_CACHE wants a registry's repository.*like `"):
        Repository.discover({"PENSTOCK_CACHE": name})


@pytest.mark.parametrize("label", ["", "{", "[]", "{}", '{"run_id": "a", "duration_s": "b"}'])
def test_verdict_that_cannot_be_read_is_none(label: str) -> None:
    """Whoever can write to the cache may have written it."""
    assert _read(label) is None
