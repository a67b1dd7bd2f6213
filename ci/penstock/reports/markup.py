"""Untrusted text in HTML: all of it can be read, none of it acts, and there is never too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from penstock.reports.literal import literal

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_CHARACTERS, FEW_CHARACTERS = 1_000, 40  # of one string, before and after there were too many


class Words:
    """Makes each string that a template prints literal, and short once there were too many.

    Args:
        most: Bytes after which there were; the template's own markup does not count.
    """

    def __init__(self, most: int) -> None:
        self._left = most

    def __call__(self, value: object) -> object:
        """Take what is about to be escaped and printed; markup and numbers stay as they are."""
        if isinstance(value, (int, float)) or hasattr(value, "__html__"):
            return value
        most = MOST_CHARACTERS if self._left > 0 else FEW_CHARACTERS
        text = literal(str(value)[: 2 * most])
        text = text if len(text) <= most else f"{text[: most - 1]}\u2026"
        self._left -= _bytes(text)
        return text


def _bytes(text: str) -> int:
    from markupsafe import escape

    return len(escape(text).encode())


class Excerpt(NamedTuple):
    """The end of a text.

    Attributes:
        text: For HTML.
        left_out: Characters before it.
    """

    text: Markup
    left_out: int


def excerpt(text: str, most: int, *, left_out: int = 0) -> Excerpt:
    """Return the end of a text that takes so many bytes of the page at most, in whole lines."""
    from markupsafe import escape

    whole = literal(text)
    kept = whole[-most:]
    while (size := _bytes(kept)) > most:
        # Marks and quotes are not spread evenly, so one cut may not do.
        kept = kept[len(kept) - len(kept) * most * 9 // (size * 10) :]
    if len(kept) < len(whole):
        kept = kept.partition("\n")[2] or kept
    return Excerpt(escape(kept), left_out + len(whole) - len(kept))
