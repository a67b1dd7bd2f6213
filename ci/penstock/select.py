"""Which stages of a pipeline a run is about: `--only`, `--until`, `--skip`, `-k`, `-t`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.errors import UsageError, did_you_mean
from penstock.graph import Graph
from penstock.model import Skip, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TOKEN = re.compile(r"\s*([()]|[^\s()\[]+(?:\[[^\]]*\])?)")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a user selected; each kind narrows the others.

    Args:
        only: Names of stages, of functions (all cells of their matrix), or of cells.
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
        skipped = set(_named(self.skip, stages))
        behind = graph.dependants(_named(self.until, stages))
        chosen = [stage.name for stage in self._filtered(stages) if stage.name not in behind]
        kept = graph.closure(chosen) - behind
        # Teardown stages belong to what they clean up, unless they were not asked for at all.
        kept |= {n for n, s in stages.items() if s.always and s.needs and kept.issuperset(s.needs)}
        return {
            name: replace(stage, skip=Skip(reason="by --skip", holds=False))
            if name in skipped
            else stage
            for name, stage in stages.items()
            if name in kept
        }

    def _filtered(self, stages: Mapping[str, Stage]) -> Iterator[Stage]:
        only = set(_named(self.only, stages)) if self.only else set(stages)
        if self.failed is not None:
            only &= {n for n, s in stages.items() if {n, s.family} & set(self.failed)}
        matches = Keywords(self.keywords) if self.keywords.strip() else None
        known = {tag for stage in stages.values() for tag in stage.tags}
        for tag in self.tags:
            if tag not in known:
                message = f"no stage has the tag '{tag}'{_hint(tag, sorted(known))}"
                raise UsageError(message)
        for name in only if len(only) < len(stages) else stages:
            stage = stages[name]
            if self.tags and not set(self.tags) & set(stage.tags):
                continue
            if matches is None or matches(name):
                yield stage


def _named(names: Sequence[str], stages: Mapping[str, Stage]) -> Iterator[str]:
    """Yield the stages that the names stand for."""
    for given in names:
        # On the command line a stage may be written in kebab case.
        for name in (given, given.replace("-", "_")):
            found = [s.name for s in stages.values() if name in {s.name, s.family}]
            if found:
                yield from found
                break
        else:
            known = dict.fromkeys(n for s in stages.values() for n in (s.family, s.name))
            message = f"no stage is named '{given}'{_hint(given, list(known))}"
            raise UsageError(message)


def _hint(name: str, known: Sequence[str]) -> str:
    listed = f"; there are: {', '.join(known)}" if known else "; there is none"
    return did_you_mean(name, known) or listed


class Keywords:
    """An expression over names, `(unit or lint) and not slow`: a word matches what contains it.

    Args:
        expression: Words, `and`, `or`, `not` and parentheses.

    Raises:
        UsageError: When it cannot be read.
    """

    def __init__(self, expression: str) -> None:
        self._words = _TOKEN.findall(expression)
        self._expression = expression
        self("")  # a wrong expression is told before anything is matched

    def __call__(self, name: str) -> bool:
        """Return whether a name matches."""
        self._left = list(self._words)
        self._name = name.lower()
        value = self._either()
        if self._left:
            self._fail(f"'{self._left[0]}' stands where nothing can")
        return value

    def _either(self) -> bool:
        value = self._both()
        while self._left[:1] == ["or"]:
            self._left.pop(0)
            value = self._both() or value
        return value

    def _both(self) -> bool:
        value = self._one()
        while self._left[:1] == ["and"]:
            self._left.pop(0)
            value = self._one() and value
        return value

    def _one(self) -> bool:
        word = self._left.pop(0) if self._left else ""
        if word == "not":
            return not self._one()
        if word == "(":
            value = self._either()
            if not self._left or self._left.pop(0) != ")":
                self._fail("a parenthesis is not closed")
            return value
        if word in {"", ")", "and", "or"}:
            self._fail(f"a word is missing before '{word}'" if word else "it ends too early")
        return word.lower() in self._name

    def _fail(self, why: str) -> None:
        message = f"cannot read `-k '{self._expression}'`: {why}; write as `unit and not slow`"
        raise UsageError(message)
