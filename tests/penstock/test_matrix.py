from __future__ import annotations

from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.matrix import Axes, CellsOf, cell, cells, findings, matching, suffix, word


class Database(Enum):
    OLD = "14"
    NEW = "15"


class Pair(Enum):
    BOTH = ("3.12", Database.NEW)


WORDS = st.text(st.characters(categories=["L", "N"]) | st.sampled_from("=. -_()"), min_size=1)
AXES = st.dictionaries(
    st.sampled_from(["python", "db", "os", "n"]),
    st.lists(
        WORDS | st.integers() | st.tuples(WORDS, WORDS), min_size=1, max_size=3, unique_by=word
    ),
    max_size=3,
)


def stage() -> None: ...


@settings(deadline=None)
@given(AXES)
def test_cell_ids_are_unique_and_the_same_each_time(axes: dict[str, list[Any]]) -> None:
    """As many ids as combinations of values, and the author's order of axes and values keeps them."""
    assert list(findings(axes, ())) == []
    ids = [suffix(values) for values in cells(axes)]
    assert len(set(ids)) == len(ids)
    assert ids == [suffix(values) for values in cells(axes)]
    turned = {axis: values[::-1] for axis, values in axes.items()}
    assert set(ids) == {suffix(values) for values in cells(turned)}


def test_last_axis_moves_fastest() -> None:
    """Cells come in the order in which nested loops would make them."""
    made = [suffix(values) for values in cells({"python": ("3.11", "3.12"), "db": Database})]
    assert made == [
        "[python=3.11,db=14]",
        "[python=3.11,db=15]",
        "[python=3.12,db=14]",
        "[python=3.12,db=15]",
    ]


def test_stage_without_a_matrix_is_one_cell_without_a_suffix() -> None:
    """No axes, one nameless combination."""
    assert [suffix(values) for values in cells({})] == [""]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ([], ["1x", "1y", "2x", "2y"]),
        ([{"a": "1", "b": "x"}], ["1y", "2x", "2y"]),
        ([{"a": "1"}], ["2x", "2y"]),
        ([{"a": "1"}, {"b": "y"}], ["2x"]),
    ],
)
def test_exclusion_leaves_out_every_cell_that_has_its_values(
    exclude: list[dict[str, str]], left: list[str]
) -> None:
    """One axis excludes a row, two a cell."""
    made = cells({"a": ["1", "2"], "b": ["x", "y"]}, exclude)
    assert [values["a"] + values["b"] for values in made] == left


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3.12", "3.12"),
        (3, "3"),
        (True, "True"),
        (Database.NEW, "15"),
        (("3.12", Database.NEW), "3.12-15"),
        (Pair.BOTH, "3.12-15"),
    ],
)
def test_values_stand_in_names_as_plain_words(value: object, expected: str) -> None:
    """An enum by its value, a tuple by its parts."""
    assert word(value) == expected


@pytest.mark.parametrize(
    ("meant", "candidate", "needing", "expected"),
    [
        (cell(stage, db="14"), {"db": "14", "python": "3.11"}, {}, True),
        (cell(stage, db="14"), {"db": "15", "python": "3.11"}, {}, False),
        (cell(stage, bd="14"), {"db": "14"}, {}, False),
        (cell(stage), {}, {"db": "14"}, True),
        (matching(stage), {"db": "14", "os": "a"}, {"db": "14", "python": "3.11"}, True),
        (matching(stage), {"db": "15"}, {"db": "14"}, False),
        (matching(stage), {"os": "a"}, {"db": "14"}, True),
        (matching(stage), {"db": "15"}, {}, True),
        (CellsOf(stage, {"os": "a"}, matching=True), {"db": "1", "os": "b"}, {"db": "1"}, False),
    ],
)
def test_needs_mean_the_cells_that_agree(
    meant: CellsOf, candidate: dict[str, str], needing: dict[str, str], expected: bool
) -> None:
    """Named values must be there; `matching` compares the axes that both cells have."""
    assert meant.includes(candidate, needing) is expected


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"py thon": ["1"]}, "has the matrix axis 'py thon', which is no name"),
        ({3: ["1"]}, "has the matrix axis '3', which is no name"),
        ({"a": "3.12"}, "has one text on the matrix axis 'a'; write a list of values"),
        ({"a": 3}, "has no list of values on the matrix axis 'a'"),
        ({"a": {"1", "2"}}, "has no list of values on the matrix axis 'a'"),
        ({"a": (v for v in "12")}, "has no list of values on the matrix axis 'a'"),
        ({"a": []}, "has no value on the matrix axis 'a'; give one or drop the axis"),
        ({"a": ["1", "2", 1]}, "has '1' twice on the matrix axis 'a'; drop one"),
        ({"a": ["1,2"]}, "has a value on the matrix axis 'a' that no name can hold"),
        ({"a": ["\x1b[31m"]}, "has a value on the matrix axis 'a' that no name can hold"),
        ({"a": [""]}, "has a value on the matrix axis 'a' that no name can hold"),
        ({"a": ["3.9", 3.10]}, "has a value of type float on the matrix axis 'a'"),
        ({"a": [("3.9", 3.10)]}, "has a value of type tuple on the matrix axis 'a'"),
        ({"a": [object()]}, "has a value of type object on the matrix axis 'a'"),
    ],
)
def test_bad_axis_is_found(axes: dict[Any, Any], expected: str) -> None:
    """What would make unstable, equal or unreadable cell ids is refused, naming the axis."""
    (finding,) = findings(axes, ())
    assert finding.startswith(expected)


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ({"b": "1"}, "excludes a cell by the axis 'b', which its matrix does not have"),
        ({"a": "3"}, "excludes '3', which is not on its matrix axis 'a'"),
        ({}, "can never run: every cell of its matrix is excluded"),
    ],
)
def test_bad_exclusion_is_found(exclude: dict[str, str], expected: str) -> None:
    """An exclusion that excludes nothing, or everything, is a slip."""
    assert list(findings({"a": ["1", "2"]}, [exclude])) == [expected]


def test_typed_axes_and_exclusions_of_their_values_are_right() -> None:
    """Texts, whole numbers, tuples and enums of them make a matrix without findings."""
    axes: Axes = {"db": Database, "pair": Pair, "os": ("a", "b"), "n": range(3), "t": [("3.12", 1)]}
    assert list(findings(axes, [{"db": Database.OLD, "os": "b"}])) == []


def test_exclusions_are_looked_at_once_the_axes_are_right() -> None:
    """One slip is told once."""
    assert len(list(findings({"a": []}, [{"a": "1"}]))) == 1
