from __future__ import annotations

import html
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from penstock.reports.literal import Words, excerpt, shown

DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(st.text())
def test_nothing_stays_invisible_or_turns_the_writing(text: str) -> None:
    """Control characters, marks of direction and halves of characters are spelt out."""
    for character in shown(text):
        assert (
            unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"} or character in "\t\n"
        )
        assert unicodedata.bidirectional(character) not in DIRECTIONS


def test_terminal_codes_are_spelt_and_line_ends_are_not() -> None:
    """What a person knows from Python; a lone carriage return is one of them."""
    assert (
        shown("\x1b[1m a\u202eb\r\n10%\r20%\tc\udcff") == r"\x1b[1m a\u202eb"
        "\n10%"
        r"\r20%"
        "\tc"
        r"\udcff"
    )


@given(st.text(), st.integers(1, 50))
@example('"' * 100, 10)
def test_excerpt_is_the_end_of_a_text_within_bounds(text: str, most: int) -> None:
    """It takes no more bytes than it may, and tells how many characters are missing."""
    part = excerpt(text, most)
    literal = html.unescape(str(part.text))
    assert len(str(part.text).encode()) <= most
    assert shown(text).endswith(literal)
    assert part.left_out or literal == shown(text)


def test_excerpt_of_lines_begins_with_a_line() -> None:
    """Half a line would be misread."""
    part = excerpt("first\nsecond\nthird\n", 15)
    assert (str(part.text), part.left_out) == ("second\nthird\n", 6)


@pytest.mark.parametrize("value", [3, 2.5, Markup("<b>ours</b>")])
def test_numbers_and_markup_of_ours_stay_as_they_are(value: object) -> None:
    """Only what somebody else may have written is made literal."""
    assert Words(100)(value) is value


def test_long_strings_are_cut_and_short_ones_too_when_there_were_too_many() -> None:
    """The cut is marked."""
    words = Words(1_500)
    assert words("a" * 1_000) == "a" * 1_000
    assert words("a" * 1_001) == f"{'a' * 999}…"
    assert words("a" * 1_001) == f"{'a' * 39}…"
    assert words("short") == "short"
