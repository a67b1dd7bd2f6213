"""A run for people who look at a terminal or read a log."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from rich.text import Text

from penstock.events import Event, RunFinished
from penstock.reports.lines import Lines
from penstock.reports.terminal import Terminal, abandon, is_colored, is_watched
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from penstock.reports.live import Region, Rows
    from penstock.reports.terminal import Color

logger = logging.getLogger(__name__)

LIVE_TICK_S, PLAIN_TICK_S = 0.125, 1.0


class ConsoleReport:
    """Writes a run for people, as long as they read it.

    As a context manager it also tells what goes on between two events: on a terminal, what runs
    and waits stands below the lines that stay; elsewhere long silence is broken now and then.

    Args:
        stream: Where to; width and encoding follow what it can do.
        verbosity: -1 for failures and the verdict only, 1 for the output of every stage too.
        color: `auto`, `always` or `never`.
        environ: `NO_COLOR`, `FORCE_COLOR`, `TERM` and `CI` are heeded.
        live: Whether lines are drawn again; by default on a terminal, unless `CI` is set.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        verbosity: int = 0,
        color: Color = "auto",
        environ: Mapping[str, str] = os.environ,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stream = stream or sys.stdout
        is_terminal = stream.isatty()
        if live is None:
            live = is_watched(environ, is_terminal=is_terminal) and verbosity >= 0
        colored = is_colored(color, environ, is_terminal=is_terminal)
        self._terminal = Terminal(stream, colored=colored, live=live, environ=environ)
        self._clock = clock
        self._heard_at = clock()
        self._view = RunView()
        self._lines = Lines(self._view, self._terminal, verbosity=verbosity, tells_starts=not live)
        self._live: tuple[Region, Rows] | None = None
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick_on, name="console", daemon=True)

    def __enter__(self) -> Self:
        """Begin to tell what goes on between two events."""
        if self._terminal.is_live:
            from penstock.reports.live import Region, Rows

            rows = Rows(self._view, self._terminal)
            self._live = Region(rows, self._terminal), rows
            self._safely(self._live[0].start)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was, with every line that was to stay."""
        self._done.set()
        self._ticker.join()
        with self._lock:
            self._safely(self._end_live)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            self._heard_at = self._clock()
            self._view(event)
            self._safely(lambda: self._take(event))

    def tick(self) -> None:
        """Tell what goes on; called over and over again."""
        with self._lock:
            try:
                self._safely(self._draw)
            except Exception:
                logger.exception("the live view failed; the run goes on without it")
                self._lines.tells_starts = True
                self._safely(self._end_live)

    def _tick_on(self) -> None:
        while not self._done.wait(LIVE_TICK_S if self._live else PLAIN_TICK_S):
            self.tick()

    def _safely(self, show: Callable[[], None]) -> None:
        """Show something, as long as that is possible."""
        try:
            show()
        except OSError as error:
            self._terminal.quiet = True
            self._end_live()  # first: a warning may take the way through the rows
            abandon(self._terminal.file, error)

    def _take(self, event: Event) -> None:
        self._lines(event)
        if not self._live:
            self._flush()
        elif isinstance(event, RunFinished):
            self._end_live()

    def _flush(self) -> bool:
        """Print the lines that there are; return whether there were any."""
        lines = self._lines.take()
        if lines:
            self._terminal.print(Text("\n").join(lines))
        return bool(lines)

    def _draw(self) -> None:
        now_s = self._view.now_s + self._clock() - self._heard_at
        if not self._live:
            self._lines.remind(now_s)
            self._flush()
            return
        region, rows = self._live
        rows.draw(now_s, *self._terminal.size)
        if not self._flush():  # which draws the rows too
            region.refresh()

    def _end_live(self) -> None:
        live, self._live = self._live, None
        if live:
            live[0].stop()
        self._flush()
