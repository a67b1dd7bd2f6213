"""What runs and what waits, drawn again and again below the lines that stay."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.live import Live
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

from penstock.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import ConsoleRenderable

    from penstock.reports.terminal import Terminal
    from penstock.reports.view import RunView, ServiceView, StageView

NARROW = 60  # cells; below, there is no room for more than the elapsed time
TIME_WIDTH, WIDE_TIME_WIDTH = 8, 13


def _codes(codes: str) -> Segments:
    return Segments([Segment(codes, None, [(ControlType.HOME,)])])  # any control: it has no width


# DEC private modes: 2026 shows a frame at once, where a terminal knows it; without 7, lines that
# are wider than we believe do not wrap, so that the next frame begins where this one did.
_BEGIN, _ROWS, _END = _codes("\x1b[?2026h"), _codes("\x1b[?7l"), _codes("\x1b[?7h\x1b[?2026l")


class Region(Live):
    """The rows below all other output. Its cursor rests on an empty line below them.

    So whatever ends the process, also `kill -9`, leaves the prompt on a line of its own.

    Args:
        rows: What is drawn.
        terminal: Where it is drawn; other prints to the same one come above it.
    """

    def __init__(self, rows: Rows, terminal: Terminal) -> None:
        self._rows = rows
        super().__init__(
            console=terminal,
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return everything that makes the next frame."""
        *above, rows = super().process_renderables(renderables)
        return [_BEGIN, *above, _ROWS, rows, _END]

    def start(self, refresh: bool = True) -> None:  # noqa: FBT002 - as rich has it
        """Draw the rows, and leave the terminal to the shell whenever Ctrl-Z suspends the process."""
        self.update(self._rows)
        super().start(refresh)
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        ):
            signal.signal(signal.SIGTSTP, self._suspend)

    def stop(self) -> None:
        """Remove the rows."""
        self.update("")
        super().stop()
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTSTP) == self._suspend
        ):
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def _suspend(self, number: int, _frame: object) -> None:
        was_started = self.is_started
        self.stop()
        os.kill(os.getpid(), number)  # this is where the process sleeps
        if was_started:
            self.start()


