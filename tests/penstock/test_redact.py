from __future__ import annotations

import base64
import html
import json
import math
import shlex
import urllib.parse
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import redact
from penstock.redact import MASK, MIN_BYTES, PIECE, Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "url": lambda s: urllib.parse.quote(s, safe=""),
    "url path": urllib.parse.quote,
    "form": urllib.parse.quote_plus,
    "hex": lambda s: s.encode().hex(),
    "hex, upper case": lambda s: s.encode().hex().upper(),
    "json": lambda s: json.dumps(s)[1:-1],
    "json, unicode": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "python": lambda s: repr(s)[1:-1],
    "python bytes": lambda s: repr(s.encode())[2:-1],
    "xml": escape,
    "xml attribute": lambda s: quoteattr(s)[1:-1],
    "html": html.escape,
    "shell": shlex.quote,
    "reversed": lambda s: s[::-1],
}
# Neither the mask nor what the tests put around a secret occurs in one.
LETTERS = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="*·")
SECRETS = (
    st.text(LETTERS, min_size=6, max_size=40)
    | st.text("ab \"'&<>/\\$%+`=é€😀", min_size=6, max_size=40)
    | st.text("ab", min_size=6, max_size=12)
).filter(lambda s: len(s.strip().encode()) >= MIN_BYTES)
NUMBERS = st.integers(min_value=100_000) | st.floats(100_000, 1e15).filter(lambda n: n != 1e15)
AROUND = st.text("·\r\n", max_size=10)
CUTS = st.lists(st.integers(0, 150), max_size=6)
BREAKS = st.sampled_from(["\n", "\r\n", "\r\r\n"])
thorough = settings(max_examples=500, deadline=None)


def redactor(*secrets: str) -> Redactor:
    known = Redactor()
    added = [known.add(secret) for secret in secrets]
    assert all(added)
    return known


def streamed(known: Redactor, text: str, cuts: Iterable[int]) -> str:
    """Mask a text in chunks, and see that this changes nothing."""
    stream = known.stream()
    chunks = [text[start:stop] for start, stop in pairwise(sorted([0, *cuts, len(text)]))]
    shown = "".join([*map(stream.feed, chunks), stream.flush()])
    assert shown == known.mask(text)
    return shown


@thorough
@given(secret=SECRETS, before=AROUND, after=AROUND, cuts=CUTS)
def test_no_form_of_a_secret_is_left(secret: str, before: str, after: str, cuts: list[int]) -> None:
    """Of an encoded secret nothing is left, and of what surrounds it nothing is lost."""
    known = redactor(secret)
    shown = {form: streamed(known, before + FORMS[form](secret) + after, cuts) for form in FORMS}
    assert shown == dict.fromkeys(FORMS, before + MASK + after)


@thorough
@given(
    secret=SECRETS.map(str.encode),
    around=st.tuples(st.binary(max_size=70), st.binary(max_size=7)),
    width=st.sampled_from([64, 76, 1000]) | st.integers(1, 60),
    newline=BREAKS,
    cuts=CUTS,
)
def test_base64_gives_no_byte_away(
    secret: bytes, around: tuple[bytes, bytes], width: int, newline: str, cuts: list[int]
) -> None:
    """Whatever the offset and the line width, no character is left that the secret determines."""
    start, stop = len(around[0]), len(around[0] + secret)
    for altchars in (b"+/", b"-_"):
        encoded = base64.b64encode(secret.join(around), altchars).decode()
        lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
        shown = streamed(redactor(secret.decode()), newline.join(lines), cuts).split(MASK)
        head, tail = ("".join(shown[end].split()) for end in (0, -1))
        assert len(head) <= math.ceil(start * 8 / 6)
        assert len(tail) <= len(encoded) - stop * 8 // 6
        left = head + "A" * (len(encoded) - len(head) - len(tail)) + tail
        assert not any(base64.b64decode(left, altchars)[start + 1 : stop - 1])


@pytest.mark.parametrize("secret", ["secret", "secret+", "secret+/", "sécret?>?>"])
def test_base64_of_a_secret_alone_is_masked_whole(secret: str) -> None:
    """Where the encoded text is the secret and no more, the padding goes too."""
    known = redactor(secret)
    assert known.mask(base64.b64encode(secret.encode()).decode()) == MASK
    assert known.mask(base64.urlsafe_b64encode(secret.encode()).decode()) == MASK


@pytest.mark.fault(25)
@thorough
@given(lines=st.lists(SECRETS, min_size=1, max_size=3), newline=BREAKS, cuts=CUTS)
def test_each_line_of_a_secret_is_masked(lines: list[str], newline: str, cuts: list[int]) -> None:
    """A key that is printed line by line, in any order, does not leak."""
    known = redactor(newline.join([*lines, "end"]))
    text = "·".join(line.strip() for line in reversed(lines))
    assert streamed(known, f"{text}·end", cuts) == "·".join([MASK] * len(lines)) + "·end"


