"""Masking: no secret leaves, in any of the forms in which programs print one."""

from __future__ import annotations

import base64
import json
import re
import shlex
import urllib.parse
from xml.sax.saxutils import escape, quoteattr

MASK = "***"
MIN_BYTES = 6  # shorter values would blank ordinary words; they are warned of by name instead


class Redactor:
    """Replaces every known secret, and its usual transformations, by `***`."""

    def __init__(self) -> None:
        self._needles: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> bool:
        """Mask a value from now on.

        Returns:
            Whether it is masked: values under six bytes are not.
        """
        needles = {
            form
            for part in _parts(value)
            for form in _forms(part)
            if len(form.encode()) >= MIN_BYTES
        }
        if not needles:
            return False
        self._needles |= needles
        # Longest first: a secret that contains another must not leave its rest behind.
        alternatives = sorted(self._needles, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, alternatives)))
        return True

    def mask(self, text: str) -> str:
        """Return the text without any known secret."""
        return self._pattern.sub(MASK, text) if self._pattern else text


def _parts(value: str) -> set[str]:
    """Return the value, each of its lines, and each string in it when it is JSON."""
    parts = {value, value.strip(), *(line.strip() for line in value.splitlines())}
    try:
        leaves = [json.loads(value)] if value.lstrip().startswith(("{", "[")) else []
    except ValueError:
        leaves = []
    while leaves:
        leaf = leaves.pop()
        if isinstance(leaf, dict):
            leaves.extend(leaf.values())
        elif isinstance(leaf, list):
            leaves.extend(leaf)
        elif isinstance(leaf, str):
            parts.add(leaf)
    return {part for part in parts if len(part.encode()) >= MIN_BYTES}


def _forms(value: str) -> set[str]:
    """Return the forms in which a value may be printed."""
    raw = value.encode()
    forms = {
        value,
        value[::-1],
        raw.hex(),
        raw.hex().upper(),
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote(value),
        urllib.parse.quote_plus(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        escape(value),
        quoteattr(value)[1:-1],
        shlex.quote(value),
        value.replace("\n", "\r\n"),
    }
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        forms |= {_base64_core(raw, offset, encode) for offset in range(3)}
    return forms


def _base64_core(raw: bytes, offset: int, encode: type[bytes] | object) -> str:
    """Return the characters that a value always has in base64 when `offset` bytes precede it.

    The characters at either end also depend on the neighbours and are left out.
    """
    encoded = encode(b"\0" * offset + raw).decode().rstrip("=")  # type: ignore[operator]  # either encoder
    first = -(-offset * 8 // 6)
    last = (offset + len(raw)) * 8 // 6
    return str(encoded[first:last])
