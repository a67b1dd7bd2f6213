"""The forms in which a secret may be printed, found without the library that masks them."""

from __future__ import annotations

import base64
import json
import shlex
from urllib.parse import quote
from xml.sax.saxutils import escape


def shown(secret: str) -> list[str]:
    """Return what a program may print, a line each."""
    raw = secret.encode()
    return [
        *(secret, secret[::-1], raw.hex(), quote(secret, safe="")),
        *(json.dumps(secret)[1:-1], escape(secret), shlex.quote(secret)),
        *(base64.b64encode(b"x" * n + raw).decode() for n in range(3)),
    ]


def traces(secret: str) -> set[bytes]:
    """Return what none of our outputs may hold: the forms, of base64 what depends on nothing else."""
    raw = secret.encode()
    inner = {base64.b64encode(b"x" * n + raw)[n and 4 : -4] for n in range(3)}
    return {form.encode() for form in shown(secret)[:-3]} | inner
