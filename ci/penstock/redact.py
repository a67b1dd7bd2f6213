"""Masking: no secret leaves, in any of the forms in which programs print one."""

from __future__ import annotations

import base64
import json
import re
import shlex
import urllib.parse
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MASK = "***"
PIECE = 1 << 20  # characters
MIN_BYTES = 6  # shorter values would blank ordinary words; they are warned of by name instead

_BREAK = re.compile(r"\n[\r\n]*+")  # begins with one fixed character, which `re` finds fast
_MAX_BREAK = 6  # a blank line with CR-CR-LF; without a limit, what is held back has none
_MAX_WINDOW = 24
_PASSWORDS = (re.compile(r"://[^\s/:@]*:([^\s@]+)@"), re.compile(r"://[^\s/:@]*:(\S+)@"))
# Of a URL: a password that nobody told us of, and a token in place of the user's name. Before a
# digest stands the name of an image with its tag: `docker://alpine:3.19@sha256:...`.
_AT = r"(?=@(?!sha256:))"
_IN_URL = re.compile(
    rf"""://([^\s/:@"'<>]{{0,256}}:)[^\s/?#"'<>]{{1,1024}}{_AT}"""
    rf"""|(://)[^\s/:@"'<>]{{20,1024}}{_AT}"""
)
# What quote_plus, quote, encodeURIComponent, Go's userinfo and encodeURI leave as it is.
_URL_SAFE = ("", "/", "!'()*", "$&+,;=", "!#$&'()*+,/:;=?@")
_HTML_SAFE_JSON = {ord(char): f"\\u{ord(char):04x}" for char in "&<>"}  # as Go writes it
# What shlex's opposite, bash's %q, a double-quoted string and addslashes put a backslash before.
_SPECIAL = (r"[^\w@%+=:,./-]", r"[\s\\'\"|&;()<>!{}*\[\]?^$`,]", r"[\\\"$`]", r"[\\'\"]")


