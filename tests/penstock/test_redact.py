from __future__ import annotations

import base64
import json
import shlex
import urllib.parse
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable

FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "reversed": lambda s: s[::-1],
    "hex": lambda s: s.encode().hex(),
    "url": lambda s: urllib.parse.quote(s, safe=""),
    "form": urllib.parse.quote_plus,
    "json": lambda s: json.dumps({"k": s}),
    "xml": escape,
    "shell": shlex.quote,
}
SECRETS = st.text(min_size=8, max_size=60).filter(
    lambda s: len(s.strip().encode("utf-8", "replace")) >= 8 and s.isprintable()
)


@pytest.mark.parametrize("form", FORMS)
@given(secret=SECRETS, around=st.text(max_size=10))
def test_no_form_of_a_secret_is_left(form: str, secret: str, around: str) -> None:
    """Whatever the encoding, the encoded secret is gone."""
    encoded = FORMS[form](secret)
    redactor = Redactor()
    assert redactor.add(secret)
    assert FORMS[form](secret).strip('{}"k: ') not in redactor.mask(f"{around}{encoded}{around}")


@given(secret=SECRETS, before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_base64_is_masked_at_every_offset(secret: str, before: bytes, after: bytes) -> None:
    """A secret inside a longer base64 text is masked wherever it begins."""
    redactor = Redactor()
    redactor.add(secret)
    encoded = base64.b64encode(before + secret.encode() + after).decode()
    assert redactor.mask(encoded) != encoded


def test_longer_secret_is_masked_whole_when_it_contains_another() -> None:
    """No rest of the longer one is left behind."""
    redactor = Redactor()
    redactor.add("password")
    redactor.add("password-of-production")
    assert redactor.mask("x password-of-production y") == "x *** y"


def test_each_line_of_a_secret_is_masked() -> None:
    """A key that is printed line by line does not leak."""
    redactor = Redactor()
    redactor.add("first-line\nsecond-line\r\n")
    assert redactor.mask("got second-line") == "got ***"


def test_each_string_of_a_json_secret_is_masked() -> None:
    """Of a JSON secret the leaves are masked, the braces are not."""
    redactor = Redactor()
    redactor.add('{"user": "somebody", "keys": ["abcdefgh", 1]}')
    assert redactor.mask("{ somebody abcdefgh }") == "{ *** *** }"


def test_short_values_are_not_masked() -> None:
    """Under six bytes a mask would blank ordinary words; the caller warns."""
    redactor = Redactor()
    assert not redactor.add("test")
    assert redactor.mask("a test") == "a test"


def test_nothing_is_masked_without_secrets() -> None:
    """Text passes as it is."""
    assert Redactor().mask("plain") == "plain"


def test_broken_json_counts_as_plain_text() -> None:
    """What only looks like JSON is masked as it stands."""
    redactor = Redactor()
    redactor.add('{"user": ')
    assert redactor.mask('<{"user": >') == "<***>"
