from __future__ import annotations

from pathlib import Path

import pytest

from penstock.affected import HostFolder, affected, goes_on
from penstock.model import Stage

ROOT = Path("/shop")


@pytest.mark.parametrize(
    ("include", "exclude", "name", "held"),
    [
        (["app"], [], "app/api/main.py", True),
        (["app"], [], "application/main.py", False),
        (["app/"], [], "app/main.py", True),
        (["./app"], [], "app/main.py", True),
        (["."], [], "deep/er.py", True),
        ([], [], "anything", True),
        (["*.py"], [], "main.py", True),
        (["*.py"], [], "app/main.py", False),
        (["**/*.py"], [], "main.py", True),
        (["**/*.py"], [], "app/api/main.py", True),
        (["app/**"], [], "app/api/main.py", True),
        (["app/?.py"], [], "app/a.py", True),
        (["app/[ab].py"], [], "app/c.py", False),
        (["app/[^ab].py"], [], "app/c.py", True),
        (["a+b.py"], [], "a+b.py", True),
        (["app"], ["**/*.pyc"], "app/main.pyc", False),
        (["app"], ["**/__pycache__"], "app/__pycache__/main.txt", False),
        (["app"], ["app/data"], "app/data/big.bin", False),
        (["app", "!app/data"], [], "app/data/big.bin", False),
        (["app"], ["app/data", "!app/data/small.bin"], "app/data/small.bin", True),
    ],
)
def test_folder_holds_what_the_engine_would_take(
    include: list[str], exclude: list[str], name: str, *, held: bool
) -> None:
    folder = HostFolder(ROOT, tuple(include), tuple(exclude))
    assert folder.holds(ROOT / name) is held


def test_folder_holds_nothing_beside_it() -> None:
    assert not HostFolder(ROOT).holds(Path("/shopping/list"))


def stage(name: str, *needs: str) -> Stage:
    return Stage(name=name, title=name, needs=needs)


STAGES = {
    one.name: one
    for one in (stage("lint"), stage("test", "lint"), stage("docs"), stage("all", "docs", "test"))
}
APP, DOCS = HostFolder(ROOT, ("app",)), HostFolder(ROOT, ("docs",))
READS = {"lint": [APP], "test": [APP], "docs": [DOCS], "all": [DOCS]}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (["app/main.py"], {"lint", "test", "all"}),
        (["docs/index.md"], {"docs", "all"}),
        (["docs/index.md", "app/main.py"], {"lint", "test", "docs", "all"}),
        (["README.md"], set()),
    ],
)
def test_affected_is_what_reads_a_file_and_what_stands_behind_it(
    changed: list[str], found: set[str]
) -> None:
    assert affected({ROOT / name for name in changed}, STAGES, READS) == found


def test_stage_that_never_ran_counts_as_affected() -> None:
    """Nobody knows yet what it reads."""
    reads = {name: folders for name, folders in READS.items() if name != "docs"}
    assert affected({ROOT / "README.md"}, STAGES, reads) == {"docs", "all"}


@pytest.mark.parametrize(
    ("running", "outdated", "holds", "kept"),
    [
        ({"a", "b"}, {"a"}, {"a": set(), "b": set()}, {"b"}),
        ({"a", "b"}, {"a"}, {"a": {"db"}, "b": {"db"}}, set()),
        ({"a", "b"}, set(), {"a": {"db"}, "b": {"db"}}, {"a", "b"}),
        # A stage that has passed is there again in the next run, and what it uses too.
        ({"b"}, set(), {"a": {"db"}, "b": {"db"}}, set()),
        # `a` begins anew for the sake of `c`, and `b` for that of `a`.
        ({"a", "b", "c"}, {"c"}, {"a": {"x", "y"}, "b": {"x"}, "c": {"y"}}, set()),
    ],
)
def test_running_stage_goes_on_unless_it_shares_something_with_one_that_does_not(
    running: set[str], outdated: set[str], holds: dict[str, set[str]], kept: set[str]
) -> None:
    assert goes_on(running, outdated, holds) == kept
