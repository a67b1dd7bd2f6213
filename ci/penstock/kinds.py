"""Whether values are of the kinds that their types say, as nobody may have checked. Pure."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

MOST_NAME_BYTES = 255  # of a file, on every usual file system


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Args:
        words: What to write or to do instead of a value of another kind.
        holds: Whether a value is of it.
    """

    words: str
    holds: Callable[[Any], bool]

    def findings(self, name: str, value: object) -> list[str]:
        """Return what is wrong with a value: `has 5 as `tags`; write a list of texts`."""
        if self.holds(value):
            return []
        is_other = isinstance(value, str) and "a text" not in self.words
        return [f"has {'one text' if is_other else _shown(value)} as `{name}`; {self.words}"]


def _shown(value: object) -> str:
    if inspect.isroutine(value):
        return f"the function '{value.__name__}'"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value)):.80}]"
    if isinstance(value, Mapping):  # whose values may be secrets that were meant to be declared
        value = {key: type(of).__name__ for key, of in value.items()}
    return f"{value!r:.80}"


def require(of: object, **kinds: Kind) -> None:
    """Refuse what has values of other kinds than its fields.

    Args:
        of: What has the fields.
        kinds: Their kinds.

    Raises:
        TypeError: With a finding for each such value.
    """
    found = [
        words for name, kind in kinds.items() for words in kind.findings(name, getattr(of, name))
    ]
    if found:
        message = f"{type(of).__name__} {' and '.join(found)}"
        raise TypeError(message)


def sequence(words: str, holds: Callable[[Any], bool] = lambda _: True) -> Kind:
    """Return the kind of lists of such values; one text is none."""
    return Kind(
        words,
        lambda value: (
            isinstance(value, Sequence)
            and not isinstance(value, (str, bytes))
            and all(map(holds, value))
        ),
    )


def mapping(
    words: str,
    key: Callable[[Any], bool] = lambda _: True,
    holds: Callable[[Any], bool] = lambda _: True,
) -> Kind:
    """Return the kind of dicts of such keys and values."""
    return Kind(
        words,
        lambda value: (
            isinstance(value, Mapping) and all(map(key, value)) and all(map(holds, value.values()))
        ),
    )


def is_number(value: object) -> bool:
    """Return whether it is a number that can be reckoned with; True is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Return whether it is a whole number; True is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Return whether it is a text that a container can be given: UTF-8 without NUL."""
    return (
        isinstance(value, str)
        and "\0" not in value
        and value == value.encode(errors="replace").decode()
    )


def is_word(value: object) -> bool:
    """Return whether it is a text on one line that can be read."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def is_variable(value: object) -> bool:
    """Return whether it can be the name of an environment variable."""
    return is_word(value) and "=" not in str(value)


def is_below(value: object) -> bool:
    """Return whether it is a path, or a pattern of paths, below the folder that it is relative to."""
    return (
        is_word(value)
        and ".." not in (parts := PurePosixPath(str(value)).parts)
        and parts[:1] not in {(), ("/",)}
        and all(len(part.encode()) <= MOST_NAME_BYTES for part in parts)
    )


BOOL = Kind("write True or False", lambda value: isinstance(value, bool))
COUNT = Kind("write a whole number, 0 or more", lambda value: is_whole(value) and value >= 0)
TRIES = Kind("write a whole number, 1 or more", lambda value: is_whole(value) and value >= 1)
SECONDS = Kind("write a number of seconds above 0", lambda value: is_number(value) and value > 0)
MAYBE_SECONDS = Kind(
    "write a number of seconds above 0, or leave it out",
    lambda value: value is None or SECONDS.holds(value),
)
PORT = Kind("write a port, 1 to 65535", lambda value: is_whole(value) and 1 <= value <= 65535)  # noqa: PLR2004 - of TCP
NAME = Kind("write a name on one line, in a text", is_word)
WORDS = sequence("write a list of texts without NUL", is_text)
NAMES = sequence("write a list of names", is_word)
VARIABLES = mapping("write a dict of texts by variable", is_variable, is_text)
CONTAINER = Kind(
    "take a container, made by a function of `container`, as a parameter",
    lambda value: hasattr(value, "with_exec") and not inspect.isroutine(value),
)
PATTERNS = sequence("write a list of paths or patterns below the project's folder", is_below)
