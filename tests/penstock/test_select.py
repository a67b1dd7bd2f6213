from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.model import Skip, Stage
from penstock.select import Selection, keywords


def stage(name: str, needs: str = "", tags: str = "", *, always: bool = False) -> Stage:
    family = name.partition("[")[0]
    return Stage(
        name=name,
        family=family,
        needs=tuple(needs.split()),
        tags=tuple(tags.split()),
        always=always,
    )


TESTS = "test[python=3.11,db=pg-14] test[python=3.11,db=pg-15] test[python=3.12,db=pg-15]"
OLD, MIDDLE, NEW = TESTS.split()
STAGES = {
    s.name: s
    for s in [
        stage("lint", tags="fast"),
        stage("unit_test", "lint", tags="fast"),
        stage(OLD, "lint", tags="slow"),
        stage(MIDDLE, "lint", tags="slow"),
        stage(NEW, "lint", tags="slow db"),
        stage("build", f"unit_test {TESTS}"),
        stage("push", "build"),
        stage("drop_db", TESTS, always=True),
        stage("tell", "drop_db", always=True),
        stage("last_words", always=True),
    ]
}
EVERY = list(STAGES)


def selected(selection: Selection) -> list[str]:
    return list(selection.apply(STAGES))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), EVERY),
        (Selection(only=["lint"]), ["lint"]),
        (Selection(only=["unit_test"]), ["lint", "unit_test"]),
        (Selection(only=["unit-test"]), ["lint", "unit_test"]),
        (Selection(only=[" unit_test "]), ["lint", "unit_test"]),
        (Selection(only=[NEW]), ["lint", NEW]),
        (Selection(only=["test[db=pg-15,python=3.12]"]), ["lint", NEW]),
        (Selection(only=["test[python=3.11]"]), ["lint", OLD, MIDDLE]),
        (Selection(only=["test"]), ["lint", OLD, MIDDLE, NEW, "drop_db", "tell"]),
        (Selection(only=[OLD, "unit-test"]), ["lint", "unit_test", OLD]),
        (Selection(only=["last-words"]), ["last_words"]),
        (Selection(until=["lint"]), ["lint", "last_words"]),
        (Selection(until=["build"]), [n for n in EVERY if n != "push"]),
        (Selection(until=["test"]), ["lint", "unit_test", *TESTS.split(), *EVERY[-3:]]),
        (Selection(keywords="test"), [*EVERY[:5], "drop_db", "tell"]),
        (Selection(keywords="test and not 3.1"), ["lint", "unit_test"]),
        (Selection(tags=["fast"]), ["lint", "unit_test"]),
        (Selection(tags=["db", "fast"]), ["lint", "unit_test", NEW]),
        (Selection(only=["test"], tags=["db"]), ["lint", NEW]),
        (Selection(only=["test"], keywords="3.11", until=["push"]), ["lint", OLD, MIDDLE]),
        (Selection(only=["push"], until=["test"]), []),
        (Selection(only=["lint"], tags=["slow"]), []),
        (Selection(failed=[NEW, "gone"]), ["lint", NEW]),
        (Selection(failed=[NEW], only=["unit_test"]), []),
        (Selection(failed=["unit_test[a[b]]"]), ["lint", "unit_test"]),
        (Selection(failed=[f"{NEW}[a]"]), ["lint", NEW]),
        (Selection(failed=["test[python=3.10]"]), ["lint", *TESTS.split(), "drop_db", "tell"]),
        (Selection(failed=[]), []),
    ],
)
def test_selection_holds_what_was_asked_for_and_all_that_it_needs(
    selection: Selection, expected: list[str]
) -> None:
    """In definition order; each option narrows the others, teardown comes with what it cleans up."""
    assert selected(selection) == expected


