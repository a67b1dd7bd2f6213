from __future__ import annotations

import html

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from penstock.reports.literal import literal
from penstock.reports.markup import Words, excerpt


@given(st.text(), st.integers(1, 50))
@example('"' * 100, 10)
def test_excerpt_is_the_end_of_a_text_within_bounds(text: str, most: int) -> None:
    """It takes no more bytes than it may, and tells how many characters are missing."""
    part = excerpt(text, most)
    kept = html.unescape(str(part.text))
    assert len(str(part.text).encode()) <= most
    assert literal(text).endswith(kept)
    assert part.left_out == len(literal(text)) - len(kept)


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
    assert words("short \u202e") == r"short \u202e"