@pytest.mark.fault(25)
@thorough
@given(
    lines=st.lists(st.text("abc", min_size=2), min_size=3, max_size=6), newline=BREAKS, cuts=CUTS
)
def test_changed_line_breaks_hide_no_secret(
    lines: list[str], newline: str, cuts: list[int]
) -> None:
    """A secret of many lines is found whole, whatever became of its line breaks."""
    known = redactor(newline.join(lines))
    for changed in ("\n", "\r\n", "\r\r\n", " ", "\\n", ""):
        assert streamed(known, f"<{changed.join(lines)}>\n", cuts) == f"<{MASK}>\n"


@thorough
@given(leaves=st.lists(SECRETS | NUMBERS, min_size=1, max_size=3), cuts=CUTS)
def test_each_leaf_of_a_json_secret_is_masked(leaves: list[str | float], cuts: list[int]) -> None:
    """Strings and numbers are masked however deep they are; keys and short words are not."""
    deep = [{"password": leaf} for leaf in leaves]
    known = redactor(json.dumps({"password": deep, "a": ["short", 12345, None, True]}))
    shown = streamed(known, "·".join(["password", "short", "12345", *map(str, leaves)]), cuts)
    assert shown == "·".join(["password", "short", "12345", *[MASK] * len(leaves)])


@pytest.mark.fault(23)
@thorough
@given(
    secrets=st.lists(st.text("ab\r\n", min_size=6, max_size=15), max_size=4),
    text=st.text("ab\r\n", max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=20),
)
def test_any_split_gives_the_same(secrets: list[str], text: str, cuts: list[int]) -> None:
    """Where a text is cut does not matter, however secrets and line breaks entangle."""
    known = Redactor()
    for secret in secrets:
        known.add(secret)
    shown = streamed(known, text, cuts)
    assert not any(secret.strip() in shown for secret in secrets if known.add(secret))


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["password", "password-of-production"], "x password-of-production y", "x *** y"),
        (["password-of-production", "word-of"], "password-of-production word-of", "*** ***"),
        (["abcdef123", "123uvwxyz"], "<abcdef123uvwxyz>", "<***>"),
        (["abcdef123", "ef123uvw", "3uvwxyz"], "<abcdef123uvwxyz>", "<***>"),
        (["abcdef", "abcdefg", "abcdefgh", "bcdefghi"], "abcdefghi abcdefg", "*** ***"),
        (["abcabcab"], "<abcabcabcabcabcab>", "<***>"),
        (["abcdef"], "abcdefabcdef abcdef", "*** ***"),
        (["\rpassword"], "x\rpassword", "x\r***"),
        (["password"], "x\npassword" + "\r" * 7, "x\n***" + "\r" * 7),
        (["aaaaaa"], "aaaaa b " + "a" * 99, "aaaaa b ***"),
    ],
)
def test_entangled_secrets_leave_no_rest(secrets: list[str], text: str, shown: str) -> None:
    """Secrets that contain, overlap, repeat or touch each other become one mask."""
    assert streamed(redactor(*secrets), text, range(len(text))) == shown


@pytest.mark.parametrize(
    ("secret", "printed"),
    [
        ("pä ss/wö=rd", "p%c3%a4%20ss%2fw%c3%b6%3drd"),
        ("pä ss/wö=rd", "p%c3%a4+ss/w%c3%b6%3drd"),
        ("p!ss(word)?", "p!ss(word)%3F"),
        ("p$ss&word@", "p$ss&word%40"),
        ("Pä SS/WÖrd", "P%c3%a4%20SS%2fW%c3%96rd"),
        ("it!'()*s/b", "it!'()*s%2Fb"),
        ("it$&+,;=s/b", "it$&+,;=s%2Fb"),
        ("it!#$&'()*+,/:;=?@s b", "it!#$&'()*+,/:;=?@s%20b"),
        ("pass/word", "pass\\/word"),
        ("<pass&word>", "\\u003cpass\\u0026word\\u003e"),
        ('it\'s "it"', 'it\\\'s "it"'),
        ('it\'s "it"', 'it\\\'s \\"it\\"'),
        ('it\'s "it"', "it&#39;s &#34;it&#34;"),
        ('it\'s "it"', "it&apos;s &quot;it&quot;"),
        ('it\'s "it"', "it&#x27;s &quot;it&quot;"),
        ('it\'s "it"', "'it'\\''s \"it\"'"),
        ('it\'s "it"', 'it\\\'s\\ \\"it\\"'),
        ("a,b{c}d?", "a\\,b\\{c\\}d\\?"),
        ('a "b" $c `d`', 'a \\"b\\" \\$c \\`d\\`'),
        ("pässwort", "p\\xe4sswort"),
        ("pässwort", "p\\xc3\\xa4sswort"),
        ("a-long-password-in-a-terminal", "a-long-password-\r\nin-a-terminal"),
        ("\n  password \n", "password"),
        ("\n  ab\ncd\nef \n", "ab\ncd\nef"),
        ("ab\ncd\nef", "ab&#10;cd&#10;ef"),
        ("a~b#cdef", "a\\~b\\#cdef"),
    ],
)
def test_ways_of_other_programs_are_known(secret: str, printed: str) -> None:
    """What shells, browsers, Go and terminals make of a secret is masked, quotes or not."""
    assert redactor(secret).mask(printed).strip("'\"") == MASK


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgres://user:pass-word@host/db", "pass-word"),
        ("postgres://user:p%40ss%20word@host/db", "p@ss word"),
        ("postgres://user:p%40ss%20word@host/db", "p%40ss%20word"),
        ("redis://:pass-word@host/0", "pass-word"),
        ("amqp://user:p@ss/word@host?mail=me@example.org", "p@ss/word@host?mail=me"),
        ('{"url": "https://user:pass-word@host"}', "pass-word"),
        ("first\nhttps://user:pass-word@host\nlast", "pass-word"),
    ],
)
def test_password_in_a_url_is_a_secret_too(url: str, password: str) -> None:
    """The password is masked by itself; user, host and scheme are not."""
    assert redactor(url).mask(f"{password} user host https") == f"{MASK} user host https"