def test_skipped_stages_stay_with_their_reason() -> None:
    """What the user skips is shown, and holds nothing back that does not take its result."""
    chosen = Selection(only=["build"], skip=["test[python=3.11]", "unit-test"]).apply(STAGES)
    skipped = {name for name, stage in chosen.items() if stage.skip}
    assert skipped == {OLD, MIDDLE, "unit_test"}
    assert chosen[OLD].skip == Skip(reason="by --skip", holds=False)
    assert "push" not in chosen


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(only=["biuld"]), "no stage is named 'biuld'; did you mean 'build'?"),
        (
            Selection(until=["unit-tset"]),
            "no stage is named 'unit-tset'; did you mean 'unit_test'?",
        ),
        (Selection(skip=["x"]), "no stage is named 'x'; there are: lint, unit_test, test, build"),
        (Selection(only=["test[python=3.10]"]), "; did you mean 'test[python=3.1"),
        (Selection(only=["lint[python=3.12]"]), "no stage is named 'lint[python=3.12]'"),
        (Selection(only=["build["]), "no stage is named 'build['; did you mean 'build'?"),
        (
            Selection(only=["lint"], tags=["fats"]),
            "no stage has the tag 'fats'; did you mean 'fast'",
        ),
        (Selection(tags=["x"]), "no stage has the tag 'x'; there are: db, fast, slow"),
    ],
)
def test_unknown_name_is_a_usage_error_with_the_nearest(selection: Selection, message: str) -> None:
    """A slip of the user names what was probably meant, or what there is."""
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        selection.apply(STAGES)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("count", "end"), [(20, "s18, s19"), (21, "s18, s19, ...")])
def test_long_list_of_names_is_cut(count: int, end: str) -> None:
    """A message stays readable however many stages there are."""
    stages = {f"s{number}": stage(f"s{number}") for number in range(count)}
    with pytest.raises(UsageError) as caught:
        Selection(only=["unlike"]).apply(stages)
    assert str(caught.value).endswith(end)


def test_where_no_stage_has_a_tag_the_message_says_so() -> None:
    """There is nothing to list then."""
    with pytest.raises(UsageError, match="no stage has the tag 'slow'; there is none"):
        Selection(tags=["slow"]).apply({"lint": stage("lint")})


NAMES = st.lists(st.sampled_from(EVERY), max_size=3)


@given(NAMES, NAMES, st.sampled_from(["", "test", "not 3.11", "build or lint"]))
def test_selection_is_closed_under_needs(only: list[str], until: list[str], words: str) -> None:
    """Whatever is asked for, no stage comes without all that it needs."""
    chosen = Selection(only=only, until=until, keywords=words).apply(STAGES)
    assert all(need in chosen for stage in chosen.values() for need in stage.needs)
    assert list(chosen) == [name for name in EVERY if name in chosen]


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "ab", "c"]),
    lambda inner: st.one_of(
        inner.map(lambda one: f"not {one}"),
        inner.map(lambda one: f"({one})"),
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join),
    ),
)


@settings(deadline=None)
@given(EXPRESSIONS, st.text("abcd", max_size=4))
def test_expression_means_what_python_means(expression: str, name: str) -> None:
    """`and`, `or`, `not` and parentheses bind as in Python; a word is true where it occurs."""
    in_python = re.sub(r"\b(a|b|ab|c)\b", rf"('\1' in '{name}')", expression)
    assert keywords(expression)(name) == eval(in_python)  # noqa: S307 - our own words


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("UNIT", "unit_test"),
        ("unit-test", "Unit_Test"),
        ("test[os=Debian 12]", "test[os=Debian 12]"),
        ("[os=a(b)]", "test[os=a(b)]"),
        ("(((test)))", "test"),
        ("not(x)and test", "test"),
        ("note", "notes"),
    ],
)
def test_words_are_parts_of_names(expression: str, name: str) -> None:
    """Case and dashes do not matter; what stands in brackets is one word."""
    assert keywords(expression)(name)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("unit slow", "'slow' stands where nothing can"),
        ("unit)", "')' stands where nothing can"),
        ("unit and", "it ends too early"),
        ("", "it ends too early"),
        ("not", "it ends too early"),
        ("(unit or slow", "a parenthesis is not closed"),
        ("(unit slow)", "a parenthesis is not closed"),
        ("()", "a word is missing before ')'"),
        ("and unit", "a word is missing before 'and'"),
        ("unit or or slow", "a word is missing before 'or'"),
    ],
)
def test_unreadable_expression_says_why(expression: str, why: str) -> None:
    """The message repeats the expression, says what is wrong and how to write it."""
    with pytest.raises(UsageError) as caught:
        keywords(expression)
    expected = f"cannot read `-k '{expression}'`: {why}; write as `unit and not slow`"
    assert str(caught.value) == expected
