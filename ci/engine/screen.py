"""All that this room prints; to standard error, so that the pipeline owns standard output."""

from __future__ import annotations

import re
import sys
import threading

PASSWORDS = re.compile(r"""(://[^\s/:@"']{0,256}:)[^\s/?#"']{1,1024}(?=@)""")
_printing = threading.Lock()


def say(text: str) -> None:
    """Print a line at once, without passwords in its URLs (of a proxy, an index, an engine)."""
    text = PASSWORDS.sub(r"\1***", text)
    with _printing:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def seconds(value: float | None) -> str:
    """Return a duration for people: `0.3 s`, `5 min 10 s`."""
    if value is None:
        return "?"
    if value < 100:  # noqa: PLR2004 - where minutes read better
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def size(value: float) -> str:
    """Return bytes for people."""
    return f"{value / 1e9:.1f} GB"
