from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import RunInfo
from penstock.when import Condition, changed, env, on_branch, on_tag

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Run(RunInfo):
    """A run that need not ask git what changed."""

    id: str = ""
    root: Path = field(default_factory=Path)
    commit: str = ""
    branch: str = ""
    changes: str = ""

    def has_changed(self, patterns: Sequence[str]) -> bool:
        return self.changes in patterns


MAIN = on_branch("main")
APP = changed("app/**")
HERE: dict[str, Any] = {
    "branch": "main",
    "changes": "app/**",
    "environ": {"DEPLOY": "yes", "EMPTY": ""},
}
ELSEWHERE: dict[str, Any] = {"branch": "topic"}
TAGGED: dict[str, Any] = {"tag": "v1.2"}


@pytest.mark.parametrize(
    ("condition", "run", "reason"),
    [
        (MAIN, HERE, None),
        (MAIN, ELSEWHERE, "not on branch main"),
        (MAIN, TAGGED, "not on branch main"),
        (MAIN, {"branch": "somebody:main"}, "not on branch main"),
        (on_branch("main", "release/*"), {"branch": "release/1/x"}, None),
        (on_branch("main", "release/*"), ELSEWHERE, "not on branch main or release/*"),
        (on_branch("*"), TAGGED, "not on branch *"),
        (on_tag(), TAGGED, None),
        (on_tag("v*"), TAGGED, None),
        (on_tag("w*", "x*"), TAGGED, "not on tag w* or x*"),
        (on_tag(), HERE, "not on a tag"),
        (env("DEPLOY"), HERE, None),
        (env("DEPLOY", "yes"), HERE, None),
        (env("DEPLOY", "no"), HERE, "not with DEPLOY=no"),
        (env("EMPTY"), HERE, "not with EMPTY set"),
        (env("DEPLOY"), ELSEWHERE, "not with DEPLOY set"),
        (APP, HERE, None),
        (changed("lib/**", "app/**"), HERE, None),
        (changed("lib/**", "*.md"), HERE, "nothing changed in lib/** or *.md"),
        (~MAIN, HERE, "on branch main"),
        (~on_tag(), TAGGED, "on a tag"),
        (~env("DEPLOY"), HERE, "with DEPLOY set"),
        (~APP, HERE, "app/** changed"),
        (~APP, ELSEWHERE, None),
        (MAIN & APP, ELSEWHERE, "not on branch main and nothing changed in app/**"),
        (MAIN & env("NO"), HERE, "not with NO set"),
        (MAIN | env("NO"), HERE, None),
        (MAIN | env("NO"), ELSEWHERE, "not on branch main and not with NO set"),
        (~(MAIN & APP), HERE, "on branch main and app/** changed"),
        (~(MAIN | env("NO")), HERE, "on branch main"),
    ],
)
def test_reason_says_what_does_not_hold(
    condition: Condition, run: dict[str, Any], reason: str | None
) -> None:
    """A stage is skipped in the words of its condition, and runs where it holds."""
    skip = condition.unmet(Run(**run))
    assert (skip and skip.reason) == reason


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (MAIN, True),
        (APP, False),
        (MAIN & APP, True),
        (APP & MAIN, True),
        (APP & changed("lib/**"), False),
        (env("DEPLOY") & ~MAIN & APP, True),
        (MAIN | APP, False),
        (MAIN | on_tag(), True),
        (APP | changed("lib/**"), False),
    ],
)
def test_stage_that_has_nothing_to_do_lets_others_go_on(condition: Condition, holds: bool) -> None:
    """What a change would have made run holds nothing back; what may not run here does."""
    skip = condition.unmet(Run(**ELSEWHERE))
    assert skip
    assert skip.holds is holds


ATOMS = {"a": MAIN, "b": APP, "c": env("DEPLOY")}
TREES = st.recursive(
    st.sampled_from(list(ATOMS)),
    lambda inner: st.one_of(
        inner.map(lambda one: f"(not {one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
    ),
)


@given(TREES, st.booleans(), st.booleans(), st.booleans())
def test_conditions_combine_as_logic_does(tree: str, a: bool, b: bool, c: bool) -> None:
    """`&`, `|` and `~` hold where Python's `and`, `or` and `not` do; the opposite where they do not."""
    branch, changes, environ = "main" if a else "", "app/**" if b else "", {"DEPLOY": "1" * c}
    run = Run(branch=branch, changes=changes, environ=environ)
    combined = tree.replace("and", "&").replace("or", "|").replace("not", "~")
    condition = eval(combined, ATOMS)  # noqa: S307 - our own words
    expected = eval(tree, {"a": a, "b": b, "c": c})  # noqa: S307 - our own words
    assert (condition.unmet(run) is None, condition.met(run) is None) == (expected, not expected)


@pytest.mark.parametrize(
    ("condition", "only_on"),
    [
        (MAIN, {"branch"}),
        (MAIN & on_tag(), {"branch", "tag"}),
        (MAIN | on_tag(), set()),
        (MAIN & env("A"), {"branch"}),
        (~MAIN, set()),
    ],
)
def test_condition_knows_where_alone_it_can_hold(condition: Condition, only_on: set[str]) -> None:
    """So that a stage that wants a branch and a tag is refused when it is defined."""
    assert condition.only_on == only_on


def test_plain_and_is_refused() -> None:
    """`a and b` would silently be `b`."""
    with pytest.raises(TypeError, match=r"combine by `&`, `|` and `~`"):
        MAIN and APP  # noqa: B018 - the point of the test