@pytest.mark.fault(29)
def test_large_secret_is_masked() -> None:
    """Eight kilobytes are found in chunks of any size, also as base64 in lines."""
    secret = "".join(f"{number:04x}" for number in range(2048))
    printed = f"<{secret}|{base64.encodebytes(secret.encode()).decode()}>"
    shown = streamed(redactor(secret), printed, range(0, len(printed), 1000))
    assert shown == f"<{MASK}|{MASK}\n>"


@pytest.mark.parametrize(
    ("text", "shown"), [("密码", "***"), ("<密码>", "<***>"), ("密码密码", "***"), ("密", "密")]
)
def test_two_characters_may_be_six_bytes(text: str, shown: str) -> None:
    """The shortest secret there can be is found everywhere, at the very start too."""
    assert streamed(redactor("密码"), text, range(len(text))) == shown


def test_chunks_do_not_prepare_the_search_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only another secret does: a log has many more lines than there are secrets."""
    made: list[set[str]] = []

    class Index(redact._Index):
        def __init__(self, needles: set[str]) -> None:
            made.append(needles)
            super().__init__(needles)

    monkeypatch.setattr(redact, "_Index", Index)
    known = redactor("password")
    assert [known.mask("a password") for _ in range(3)] == ["a ***"] * 3
    known.add("password")
    assert known.mask("a password") == "a ***"
    assert len(made) == 1


@pytest.mark.fault(28)
def test_secret_is_masked_from_when_it_is_learnt() -> None:
    """A stream that is open already masks it, also where its beginning is still held back."""
    known = redactor("pass-of-somebody")
    stream = known.stream()
    assert stream.feed("token-1 token-1 pass") == "token-1 token-1 "
    known.add("pass token-1")
    assert stream.feed(" token-1 ") + stream.flush() == f"{MASK} "


def test_stream_may_go_on_after_a_flush() -> None:
    """What follows is another text: a mask does not swallow one that begins it."""
    stream = redactor("password").stream()
    assert [stream.feed("password"), stream.flush()] == [MASK, ""]
    assert stream.feed("password") == MASK


def test_only_the_beginning_of_a_secret_is_held_back() -> None:
    """What cannot become a secret any more is shown at once."""
    stream = redactor("password-of-production").stream()
    assert stream.feed("a password-") == "a "
    assert stream.feed("of-test\n") == "password-of-test\n"
    assert stream.feed("password\r") == ""
    assert stream.feed("\n" * MIN_BYTES) == "password\r" + "\n" * MIN_BYTES


@pytest.mark.fault(29)
@pytest.mark.parametrize("chunk", ["a" * 999, "ab" * 500, "aaaaa\n", "a" + "\r\n" * 500])
def test_memory_is_bounded(chunk: str) -> None:
    """However long a text is, little of it is kept, even if every character is of a secret."""
    stream = redactor("aaaaaa", "abababab\nabababab").stream()
    for _ in range(20):
        stream.feed(chunk)
        assert sum(len(kept) for kept in vars(stream).values() if isinstance(kept, str)) < 100


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    "value",
    ["", "test", "12345", "éé", "  test  ", " \n \n \n", "a\nb\nc\nd", "a\r\r\r\r\r\r\r\nb"],
)
def test_short_values_are_not_masked(value: str) -> None:
    """Under six bytes a mask would blank ordinary words; the caller warns."""
    known = Redactor()
    assert not known.add(value)
    assert known.knows_any is False
    assert known.mask(f"a test {value} abcd") == f"a test {value} abcd"


def test_ordinary_words_are_not_masked() -> None:
    """Parts of secrets, and what falls short of one by a character, are left alone."""
    text = "password of test-user: correct horse battery, pass word, 123456, ------ {} []\n"
    known = redactor("correct-horse", "test-users", "passwords", '{"a": 123, "b": "horse"}')
    assert streamed(known, text, range(0, len(text), 7)) == text


def test_long_gap_is_not_a_line_break() -> None:
    """Beyond a blank line, two pieces of text are not one secret, so that nothing waits for ever."""
    known = redactor("password")
    assert known.mask("pass\r\r\n\r\r\nword") == MASK
    assert known.mask("pass\r\r\n\r\r\n\nword") == "pass\r\r\n\r\r\n\nword"


def test_nothing_is_masked_without_secrets() -> None:
    """Text passes as it is."""
    assert streamed(Redactor(), "plain\r\ntext\n", range(9)) == "plain\r\ntext\n"


@pytest.mark.parametrize("secret", ['{"user": ', "[" * 100_000, '"quoted', "123 456"])
def test_broken_json_counts_as_plain_text(secret: str) -> None:
    """What only looks like JSON is masked as it stands."""
    assert redactor(secret).mask(f"<{secret}>") == f"<{MASK}>"


def test_secret_need_not_be_valid_unicode() -> None:
    """Half a surrogate pair, which JSON can spell, is no obstacle."""
    known = redactor('["passw\\ud800rt"]')
    assert known.mask("<passw\ud800rt>") == f"<{MASK}>"


def test_undecodable_bytes_are_encoded_as_they_were() -> None:
    """Hex and base64 show the bytes of the environment, not those of Python's stand-in."""
    known = redactor(b"passw\xf6rt".decode(errors="surrogateescape"))
    assert known.mask(b"passw\xf6rt".hex()) == MASK


