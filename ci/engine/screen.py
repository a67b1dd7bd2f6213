"""All that this room prints; to standard error, so that the pipeline owns standard output."""

from __future__ import annotations

import sys
import threading

_printing = threading.Lock()


def say(text: str) -> None:
    """Print a line at once."""
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
