"""`penstock`: what needs no pipeline of its own. So far: the reports of a record, made again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.events import Event, RunFinished, RunStarted
from penstock.model import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: that of the run which is shown, or 2."""
    parser = argparse.ArgumentParser(prog="penstock", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser("report", help="make the reports of a run from its events")
    report.add_argument("events", type=Path, help="what the run wrote: reports/events.jsonl")
    report.add_argument(
        "--into", type=Path, metavar="FOLDER", help="where to; by default where the events are"
    )
    report.add_argument("-q", "--quiet", action="store_true", help="write files only")
    options = parser.parse_args(argv)
    try:
        return make_reports(options.events, options.into, quiet=options.quiet)
    except (OSError, ValueError, PenstockError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command line speaks here
        return 2


def make_reports(record: Path, into: Path | None = None, *, quiet: bool = False) -> int:
    """Make every report of a recorded run again, also of one that was killed.

    Args:
        record: Its `events.jsonl`; it stays as it is.
        into: The folder for the reports; by default the record's.
        quiet: Print nothing.

    Returns:
        The exit code of the run; 4 for one whose end nobody recorded.

    Raises:
        OSError: When the record cannot be read.
        FolderError: When nothing can be written into the folder.
        ValueError: When the record is none.
    """
    from penstock import replay
    from penstock.reports import files
    from penstock.reports.console import ConsoleReport
    from penstock.reports.record import Record

    folder = into or record.parent
    events = list(_ended(replay.read(record), record))
    listeners = [Record(folder, is_new=False), *files(folder)]
    if not quiet:
        listeners.append(ConsoleReport())
    for event in events:
        for listener in listeners:
            listener(event)
    finished = events[-1]
    return finished.exit_code if isinstance(finished, RunFinished) else 2


def _ended(events: Iterator[Event], record: Path) -> Iterator[Event]:
    """Yield the events, and the end of a run that was killed before it could tell."""
    last: Event | None = None
    for event in events:
        if last is None and not isinstance(event, RunStarted):
            message = f"{record} does not begin with a run's start, so it cannot be shown"
            raise ValueError(message)
        yield event
        last = event
    if last is None:
        message = f"{record} holds no event of a run; `reports/events.jsonl` of a run does"
        raise ValueError(message)
    if not isinstance(last, RunFinished):
        yield RunFinished(
            at_s=last.at_s,
            result=Result.ERROR,
            reason="the run was killed, or lost its engine, before it could end",
            exit_code=4,
            duration_s=last.at_s,
        )


if __name__ == "__main__":
    raise SystemExit(main())
