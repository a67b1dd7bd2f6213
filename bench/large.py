"""What a very large run costs when all listen together: `python bench/large.py [--worst]`.

200 stages, 20,000 tests and 100 MB of output through terminal, record, files, GitHub and telemetry
in one process, as a run has them; no engine is asked. `--replay events.jsonl` shows a recorded run
instead. With `--kill N` a process that does so is killed N times at random, and what it left is
read: every report must be whole or absent, and made again from the events.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/penstock"))
sys.path.insert(0, str(Path(__file__).parents[1] / "ci"))

from collector import Collector, collecting  # type: ignore[import-not-found]
from page import RUNS, events  # type: ignore[import-not-found]

from penstock.__main__ import make_reports
from penstock.config import RunInfo
from penstock.events import Event, EventStream, RunFinished
from penstock.redact import Redactor
from penstock.replay import read
from penstock.reports import Look, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

REPORTS = ("index.html", "run.json")


def show(happened: Iterable[Event], folder: Path, endpoint: str = "") -> tuple[float, float]:
    """Show a run everywhere; return how long that took until its end, and at its end."""
    os.environ |= {"GITHUB_ACTIONS": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    os.environ |= {f"GITHUB_{name}": str(folder / name) for name in ("OUTPUT", "STEP_SUMMARY")}
    info = RunInfo(
        id=os.urandom(16).hex(), root=folder, commit="c", branch="main", environ=os.environ
    )
    ended = began = time.perf_counter()
    with shown(Look(color="always"), info, Redactor()) as listeners:
        stream = EventStream(Redactor(), listeners)
        for event in happened:
            if isinstance(event, RunFinished):
                ended = time.perf_counter()
            stream.emit(event)
    return ended - began, time.perf_counter() - ended


def measure(happened: Iterable[Event], folder: Path) -> None:
    """Print what it costs: time, the size of each report, memory."""
    before_s = time.process_time()
    with collecting(Collector()) as collector, Path(os.devnull).open("w") as nowhere:
        with redirect_stdout(nowhere):
            during_s, at_end_s = show(happened, folder, collector.url)
        used_s = time.process_time() - before_s
    sizes = {name: (folder / "reports" / name).stat().st_size for name in REPORTS}
    sizes["events.jsonl"] = (folder / "reports/events.jsonl").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{during_s:.1f} s while it runs, {at_end_s:.2f} s at its end, {used_s:.1f} s of CPU")
    print(", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items()))
    print(f"process at most {peak} MB (the receiver of {len(collector.traces)} requests included)")


def left(reports: Path) -> str:
    """Read what a killed process left, make the reports again, and say how far it had come."""
    names = {path.name for path in reports.iterdir()} if reports.is_dir() else set()
    if "run.json" in names:
        json.loads((reports / "run.json").read_text(encoding="utf-8"))
    if "junit.xml" in names:
        ET.parse(reports / "junit.xml")  # noqa: S314 - our own
    if "index.html" in names:
        page = (reports / "index.html").read_text(encoding="utf-8")
        if not page.rstrip().endswith("</html>"):
            message = f"the page is not whole: {page[-200:]}"
            raise ValueError(message)
    if not (reports / "events.jsonl").is_file() or b"\n" not in (
        (reports / "events.jsonl").read_bytes()
    ):
        return "nothing"
    make_reports(reports / "events.jsonl", quiet=True)
    if missing := [name for name in REPORTS if not (reports / name).stat().st_size]:
        message = f"not made again: {missing}"
        raise ValueError(message)
    whole = len(names & {*REPORTS, "junit.xml"})
    beside = any(name.startswith(".") for name in names)
    return f"{whole} reports{', and one half made beside' if beside else ''}"


def kill(times: int, again: list[str], whole_s: float) -> None:
    """Kill a run at random times and print what was left how often."""
    found: Counter[str] = Counter()
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, *again, "--into", folder]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                time.sleep(random.uniform(0.2, whole_s))  # noqa: S311 - no secret
                has_ended = process.poll() is not None
                process.kill()
            what = left(Path(folder, "reports"))
            found[f"{what}, had ended" if has_ended else what] += 1
    print(dict(found.most_common()))


def main() -> None:
    """Measure, or kill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worst", action="store_true", help="all of it failed, and is escaped")
    parser.add_argument("--replay", type=Path, metavar="EVENTS")
    parser.add_argument("--kill", type=int, metavar="N")
    parser.add_argument("--into", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    again = ["--replay", str(options.replay)] if options.replay else []
    happened = (
        read(options.replay)
        if options.replay
        else events(*RUNS[options.worst * "worst" or "usual"])
    )
    if options.into:
        show(happened, options.into)
        return
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        if options.kill:
            subprocess.run(
                [sys.executable, __file__, *again, "--into", folder],
                stdout=subprocess.DEVNULL,
                check=True,
            )
            kill(options.kill, again, time.perf_counter() - began)
        else:
            measure(happened, Path(folder))


if __name__ == "__main__":
    main()
