"""Play a recorded run on the terminal, in its own time: `python bench/play.py events.jsonl`.

Or one that prints a lot, to see what the terminal costs: `python bench/play.py --storm 60`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "ci"))

from penstock.events import (
    EngineConnected,
    Event,
    EventStream,
    OutputWritten,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from penstock.model import Outcome, Result, Stage
from penstock.redact import Redactor
from penstock.replay import read
from penstock.reports.console import ConsoleReport
from penstock.reports.jsonlines import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STAGES, LINES_A_SECOND, EVENTS_A_SECOND = 20, 100, 10


def storm(seconds: int) -> Iterator[Event]:
    """Yield a run of stages that all print, in pieces as large as the engine's."""
    stages = [Stage(name=f"s{n}", title=f"Stage {n}", expected_s=seconds) for n in range(STAGES)]
    yield RunStarted(
        pipeline="storm",
        run_id="1",
        commit="c",
        started_at="t",
        stages=tuple(stages),
        reproduce="r",
    )
    yield EngineConnected(version="none", duration_s=0.0)
    for stage in stages:
        yield StageStarted(stage=stage.name)
    lines = LINES_A_SECOND // EVENTS_A_SECOND
    for turn in range(seconds * EVENTS_A_SECOND):
        for stage in stages:
            text = "".join(
                f"tests/app/test_{stage.name}.py::test_{turn}[{n}] PASSED\n" for n in range(lines)
            )
            yield OutputWritten(at_s=turn / EVENTS_A_SECOND, stage=stage.name, text=text)
    passed = Outcome(result=Result.SUCCESS, duration_s=seconds)
    for stage in stages:
        yield StageFinished(at_s=seconds, stage=stage.name, outcome=passed)
    yield RunFinished(
        at_s=seconds, result=Result.SUCCESS, reason="", exit_code=0, duration_s=seconds
    )


def play(events: Iterable[Event], stream: EventStream, speed: float) -> None:
    """Send each event when its time has come."""
    began = time.monotonic()
    for event in events:
        time.sleep(max(began + event.at_s / speed - time.monotonic(), 0))
        stream.emit(replace(event))


def main() -> None:
    """Play, and print to stderr what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="?", type=Path)
    parser.add_argument("--storm", type=int, metavar="SECONDS")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--color", default="auto", choices=("auto", "always", "never"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-q", dest="verbosity", action="store_const", const=-1, default=0)
    parser.add_argument("-v", dest="verbosity", action="store_const", const=1)
    options = parser.parse_args()
    events = storm(options.storm) if options.storm else list(read(options.events))
    speed: float = options.speed

    def clock() -> float:
        return time.monotonic() * speed

    began, before_s = time.monotonic(), time.process_time()
    people = sys.stderr if options.json else sys.stdout
    # A live view on the same terminal as the JSON would be drawn over it.
    live = False if options.json and sys.stdout.isatty() else None
    with ConsoleReport(
        people, verbosity=options.verbosity, color=options.color, live=live, clock=clock
    ) as console:
        machines = [JsonLines()] if options.json else []
        play(events, EventStream(Redactor(), [console, *machines], clock=clock), speed)
    took_s, used_s = time.monotonic() - began, time.process_time() - before_s
    print(f"{used_s:.2f} s of {took_s:.1f} s: {used_s / took_s:.1%} of a core", file=sys.stderr)


if __name__ == "__main__":
    main()
