"""Untrusted text as what it is: nothing in it commands a terminal, turns a line or hides."""

from __future__ import annotations

import re
import unicodedata

# Colours, cursor movements, titles, links; no two parts of it match the same character.
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)")
_RETURN = re.compile(r"\r+\n?")  # also what draws progress over itself
MOST_KNOWN = 10_000  # characters; more than any language needs
_SUSPECT = re.compile(r"[^ -~\n\t]")


def literal(text: str) -> str:
    r"""Return a text without colours, with line feeds only, and whatever else acts spelled out.

    Example:
        >>> literal("\x1b[31mred\x1b[0m \u202e\x00\r\n")
        'red \\u202e\\x00\n'
    """
    text = _RETURN.sub("\n", ANSI.sub("", text))
    return text.translate(_SPELLING) if _SUSPECT.search(text) else text


def one_line(text: str, most: int = 500) -> str:
    """Return the same for a text that has to be short and stand in one line."""
    words = " ".join(literal(text[: 2 * most]).split())
    return words if len(words) <= most else f"{words[: most - 1]}\u2026"


class _Spelling(dict[int, str]):
    """How each character is shown; found out once for those that come often."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if not (character.isprintable() or unicodedata.category(character) == "Zs"):
            character = character.encode("unicode_escape").decode()
        if len(self) < MOST_KNOWN:
            self[code] = character
        return character


_SPELLING = _Spelling({ord("\n"): "\n", ord("\t"): "\t"})
