"""`logs/STAGE.txt` of a stage that was cut off: what of its output had come until then.

The engine gives the whole output of a command only at its end; of one that is cancelled, or lost with
the engine, nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from penstock.events import Event, OutputWritten, StageFinished, StageStarted
from penstock.folder import file_name, make_private, write_whole
from penstock.model import Result
from penstock.reports.record import LOG_FOLDER

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

CUT = (Result.CANCELLATION, Result.TIMEOUT, Result.ERROR)
MOST_KEPT = 1_000_000  # characters of a stage, the last ones


class CutLogs:
    """Keeps what stages print as long as they run.

    Args:
        folder: The reports folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / LOG_FOLDER
        self._printed: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        match event:
            case StageStarted():
                self._printed[event.stage] = ""
            case OutputWritten() if event.stage in self._printed:
                text = self._printed[event.stage] + event.text
                # Cut once in a while, not at each line.
                self._printed[event.stage] = (
                    text[-MOST_KEPT:] if len(text) > 2 * MOST_KEPT else text
                )
            case StageFinished():
                printed = self._printed.pop(event.stage, "")
                if printed and event.outcome.exit_code is None and event.outcome.result in CUT:
                    self._write(event.stage, printed)

    def _write(self, stage: str, printed: str) -> None:
        path = self._folder / f"{file_name(stage)}.txt"
        try:
            make_private(self._folder)
            write_whole(path, f"[cut off; up to here it printed]\n{printed[-MOST_KEPT:]}")
        except OSError as error:
            logger.warning("WARNING: cannot write %s (%s)", path, error.strerror)
