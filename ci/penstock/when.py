"""Conditions for `when=`: where, and after which changes, a stage runs.

    from penstock.when import changed, on_branch

    @pipeline.stage(needs=[build], when=on_branch("main") & changed("app/**"))

They combine by `&`, `|` and `~`. A stage that may not run here holds back what needs it; one that
has nothing to do, because nothing `changed`, lets it go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from penstock.model import Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.config import RunInfo


@dataclass(frozen=True)
class Condition:
    """Something that holds in a run or does not.

    Args:
        unmet: Returns why it does not hold in a run, or nothing.
        met: The same for its opposite.
        only_on: `branch` or `tag` when it holds on nothing else.
    """

    unmet: Callable[[RunInfo], Skip | None]
    met: Callable[[RunInfo], Skip | None]
    only_on: frozenset[str] = frozenset()

    def __and__(self, other: Condition) -> Condition:
        """Hold where both do."""
        return Condition(
            lambda run: _joined(any, self.unmet(run), other.unmet(run)),
            lambda run: _joined(all, self.met(run), other.met(run)),
            self.only_on | other.only_on,
        )

    def __or__(self, other: Condition) -> Condition:
        """Hold where one of both does."""
        return replace(~(~self & ~other), only_on=self.only_on & other.only_on)

    def __invert__(self) -> Condition:
        """Hold where it does not."""
        return Condition(self.met, self.unmet)

    def __bool__(self) -> bool:
        """Refuse `a and b`, which would silently be just `b`."""
        message = "a condition is decided when the pipeline runs; combine by `&`, `|` and `~`"
        raise TypeError(message)


def on_branch(pattern: str, /, *more: str) -> Condition:
    """Run on these branches only; `*` matches anything, `/` included.

    The branch of a pull request is the one that it brings; that of a fork carries the owner's
    name, `owner:main`, and so is none of ours.
    """
    patterns = (pattern, *more)
    return _simple(
        lambda run: not run.tag and _matches(run.branch, patterns),
        f"on branch {' or '.join(patterns)}",
        only_on=frozenset({"branch"}),
    )


def on_tag(*patterns: str) -> Condition:
    """Run for these tags only, by default for any; `v*` matches `v1.0`."""
    words = f"on tag {' or '.join(patterns)}" if patterns else "on a tag"
    return _simple(
        lambda run: bool(run.tag) and _matches(run.tag, patterns or ("*",)),
        words,
        only_on=frozenset({"tag"}),
    )


def env(variable: str, value: str | None = None) -> Condition:
    """Run where an environment variable is set (to something but nothing), or has this value."""
    if value is None:
        return _simple(lambda run: bool(run.environ.get(variable)), f"with {variable} set")
    return _simple(lambda run: run.environ.get(variable) == value, f"with {variable}={value}")


def changed(pattern: str, /, *more: str) -> Condition:
    """Run when a file changed that one of the patterns matches (git's own globs, `**` included).

    Compared are the working tree, uncommitted and untracked files included, and the commit on
    which the change is based: the target of the pull request, what was there before the push, or
    where the branch left the default branch. Where git cannot tell, everything counts as changed.
    """
    patterns = (pattern, *more)
    words = " or ".join(patterns)
    unmet = Skip(reason=f"nothing changed in {words}", holds=False)
    return _simple(lambda run: run.has_changed(patterns), f"{words} changed", unmet=unmet)


def _simple(
    holds: Callable[[RunInfo], bool],
    words: str,
    *,
    unmet: Skip | None = None,
    only_on: frozenset[str] = frozenset(),
) -> Condition:
    unmet = unmet or Skip(reason=f"not {words}")
    met = Skip(reason=words)
    return Condition(
        lambda run: None if holds(run) else unmet,
        lambda run: met if holds(run) else None,
        only_on,
    )


def _joined(enough: Callable[[Iterable[object]], bool], *given: Skip | None) -> Skip | None:
    """Join reasons: `any` or `all` have to be there, and `any` or `all` of them hold back."""
    if not enough(given):
        return None
    found = [skip for skip in given if skip]
    reason = " and ".join(skip.reason for skip in found)
    return Skip(reason=reason, holds=enough(skip.holds for skip in found))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
