"""Plays a recorded run again, without an engine: the same events, the same verdict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from penstock.events import (
    Event,
    RunFinished,
    RunStarted,
    RunStopped,
    StageFinished,
    StageRetried,
    StageStarted,
    from_dict,
)
from penstock.model import Result
from penstock.runner import verdict, warnings
from penstock.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SCHEDULED = (RunStopped, StageStarted, StageRetried, StageFinished)


def read(path: Path) -> Iterator[Event]:
    """Yield the events of a file; a last line that a crash cut short is left out.

    Raises:
        ValueError: When another line is no event, with its number.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield from_dict(json.loads(line))
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                message = f"{path}:{number}: {error}"
                raise ValueError(message) from error


def replay(events: Sequence[Event]) -> list[Event]:
    """Run the scheduler over what was recorded and return the events of the stages, and the verdict.

    Each stage ends as it did, in the same order; what stopped the run from outside (an interrupt, a
    deadline, the loss of the engine) stops it again at the same point.

    Raises:
        ValueError: When the record has no beginning, or stages in it end before they can begin.
    """
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    if started is None:
        message = "the record does not say which stages there are"
        raise ValueError(message)
    made: list[Event] = []
    now_s = 0.0
    scheduler = Scheduler(
        started.stages,
        emit=made.append,
        jobs=started.jobs,
        keep_going=started.keep_going,
        clock=lambda: now_s,
    )
    scheduled = [event for event in events if isinstance(event, SCHEDULED)]
    if scheduled and not isinstance(scheduled[0], RunStopped):  # else nothing ever began
        scheduler.begin()
    for event in scheduled:
        now_s = event.at_s
        match event:
            case RunStopped() if event.result is not Result.FAILURE:
                scheduler.stop(event)
            # What the scheduler skips by itself has its outcome by now.
            case StageRetried() | StageFinished() if event.stage not in scheduler.outcomes:
                if event.stage not in scheduler.running:
                    message = (
                        f"the record says that '{event.stage}' ended, and it cannot have begun "
                        f"by then"
                    )
                    raise ValueError(message)
                if isinstance(event, StageFinished):
                    scheduler.end(event.stage, event.outcome)
                else:
                    made.append(event)
    ended = verdict(scheduler.stages, scheduler.outcomes, scheduler.stops)
    finished = RunFinished(**vars(ended), duration_s=0.0, warnings=warnings(scheduler.outcomes))
    return [*made, finished]
