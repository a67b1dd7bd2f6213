"""Make the README's pictures from records of real runs: `python bench/pictures.py events.jsonl ...`.

A run that passed gives the terminal's recording and the page, one that did not its last words;
the graph is that of `ci/main.py`. They go into `docs/pictures`; the page needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "ci"))

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from penstock.__main__ import make_reports
from penstock.events import RunFinished, RunStarted
from penstock.replay import read
from penstock.reports.console import ConsoleReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.events import Event

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS = 100, 64
SHOTS, SHOT_S, LAST_S = 32, 0.35, 6.0  # of a recording; its last picture stays longer
PAGE_SIZE = "1280,944"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
THEME = TerminalTheme(
    (24, 26, 31),
    (222, 225, 230),
    [
        (24, 26, 31),
        (255, 107, 104),
        (105, 201, 112),
        (229, 192, 87),
        (97, 175, 239),
        (198, 140, 232),
        (86, 194, 205),
        (222, 225, 230),
    ],
)
# rich's own names fonts that it would fetch; a README's picture may fetch nothing.
WINDOW = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}"
 width="{width}" height="{height:g}" role="img">
<style>
text {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }}
text.window-title {{ font: 16px system-ui, sans-serif }}
FILM_STYLES
</style>
{chrome}
<svg x="{terminal_x}" y="{terminal_y}" width="{terminal_width}" height="{terminal_height:g}">
<g class="film">FILM</g>
</svg>
</svg>
"""
MOTION = """.film {{ transform: translateY(-{way}px); animation: play {whole_s}s steps({steps}) infinite }}
@keyframes play {{ 0% {{ transform: none }} {moving}%, 100% {{ transform: translateY(-{way}px) }} }}
@media (prefers-reduced-motion: reduce) {{ .film {{ animation: none }} }}"""
_MOVE = re.compile(r"(\n|\r|\x1b\[\?\d+[hl]|\x1b\[\d+[AK])")


def shots(events: Sequence[Event], count: int) -> Iterator[list[Text]]:
    """Yield what stands on the terminal at so many moments of a run, and at its end."""
    now_s = 0.0
    written = io.BytesIO()
    console = ConsoleReport(
        io.TextIOWrapper(written, encoding="utf-8"),
        color="always",
        environ={"COLUMNS": str(COLUMNS), "LINES": str(ROWS)},
        live=True,
        clock=lambda: now_s,
    )
    moments = [events[-1].at_s * number / count for number in range(1, count)]
    with console:
        for event in events:
            while moments and moments[0] < event.at_s:
                now_s = moments.pop(0)
                console.tick()
                yield screen(written.getvalue().decode())
            now_s = event.at_s
            console(event)
    yield screen(written.getvalue().decode())


def screen(written: str) -> list[Text]:
    """Return the last rows of a terminal that got this; it does what our live view asks for."""
    lines, row = [""], 0
    for piece in _MOVE.split(written):
        if piece == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif piece.endswith("A") and _MOVE.match(piece):
            row -= int(piece[2:-1])
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif not _MOVE.match(piece):
            lines[row] += piece
    texts = [Text.from_ansi(line) for line in "\n".join(lines).rstrip().split("\n")]
    return [row for text in texts for row in text.divide(range(COLUMNS, len(text), COLUMNS))][
        -ROWS:
    ]


def picture(frames: Sequence[list[Text]], title: str) -> str:
    """Return frames as an SVG that shows one after the other, or the last where nothing moves."""
    rows = max(map(len, frames))
    film = _console()
    for frame in frames:
        film.print(Text("\n").join([*frame, *[Text()] * (rows - len(frame))]))
    parts = film.export_svg(
        theme=THEME, unique_id="film", code_format="{styles}\0{matrix}\0{line_height}"
    )
    styles, matrix, line_height = parts.split("\0")
    if steps := len(frames) - 1:
        moving_s = steps * SHOT_S
        styles += "\n" + MOTION.format(
            way=round(steps * rows * float(line_height), 1),
            whole_s=moving_s + LAST_S,
            steps=steps,
            moving=round(100 * moving_s / (moving_s + LAST_S), 1),
        )
    matrix = re.sub(r' clip-path="[^"]*"|<text[^>]*>\n</text>', "", matrix)
    matrix = matrix.replace("&#160;", "\u00a0")
    window = _console()
    window.print("\n" * (rows - 1))
    svg = window.export_svg(title=title, theme=THEME, unique_id="window", code_format=WINDOW)
    return svg.replace("FILM_STYLES", styles).replace("FILM", matrix)


def _console() -> Console:
    return Console(width=COLUMNS, file=io.StringIO(), record=True, force_terminal=True)


def photograph(page: Path, into: Path, *, dark: bool) -> None:
    """Write what a browser shows at the top of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"{into.name} needs a browser, but there is none of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",  # it refuses root otherwise, and the page is our own
                f"--user-data-dir={profile}",
                f"--window-size={PAGE_SIZE}",
                "--hide-scrollbars",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--screenshot={into.absolute()}",
                page.absolute().as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Make what the records given allow, and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, default=ROOT / "docs/pictures")
    options = parser.parse_args()
    folder: Path = options.into
    folder.mkdir(parents=True, exist_ok=True)
    for record in options.events:
        events = list(read(record))
        started, finished = events[0], events[-1]
        if not isinstance(started, RunStarted) or not isinstance(finished, RunFinished):
            sys.exit(f"{record}: not the record of a whole run")
        passed = finished.exit_code == 0
        frames = list(shots(events, SHOTS if passed else 1))
        name = "terminal.svg" if passed else "red.svg"
        (folder / name).write_text(picture(frames, started.pipeline), encoding="utf-8")
        if passed:
            with tempfile.TemporaryDirectory() as reports:
                make_reports(record, Path(reports), quiet=True)
                page = Path(reports, "index.html")
                photograph(page, folder / "report.png", dark=False)
                photograph(page, folder / "report-dark.png", dark=True)
    graph = [sys.executable, str(ROOT / "ci/main.py"), "--graph", "svg"]
    (folder / "graph.svg").write_bytes(
        subprocess.run(graph, check=True, capture_output=True).stdout
    )
    for made in sorted(folder.iterdir()):
        print(f"{made.name}: {made.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
