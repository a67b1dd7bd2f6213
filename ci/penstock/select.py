"""Which stages of a pipeline a run is about: `--only`, `--until`, `--skip`, `-k`, `-t`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from penstock.errors import UsageError, did_you_mean
from penstock.graph import Graph
from penstock.model import Skip, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Matches = Callable[[str], bool]

MOST_LISTED = 20
MOST_WORDS = 200  # of an expression; each may nest the rest once more
_NAME = re.compile(r"([^\[\]]*)(?:\[([^\[\]]*)\])?")
_TOKEN = re.compile(r"[()]|(?:\[[^\]]*\]|[^\s()])+")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a user selected; each kind narrows the others.

    A name is that of a function, which stands for all cells of its matrix, or of a cell; of the
    values in its brackets some may be missing. On the command line `-` is as good as `_`.

    Args:
        only: Names of stages.
        until: Leave out all that stands behind these.
        skip: Do not run these.
        keywords: Names must match, as in `unit and not slow`.
        tags: Stages must carry one of them.
        failed: Stages that did not pass in the last run; absent when it was not asked for.
    """

    only: Sequence[str] = ()
    until: Sequence[str] = ()
    skip: Sequence[str] = ()
    keywords: str = ""
    tags: Sequence[str] = ()
    failed: Sequence[str] | None = None

    def apply(self, stages: Mapping[str, Stage]) -> dict[str, Stage]:
        """Return the selected stages and all that they need, in definition order.

        What is skipped stays in, with the reason, so that it is shown.

        Raises:
            UsageError: When a name, a tag or the expression is wrong.
        """
        graph = Graph({name: stage.needs for name, stage in stages.items()})
        skipped = named(self.skip, stages)
        kept = graph.closure(self._asked_for(stages) - graph.dependants(named(self.until, stages)))
        # Teardown stages belong to what they clean up, also where nobody asked for them.
        for name in graph.order():
            stage = stages[name]
            if stage.always and stage.needs and kept.issuperset(stage.needs):
                kept.add(name)
        by_user = Skip(reason="by --skip", holds=False)
        return {
            name: replace(stage, skip=by_user) if name in skipped else stage
            for name, stage in stages.items()
            if name in kept
        }

    def _asked_for(self, stages: Mapping[str, Stage]) -> set[str]:
        """Return what `--only`, `-k`, `-t` and `--rerun-failed` leave."""
        left = named(self.only, stages) if self.only else set(stages)
        if self.failed is not None:
            left &= set(_that_failed(self.failed, stages))
        if self.tags:
            known = {tag for stage in stages.values() for tag in stage.tags}
            for tag in self.tags:
                if tag not in known:
                    message = f"no stage has the tag '{tag}'{_hint(tag, sorted(known))}"
                    raise UsageError(message)
            left &= {n for n, stage in stages.items() if set(stage.tags) & set(self.tags)}
        if self.keywords.strip():
            left = set(filter(keywords(self.keywords), left))
        return left


def named(names: Sequence[str], stages: Mapping[str, Stage]) -> set[str]:
    """Return the stages that the names stand for."""
    found: set[str] = set()
    for name in names:
        family, values = _parts(name)
        cells = [n for n, stage in stages.items() if _kebab(stage.family) == family]
        meant = {cell for cell in cells if values <= _parts(cell)[1]}
        if not meant:
            known = dict.fromkeys([stage.family for stage in stages.values()])
            message = f"no stage is named '{name}'{_hint(name, [*known, *cells])}"
            raise UsageError(message)
        found |= meant
    return found


def _parts(name: str) -> tuple[str, set[tuple[str, str]]]:
    """Return the function, and the values by axis, that a name on the command line holds."""
    read = _NAME.fullmatch(name.strip())
    if not read:
        return name, set()
    pairs = (pair.partition("=") for pair in (read[2] or "").split(",") if pair)
    return _kebab(read[1]), {(_kebab(axis.strip()), value) for axis, _, value in pairs}


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _that_failed(failed: Iterable[str], stages: Mapping[str, Stage]) -> set[str]:
    """Return the stages that did not pass, and those that found such a stage out."""
    known = stages.keys() | {stage.family for stage in stages.values()}
    meant = set()
    for name in failed:
        while name and name not in known:  # `test[a]` was found out by `test`, or is no cell now
            name = name.rpartition("[")[0]  # noqa: PLW2901 - from the inside outwards
        meant.add(name)
    return {name for name, stage in stages.items() if meant & {name, stage.family}}


def _hint(name: str, known: Sequence[str]) -> str:
    more = ", ..." if len(known) > MOST_LISTED else ""
    listed = f"; there are: {', '.join(known[:MOST_LISTED])}{more}" if known else "; there is none"
    return did_you_mean(name, known) or listed


def keywords(expression: str) -> Matches:
    """Return what tells whether a name matches `(unit or lint) and not slow`.

    A word matches every name that contains it, in upper or lower case, with `-` or `_`.

    Raises:
        UsageError: When the expression cannot be read.
    """
    return _Reader(expression).read()


class _Reader:
    """Reads an expression word by word.

    Args:
        expression: Words, `and`, `or`, `not` and parentheses.
    """

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._left = _TOKEN.findall(expression)

    def read(self) -> Matches:
        """Return what the whole expression means."""
        if len(self._left) > MOST_WORDS:
            self._fail(f"it has more than {MOST_WORDS} words and parentheses")
        matches = self._either()
        if self._left:
            self._fail(f"'{self._left[0]}' stands where nothing can")
        return matches

    def _either(self) -> Matches:
        found = [self._both()]
        while self._takes("or"):
            found.append(self._both())
        return lambda name: any(matches(name) for matches in found)

    def _both(self) -> Matches:
        found = [self._one()]
        while self._takes("and"):
            found.append(self._one())
        return lambda name: all(matches(name) for matches in found)

    def _one(self) -> Matches:
        word = self._left.pop(0) if self._left else ""
        if word == "not":
            opposite = self._one()
            return lambda name: not opposite(name)
        if word == "(":
            inner = self._either()
            if not self._takes(")"):
                self._fail("a parenthesis is not closed")
            return inner
        if word in {"", ")", "and", "or"}:
            self._fail(f"a word is missing before '{word}'" if word else "it ends too early")
        part = _kebab(word).lower()
        return lambda name: part in _kebab(name).lower()

    def _takes(self, word: str) -> bool:
        is_next: bool = self._left[:1] == [word]
        if is_next:
            self._left.pop(0)
        return is_next

    def _fail(self, why: str) -> NoReturn:
        message = f"cannot read `-k '{self._expression}'`: {why}; write as `unit and not slow`"
        raise UsageError(message)
