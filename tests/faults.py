"""`docs/faults.md`: each fault, what is promised, what its tests measured.

A test says `@pytest.mark.fault(7)`, and by `measured(...)` what it saw; without that its docstring
stands for it. `python3 -m ci test --faults docs/faults.md` writes the page; every run that covers all
rows fails when the page says anything else.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"

# Number: (the fault, what is promised).
ROWS: dict[int, tuple[str, str]] = {
    1: ("Ctrl-C, once", "What runs is cancelled, what exists is kept, 130 within 7.5 s"),
    2: ("Ctrl-C again, or the grace is over", "Ends at once; the record's last line is whole"),
    3: ("SIGTERM of the CI host, or a hang-up", "As Ctrl-C: 143, or 129, within 7.5 s"),
    4: ("Cancelled before a stage began", "It never starts, and is cancelled, not failed"),
    5: ("Cancelled after a stage had ended", "Its result stays"),
    6: ("A cancel races with a success", "Exactly one result for each stage"),
    7: ("The engine dies in a stage", "`error`, exit 4, a record, back at the shell within 10 s"),
    8: ("The engine restarts between two runs", "The next run works, from the cache or without"),
    9: ("The registry is down at a pull and comes back", "Tried again with jitter, then passed"),
    10: (
        "The registry answers a push with 429, 5xx, 401 or 404",
        "The first two are tried again, the others fail at once; host and reason are named",
    ),
    11: ("A push is cut half way", "Tried again; no tag ever leads to half an image"),
    12: ("A service never becomes ready", "`error` at its own deadline, with its last lines"),
    13: ("A service exits while it is in use", "`error`: its name, exit code and last 50 lines"),
    14: ("A service ignores SIGTERM", "Killed; the result of the stage stays"),
    15: ("A stage passes its deadline", "`timeout`; its reports are kept, dependants skipped"),
    16: ("The run passes its deadline", "124; teardown stages and reports have time of their own"),
    17: ("An optional stage fails", "The run passes and shows a warning"),
    18: ("A teardown stage fails", "The run fails, and the first failure stays the headline"),
    19: ("What a dependant takes was not produced", "It does not start, and says what is missing"),
    20: ("Tests fail", "Their reports are kept all the same"),
    21: (
        "A fault that passes",
        "Declared classes are tried again, tests never; all tries recorded",
    ),
    22: ("A secret is printed", "Masked in every file and stream that we write"),
    23: ("A secret comes in two pieces", "Masked, wherever it is split"),
    24: ("Secrets overlap or hold each other", "The longest is masked, and nothing is left over"),
    25: ("A secret has several lines", "Masked with LF, CR LF, CR CR LF and spaces"),
    26: ("A secret is encoded", "Base64 at any offset, URL, JSON, XML, shell, hex and reversed"),
    27: ("A secret is short or empty", "Not masked under 6 bytes, and named by a warning"),
    28: ("A secret is learnt during the run", "Masked from then on"),
    29: ("A secret of 8 kB", "Masked, in bounded memory"),
    30: ("Credentials in the URL of an error", "Masked"),
    31: ("Output in escape codes, in no UTF-8, in one endless line", "Kept, in bounded memory"),
    32: ("A report or the record cannot be written", "The stage's result stands, with a warning"),
    33: (
        "The collector of telemetry is down",
        "The run is unaffected; less than two seconds are lost",
    ),
    34: ("The engine's disk is full", "Named as such, and not tried again"),
    35: ("Two runs at once", "Nothing is shared; cancelling one leaves the other alone"),
    36: ("A cycle, an unknown need, a name given twice", "Refused before anything starts"),
    37: ("A stage's own Python raises", "It fails at its file and line; a bug of ours is exit 3"),
    38: ("The clock jumps", "Durations come from the monotonic clock"),
    39: (
        "Our program is killed by SIGKILL",
        "The engine keeps nothing of it; the next run says so",
    ),
    40: ("A record or a memory is half written", "Noticed, ignored, written anew"),
    41: ("A child of a command keeps its output open", "The run ends anyway"),
    42: ("The engine is paused, or the channel is half open", "As if it had died: `error`, 10 s"),
    43: ("No stage is left to run", "Exit 5, never green"),
    44: ("Only optional stages are left, and they fail", "Not passed"),
    45: ("Two cells use the same service", "Two services, with data of their own"),
    46: ("A socket, pipe, dangling link, empty or unreadable file among the reports", "Named"),
    47: ("The engine's disk is nearly full", "A warning before the start; the cache is kept"),
    48: ("A proxy is set", "The loopback is never asked through it"),
    49: ("Output in the words of GitHub, of HTML, Markdown or XML", "Shown literally everywhere"),
    50: (
        "The clocks of container and host differ, or summer time begins",
        "Order and durations hold",
    ),
}

HEAD = """# Faults

