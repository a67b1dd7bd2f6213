"""Untrusted text as what it is: nothing in it commands a terminal, turns a line or hides."""

from __future__ import annotations

import re
import unicodedata

# Colours, cursor movements, titles, links; no two parts of it match the same character.
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)")
_RETURN = re.compile(r"\r+\n?")  # also what draws progress over itself
_SUSPECT = re.compile(r"[^ -~\n\t]")


def literal(text: str) -> str:
    r"""Return a text without colours, with line feeds only, and whatever else acts spelled out.

    Example:
        >>> literal("\x1b[31mred\x1b[0m \u202e\x00\r\n")
        'red \\u202e\\x00\n'
    """
    return _SUSPECT.sub(_spelled, _RETURN.sub("\n", ANSI.sub("", text)))


def one_line(text: str, most: int = 500) -> str:
    """Return the same for a text that has to be short and stand in one line."""
    words = " ".join(literal(text[: 2 * most]).split())
    return words if len(words) <= most else f"{words[: most - 1]}\u2026"


def _spelled(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
