"""Matrices: one stage for each combination of values. Pure, no Dagger.

`matrix={"python": ["3.11", "3.12"]}` makes `test[python=3.11]` and `test[python=3.12]`. What needs
`test` waits for all of its cells; `matching(test)` and `cell(test, python="3.12")` wait for some.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, EnumType
from typing import Any

Axes = Mapping[str, Sequence[Any] | type[Enum]]
Cell = Mapping[str, Any]
MOST_CELLS = 10_000  # before exclusions; what is longer was meant otherwise


@dataclass(frozen=True)
class CellsOf:
    """Some cells of a stage, for `needs`.

    Args:
        function: The stage.
        values: What the cells must have on these axes.
        matching: They must agree with the needing cell on every axis that both have.
    """

    function: Callable[..., Any]
    values: Cell
    matching: bool = False

    def includes(self, candidate: Cell, needing: Cell) -> bool:
        """Return whether a cell is meant, from the view of the cell that needs it."""
        wanted = dict(self.values)
        if self.matching:
            wanted |= {axis: value for axis, value in needing.items() if axis in candidate}
        return _agrees(candidate, wanted)


def cell(function: Callable[..., Any], /, **values: Any) -> CellsOf:  # noqa: ANN401 - any value
    """Return the cells of a stage that have these values, for `needs`."""
    return CellsOf(function, values)


def matching(function: Callable[..., Any], /) -> CellsOf:
    """Return the cells of a stage that agree with the needing cell on every axis that both have."""
    return CellsOf(function, {}, matching=True)


def cells(axes: Axes, exclude: Sequence[Cell] = ()) -> list[dict[str, Any]]:
    """Return every combination of values that no exclusion matches, the last axis moving fastest."""
    combinations = itertools.product(*(list(values) for values in axes.values()))
    made = [dict(zip(axes, values, strict=True)) for values in combinations]
    return [cell for cell in made if not any(_agrees(cell, left_out) for left_out in exclude)]


def suffix(of: Cell) -> str:
    """Return what a cell's name ends in, `[db=15,python=3.12]`; empty without a matrix."""
    return f"[{','.join(f'{axis}={word(value)}' for axis, value in of.items())}]" if of else ""


def word(value: Any) -> str:  # noqa: ANN401 - any value
    """Return a value as it stands in names."""
    if isinstance(value, Enum):
        value = value.value
    return "-".join(map(word, value)) if isinstance(value, tuple) else str(value)


def findings(axes: Axes, exclude: Sequence[Cell]) -> Iterator[str]:
    """Yield what is wrong with a matrix, in words that follow `stage 'x' `."""
    found = [words for axis, given in axes.items() for words in _axis_findings(axis, given)]
    found = found or [words for cell in exclude for words in _exclusion_findings(cell, axes)]
    if not found and (size := math.prod(map(len, axes.values()))) > MOST_CELLS:
        found = [f"has a matrix of {size} cells, and the most is {MOST_CELLS}; leave out values"]
    yield from found
    if axes and not found and not cells(axes, exclude):
        yield "can never run: every cell of its matrix is excluded"


def _agrees(candidate: Cell, wanted: Cell) -> bool:
    return all(axis in candidate and candidate[axis] == wanted[axis] for axis in wanted)


def _axis_findings(axis: str, given: object) -> Iterator[str]:
    if not str(axis).isidentifier():
        yield f"has the matrix axis '{axis}', which is no name; write letters, digits and _"
    if isinstance(given, (str, bytes)):
        yield f"has one text on the matrix axis '{axis}'; write a list of values"
        return
    if not isinstance(given, (Sequence, EnumType)):
        # What has no order, or can be read only once, would name other cells each time.
        yield f"has no list of values on the matrix axis '{axis}'; write a list, a tuple or an enum"
        return
    words = [word(value) for value in given]
    if not words:
        yield f"has no value on the matrix axis '{axis}'; give one or drop the axis"
    if double := next((w for w in words if words.count(w) > 1), None):
        yield f"has '{double}' twice on the matrix axis '{axis}'; drop one"
    elif len({re.sub(r"[^\w.=+-]", "-", w) for w in words}) < len(words):
        yield f"has values on the matrix axis '{axis}' that are one in the names of files; use plain words"
    if any(not w or not w.isprintable() or set(w) & set(",[]") for w in words):
        yield f"has a value on the matrix axis '{axis}' that no name can hold; use plain words"
    if odd := [type(value).__name__ for value in given if not _is_plain(value)]:
        yield (
            f"has a value of type {odd[0]} on the matrix axis '{axis}'; write texts, whole numbers, "
            f"tuples of them, or an enum (3.10 and 3.1 are the same float)"
        )


def _is_plain(value: object) -> bool:
    """Return whether a value is the same word in every run."""
    if isinstance(value, Enum):
        value = value.value
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, str | int)


def _exclusion_findings(left_out: Cell, axes: Axes) -> Iterator[str]:
    for axis, value in left_out.items():
        if axis not in axes:
            yield f"excludes a cell by the axis '{axis}', which its matrix does not have"
        elif value not in list(axes[axis]):
            yield f"excludes '{word(value)}', which is not on its matrix axis '{axis}'"
