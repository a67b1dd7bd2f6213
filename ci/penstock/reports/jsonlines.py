"""The events of a run on a stream, for programs that follow it: `--json`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from penstock.events import Event, to_dict
from penstock.reports.terminal import abandon

if TYPE_CHECKING:
    from typing import TextIO


class JsonLines:
    """Writes each event as one line of ASCII, at once, as long as someone reads.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def __call__(self, event: Event) -> None:
        """Take one event."""
        try:
            self._stream.write(json.dumps(to_dict(event)) + "\n")
            self._stream.flush()
        except OSError as error:
            abandon(self._stream, error)