def test_repr_shows_no_secret() -> None:
    """A redactor in a traceback or a debugger tells how many secrets it knows, once each."""
    known = redactor("password", "password", "pass-word")
    assert repr(known) == "<Redactor of 2 secrets>"
    assert known.knows_any is True


@pytest.mark.parametrize("before", [PIECE - 7, PIECE, 2 * PIECE - 1])
def test_secret_is_masked_in_a_text_of_any_length(before: int) -> None:
    """Also where it lies across the pieces that the text is looked at in."""
    redactor = Redactor()
    redactor.add("hunter2-hunter2")
    text = "x" * before + "hunter2-hunter2" + "y" * PIECE
    assert redactor.mask(text) == "x" * before + MASK + "y" * PIECE


def test_without_a_secret_a_text_is_itself() -> None:
    """Nothing is looked for."""
    assert Redactor().mask("anything") == "anything"


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach tcp://user:pass-word@host:1234: x", "cannot reach tcp://user:***@host:1234: x"),
        ("clone 'https://user:p@ss@host/x.git'", "clone 'https://user:***@host/x.git'"),
        ('parse "https://:pass@host"', 'parse "https://:***@host"'),
        ("https://ghp_0123456789abcdefghij@host/x", "https://***@host/x"),
        ("two a://b:c@d and e://f:g@h", "two a://b:***@d and e://f:***@h"),
        ("docker://user:pass@host/x:1@sha256:abc", "docker://user:***@host/x:1@sha256:abc"),
        ("a proxy http://user:%70w@proxy:3128/", "a proxy http://user:***@proxy:3128/"),
    ],
)  # fmt: skip
def test_credentials_in_urls_are_masked_though_nobody_told_of_them(text: str, shown: str) -> None:
    """A password, and a token in place of a name; the rest of the URL stays to be read."""
    assert Redactor().mask(text) == shown
    assert redactor("another-secret").mask(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "ssh://git@host/x.git",
        "https://host:8080/a@b",
        "see http://host:80, and write to me@host",
        "https://host/?mail=a:b@c",
        "git@host:owner/name.git",
        "docker://alpine:3.19@sha256:abc",
        "docker-image://python:3.11-slim@sha256:0f0f",
        "docker-image://a-name-of-more-than-twenty-letters@sha256:0f0f",
    ],
)
def test_urls_without_credentials_stay_as_they_are(text: str) -> None:
    """Neither a port, nor a name, nor the tag of an image with a digest is a password."""
    assert Redactor().mask(text) == text


def test_chunks_keep_passwords_in_urls_that_nobody_told_of() -> None:
    """Of a text in chunks only known secrets are masked: a URL may be cut anywhere."""
    masker = redactor("another-secret").stream()
    shown = masker.feed("https://user:pass-word@host another-secret ") + masker.flush()
    assert shown == "https://user:pass-word@host *** "