class Rows:
    """Makes the rows of a run from what is known of it.

    Args:
        view: What is known.
        terminal: Where they are shown.
    """

    def __init__(self, view: RunView, terminal: Terminal) -> None:
        self._view = view
        self._terminal = terminal
        self._ordered: list[StageView] = []
        self._drawn = Text()

    def __rich__(self) -> Text:
        """Return what was drawn last: other threads print too, and may not look into the view."""
        return self._drawn

    def draw(self, now_s: float, width: int, height: int) -> None:
        """Make at most `height` rows of at most `width` cells, the last one empty.

        What runs comes first: waiting stages have the upper half of the terminal at most.
        """
        services = [s for s in self._view.services.values() if _is_present(s)]
        healthy = ", ".join(s.name for s in services if s.ready_s is not None)
        footer = [f"healthy: {healthy}"] * bool(healthy) + [self._summary(now_s)]
        room = max(height - len(footer) - 1, 0)
        starting = [service for service in services if service.ready_s is None]
        width -= 1  # some terminals wrap after the last column
        rows = self._aligned(self._chosen(starting, now_s, width, room, height // 2), width)
        dim = [Text(self._terminal.glimpse(line, width), "dim") for line in footer]
        lines = [*rows, *dim][-height + 1 :] if height > 1 else []
        # Two at the end: rich takes the first line feed as the end of the last row.
        end = Text("\n", no_wrap=True, overflow="ignore", end="")
        self._drawn = end.join([*lines, Text(), Text()])

    def _chosen(
        self, starting: list[ServiceView], now_s: float, width: int, room: int, half: int
    ) -> list[tuple[str, str, str]]:
        """Return title, time and last words of the stages and services that have a place."""
        stages = self._stages()
        running = [view for view in stages if view.is_running]
        waiting = [view for view in stages if view.outcome is None and not view.is_running]
        starting = starting[: max(room - len(running), room // 3)]
        shown = running[: room - len(starting)]
        free = max(min(room, half) - len(starting) - len(shown), 0)
        names = {view.stage.name for view in [*shown, *waiting[:free]]}
        return [
            (v.stage.title or v.stage.name, self._time(v, now_s, width), self._said(v))
            for v in stages
            if v.stage.name in names
        ] + [(service.name, "", _doing(service)) for service in starting]

    def _aligned(self, rows: list[tuple[str, str, str]], width: int) -> Iterator[Text]:
        times = TIME_WIDTH if width < NARROW else WIDE_TIME_WIDTH
        most = max((width - times) // 2 - 1, 1)
        titles = [self._short(title, most) for title, _, _ in rows]
        size = max(map(cell_len, titles), default=0)
        for title, (_, time, said) in zip(titles, rows, strict=True):
            row = Text().append(set_cell_size(title, size), "bold" if time else "dim")
            row.append(f"{time:>{times}}", "cyan")
            shown = self._terminal.glimpse(said, width - size - times - 2)
            yield row.append(f"  {shown}" if shown else "", "dim")

    def _short(self, title: str, cells: int) -> str:
        """Cut a title; what tells a cell of a matrix from the others stays: `Run py…[python=3.12]`."""
        _, bracket, cell = title.rpartition("[")
        if bracket and title.endswith("]") and cell_len(title) > cells:
            ellipsis = self._terminal.ellipsis
            room = cells - cell_len(cell) - 1
            if room > len(ellipsis):
                title = f"{self._terminal.glimpse(title, room)}[{cell}"
            else:
                title = f"{ellipsis}{title[len(ellipsis) - cells :]}"
        return self._terminal.glimpse(title, cells)

    def _stages(self) -> list[StageView]:
        stages = self._view.stages
        if len(stages) != len(self._ordered):
            needs = {
                n: [need for need in v.stage.needs if need in stages] for n, v in stages.items()
            }
            self._ordered = [stages[name] for name in Graph(needs).order()]
        return self._ordered

    def _time(self, view: StageView, now_s: float, width: int) -> str:
        if view.started_s is None:
            return ""
        took = now_s - view.started_s
        if width < NARROW or not view.stage.expected_s:
            return f"{took:.1f} s"
        return f"{took:.1f}/{view.stage.expected_s:.0f} s"

    def _said(self, view: StageView) -> str:
        if view.is_running:
            attempt = f"attempt {len(view.attempts) + 1}: " if view.attempts else ""
            return attempt + _last(view)
        stages = self._view.stages
        needs = [n for n in view.stage.needs if n in stages and stages[n].outcome is None]
        other = "its turn" if self._view.engine else "the engine"
        early = "begun early, " if view.is_early else ""
        return f"{early}waits for {', '.join(needs) or other}"

    def _summary(self, now_s: float) -> str:
        stages = self._stages()
        running = sum(view.is_running for view in stages)
        done = sum(view.outcome is not None for view in stages)
        words = [f"{now_s:.1f} s"]
        if not self._view.engine and not running:
            words.append("connecting to the engine")
        left_s, is_known = self._left_s(now_s, stages)
        if left_s >= 1:
            words.append(f"{'about' if is_known else 'at least'} {left_s:.0f} s left")
        waiting = len(stages) - running - done
        counts = ((running, "running"), (waiting, "waiting"), (done, "done"))
        return ", ".join([*words, *(f"{count} {word}" for count, word in counts if count)])

    def _left_s(self, now_s: float, stages: list[StageView]) -> tuple[float, bool]:
        """Return how long the rest takes by what its stages took last, and if all are known."""
        open_ = [view for view in stages if view.outcome is None and not view.stage.skip]
        ends: dict[str, float] = {}
        work = 0.0
        for view in open_:
            took = 0.0 if view.started_s is None else now_s - view.started_s
            own = max(view.stage.expected_s - took, 0.0)
            work += own
            before = max((ends.get(need, 0.0) for need in view.stage.needs), default=0.0)
            ends[view.stage.name] = before + own
        jobs = (self._view.started and self._view.started.jobs) or len(open_) or 1
        left_s = max(work / jobs, *ends.values(), 0.0)
        return left_s, all(view.stage.expected_s for view in open_)


def _is_present(service: ServiceView) -> bool:
    return service.stopped_at_s is None and not service.reason


def _doing(service: ServiceView) -> str:
    return f"starting: {said}" if (said := _last(service)) else "starting"


def _last(view: StageView | ServiceView) -> str:
    """Return what the engine does for it, or the last line that it printed."""
    return view.activity or view.output.last_line
