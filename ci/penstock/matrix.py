"""Matrices: one stage for each combination of values. Pure, no Dagger.

`matrix={"python": ["3.11", "3.12"]}` makes `test[python=3.11]` and `test[python=3.12]`. What needs
`test` waits for all of its cells; `matching(test)` and `cell(test, python="3.12")` wait for some.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

Axes = Mapping[str, Sequence[Any] | type[Enum]]
Cell = Mapping[str, Any]


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
        return all(axis in candidate and candidate[axis] == wanted[axis] for axis in wanted)


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
    return [
        candidate
        for candidate in made
        if not any(CellsOf(cells, left_out).includes(candidate, {}) for left_out in exclude)
    ]


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
    yield from found
    for left_out in exclude:
        for axis, value in left_out.items():
            if axis not in axes:
                yield f"excludes a cell by the axis '{axis}', which its matrix does not have"
            elif value not in list(axes[axis]):
                yield f"excludes '{word(value)}', which is not on its matrix axis '{axis}'"
    if axes and not found and not cells(axes, exclude):
        yield "can never run: every cell of its matrix is excluded"


def _axis_findings(axis: str, given: Sequence[Any] | type[Enum]) -> Iterator[str]:
    if not axis.isidentifier():
        yield f"has the matrix axis '{axis}', which is no name; write letters, digits and _"
    if isinstance(given, (str, bytes)):
        yield f"has one text on the matrix axis '{axis}'; write a list of values"
        return
    words = [word(value) for value in given]
    if not words:
        yield f"has no value on the matrix axis '{axis}'; give one or drop the axis"
    if double := next((w for w in words if words.count(w) > 1), None):
        yield f"has '{double}' twice on the matrix axis '{axis}'; drop one"
    if any(not w or set(w) & set(",[]\n") for w in words):
        yield f"has a value on the matrix axis '{axis}' that no name can hold; use plain words"