What goes wrong around a pipeline, what penstock promises then, and what its tests see. Each row is tested on the
real engine, with real signals and sockets, wherever the fault has to do with them; `python3 -m ci test` runs them
all, and `python3 -m ci test --faults docs/faults.md` writes this page.

| # | fault | promised | measured | tests |
|---|---|---|---|---|
"""


def page(seen: dict[int, list[tuple[str, str]]]) -> str:
    """Return the page, from what was measured by each row's tests, by their ids."""
    lines = []
    for number, (fault, promise) in ROWS.items():
        found = sorted(seen.get(number, ()))
        measured = dict.fromkeys(text for _, texts in found for text in texts.split("\n"))
        names = dict.fromkeys(test.partition("[")[0] for test, _ in found)
        links = (f"[{n.rpartition('::')[2]}](../{n.partition('::')[0]})" for n in names)
        cells = (str(number), fault, promise, "; ".join(measured), "<br>".join(links))
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n")
    return HEAD + "".join(lines)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take what a test saw, in words without figures that change from run to run."""
    return lambda text: request.node.user_properties.append(("measured", text))


class FaultPage:
    """Collects what the tests of each row measured."""

    def __init__(self, config: pytest.Config) -> None:
        self._write_to: str | None = config.getoption("--faults")
        self._rows: dict[str, tuple[int, ...]] = {}
        self._words: dict[str, str] = {}
        self._passed: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which test belongs to which rows."""
        for item in items:
            if marks := list(item.iter_markers("fault")):
                self._rows[item.nodeid] = tuple(dict.fromkeys(n for m in marks for n in m.args))
                doc = getattr(getattr(item, "function", None), "__doc__", None) or ""
                self._words[item.nodeid] = doc.strip().splitlines()[0].rstrip(".") if doc else ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test measured, if it passed."""
        if report.when == "call" and report.passed and report.nodeid in self._rows:
            self._passed.add(report.nodeid)
            texts = [str(text) for name, text in report.user_properties if name == "measured"]
            self._words[report.nodeid] = "\n".join(texts) or self._words[report.nodeid]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page, or compare it, when all of it was seen."""
        seen: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for test in self._passed:
            for number in self._rows[test]:
                seen[number].append((test, self._words[test]))
        missing = [*_missing(self._rows.values(), seen), *(self._rows.keys() - self._passed)]
        if self._write_to:
            Path(self._write_to).write_text(page(seen), encoding="utf-8")
            print(f"\n{self._write_to}: written; not passed or without a test: {missing or 'none'}")  # noqa: T201 - pytest's own screen
        elif not missing and page(seen) != PAGE.read_text(encoding="utf-8"):
            print(f"\n{PAGE.name} is out of date: `python3 -m ci test --faults docs/faults.md`")  # noqa: T201 - pytest's own screen
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _missing(rows: Iterable[tuple[int, ...]], seen: dict[int, list[tuple[str, str]]]) -> list[int]:
    has_test = {number for numbers in rows for number in numbers}
    return [number for number in ROWS if number not in has_test or number not in seen]