class Redactor:
    """Replaces every known secret, and its usual transformations, by `***`.

    All that secrets cover is replaced at once: overlapping, nested and touching ones become one
    mask. Line breaks within a form do not hide it, as encoders and terminals wrap long values.
    Of base64, the character at either end that also depends on its neighbour stays.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._needles: set[str] = set()
        self._index: _Index | None = None

    def __repr__(self) -> str:
        """Return how many secrets are known, and none of them."""
        return f"<Redactor of {len(self._secrets)} secrets>"

    def add(self, value: str) -> bool:
        """Mask a value from now on, also in the streams that are open.

        Returns:
            Whether it is masked: values under six bytes are not; line breaks, and white space
            around the value, do not count.
        """
        parts = _parts(value)
        if parts and value not in self._secrets:
            self._secrets.add(value)
            forms = {form for part in parts for form in _forms(part)}
            self._needles |= {_Flat(form).text for form in forms}
            self._index = None
        return bool(parts)

    @property
    def knows_any(self) -> bool:
        """Whether there is a secret to mask."""
        return bool(self._secrets)

    @property
    def needles(self) -> frozenset[str]:
        """Every form that is masked, without its line breaks: for others who mask too."""
        return frozenset(self._needles)

    def mask(self, text: str) -> str:
        """Return the text without any known secret, and without passwords in its URLs."""
        return without_credentials(self._masked(text))

    def _masked(self, text: str) -> str:
        if not self._secrets:
            return text
        if len(text) <= PIECE:
            return Masker(self._current, text).flush()
        masker = self.stream()  # what is looked at takes several times its size
        shown = [masker.feed(text[at : at + PIECE]) for at in range(0, len(text), PIECE)]
        return "".join(shown) + masker.flush()

    def stream(self) -> Masker:
        """Return a masker for a text that comes in chunks."""
        return Masker(self._current)

    def _current(self) -> _Index:
        self._index = self._index or _Index(self._needles)
        return self._index


def without_credentials(text: str) -> str:
    """Return a text without the passwords in its URLs.

    Example:
        >>> without_credentials("cannot reach tcp://user:password@host:1234")
        'cannot reach tcp://user:***@host:1234'
    """
    if "://" not in text or "@" not in text:
        return text
    return _IN_URL.sub(lambda found: f"://{found[1] or ''}{MASK}", text)


class Masker:
    """Masks known secrets in chunks of a text exactly as `Redactor.mask` does in the whole of it.

    Not so passwords in URLs that nobody told of: those go only where the whole is masked, as in
    every event.

    Only an end of the text that may begin a secret is held back: less than the longest form of
    a secret, not counting line breaks of up to six characters each.
    """

    def __init__(self, index: Callable[[], _Index], text: str = "") -> None:
        self._index = index
        self._kept = text
        self._masked = -1  # how much of the kept text the last mask covers; 0: it touches it

    def feed(self, chunk: str) -> str:
        """Take a chunk and return what may be shown already."""
        self._kept += chunk
        return self._release(final=False)

    def flush(self) -> str:
        """Return the rest; what is fed later counts as another text."""
        shown = self._release(final=True)
        self._masked = -1
        return shown

    def _release(self, *, final: bool) -> str:
        text, end, shown = self._kept, self._masked, []
        flat = _Flat(text)
        spans, undecided = self._index().search(flat.text)
        cut = len(text) if final else flat.origin(undecided)
        for first, last in sorted(spans):
            start = flat.origin(first)
            if start >= cut:
                break
            if start > end:
                shown += [text[max(end, 0) : start], MASK]
            end = max(end, flat.origin(last) + 1)
        shown.append(text[max(end, 0) : cut])
        self._kept, self._masked = text[cut:], max(end - cut, -1)
        return "".join(shown)


class _Flat:
    """A text without its line breaks, and the way back to the positions in it."""

    def __init__(self, text: str) -> None:
        self._origins, pieces = [0], []
        for stop, end in [*(found.span() for found in _BREAK.finditer(text)), (len(text),) * 2]:
            piece = text[self._origins[-1] : stop].rstrip("\r")
            if end - self._origins[-1] - len(piece) <= _MAX_BREAK:
                pieces.append(piece)
                self._origins.append(end)
        pieces.append(text[self._origins[-1] :])
        self._offsets = list(accumulate(map(len, pieces[:-1]), initial=0))
        self.text = "".join(pieces)

    def origin(self, position: int) -> int:
        """Return where a character stands in the text with line breaks."""
        piece = bisect_right(self._offsets, position) - 1
        return self._origins[piece] + position - self._offsets[piece]


class _Index:
    """Finds needles at a speed that hardly depends on how many they are.

    Text is looked at in steps: wherever a needle begins, one of the looks falls into its first
    characters, its window. A table tells at which places of a window a look may be.
    """

    def __init__(self, needles: set[str]) -> None:
        self._window = min([_MAX_WINDOW, *map(len, needles)])
        self._step = (self._window + 1) // 2
        self._look = self._window - self._step + 1
        self._places: dict[str, set[int]] = {}
        self._needles: dict[str, list[str]] = {}
        self._heads: set[str] = set()
        for needle in needles:
            self._needles.setdefault(needle[: self._window], []).append(needle)
        for window in self._needles:
            self._heads.update(accumulate(window[:-1]))
            for place in range(self._step):
                self._places.setdefault(window[place : place + self._look], set()).add(place)

    def search(self, text: str) -> tuple[list[tuple[int, int]], int]:
        """Return first and last positions of needles, and whence more text may complete one."""
        places, look, size = self._places, self._look, len(text)
        looks = range(0, size - look + 1, self._step)
        spans, undecided = [], size
        for at in [at for at in looks if text[at : at + look] in places]:
            for start in [at - place for place in places[text[at : at + look]]]:
                # Before the text begins, the slice is too short to be a window.
                for needle in self._needles.get(text[start : start + self._window], ()):
                    if text.startswith(needle, start):
                        spans.append((start, start + len(needle) - 1))
                    elif size - start < len(needle) and needle.startswith(text[start:]):
                        undecided = min(undecided, start)
        tails = range(max(0, size - self._window + 1), undecided)
        return spans, next((start for start in tails if text[start:] in self._heads), undecided)


def _parts(value: str) -> set[str]:
    """Return the value, its lines, its leaves if it is JSON, its passwords if it holds URLs."""
    parts: set[str] = set()
    rest = [value]
    while rest:
        part = rest.pop().strip("\r\n")
        if part not in parts and len(_bytes(re.sub(r"[\r\n]", "", part).strip())) >= MIN_BYTES:
            parts.add(part)
            passwords = [found for pattern in _PASSWORDS for found in pattern.findall(part)]
            rest += [part.strip(), *map(str.strip, part.splitlines()), *_leaves(part)]
            rest += [*passwords, *map(urllib.parse.unquote, passwords)]
    return parts


def _leaves(value: str) -> Iterator[str]:
    """Yield the strings and numbers of a JSON text, as they are written there."""
    try:
        rest = [json.loads(value, object_pairs_hook=_values, parse_float=str, parse_int=str)]
    except (ValueError, RecursionError):
        return
    while rest:
        leaf = rest.pop()
        if isinstance(leaf, list):
            rest.extend(leaf)
        elif isinstance(leaf, str):
            yield leaf


def _values(pairs: list[tuple[str, object]]) -> list[object]:
    return [value for _, value in pairs]


def _forms(value: str) -> Iterator[str]:
    """Yield the forms in which a value may be printed."""
    from xml.sax.saxutils import escape, quoteattr  # imports urllib.request, http, ssl, email

    raw, lines = _bytes(value), re.split(r"\r*\n", value)
    yield from (value, value[::-1], " ".join(lines), "\\n".join(lines))
    yield from (raw.hex(), raw.hex().upper())
    for offset, first in enumerate((0, 2, 3)):
        # The characters at either end also depend on the neighbours and are left out,
        # unless the text ends here.
        ended = base64.b64encode(bytes(offset) + raw).decode()[first:]
        for core in (ended, ended[: (offset + len(raw)) * 8 // 6 - first]):
            yield from (core, core.replace("+", "-").replace("/", "_"))
    for safe in _URL_SAFE:
        upper = urllib.parse.quote(raw, safe=safe)
        for quoted in (upper, re.sub("%..", lambda digits: digits[0].lower(), upper)):
            yield from (quoted, quoted.replace("%20", "+"))
    for quoted in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield from (quoted, quoted.replace("/", "\\/"), quoted.translate(_HTML_SAFE_JSON))
    # Both quotes in front, as Python escapes a quote only in a text that has both.
    for quoted in (repr(f"\"'{value}")[4:-1], ascii(f"\"'{value}")[4:-1], repr(b"\"'" + raw)[5:-1]):
        yield from (quoted, quoted.replace("\\'", "'"))
    for double in ('"', "&quot;", "&#34;"):
        for single in ("'", "&apos;", "&#39;", "&#x27;"):
            yield escape(value, {'"': double, "'": single})
    yield from (quoteattr(value)[1:-1], shlex.quote(value), value.replace("'", "'\\''"))
    yield from (re.sub(special, r"\\\g<0>", value) for special in _SPECIAL)


def _bytes(value: str) -> bytes:
    """Return the bytes of a value, also of one that is not valid Unicode."""
    try:
        return value.encode(errors="surrogateescape")  # as the environment decoded it
    except UnicodeEncodeError:
        return value.encode(errors="surrogatepass")  # as JSON may spell it
