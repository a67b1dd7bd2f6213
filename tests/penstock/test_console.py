from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from penstock.events import (
    ActivityChanged,
    BasePrepared,
    EarlyBegun,
    EarlyDropped,
    EngineConnected,
    Event,
    OutputWritten,
    RunFinished,
    RunStarted,
    ServiceFailed,
    ServiceStarted,
    ServiceStopped,
    StageFinished,
    StageRetried,
    StagesAdded,
    StageStarted,
    Warned,
    from_dict,
)
from penstock.evidence import Finding
from penstock.model import Attempt, Origin, Outcome, Result, Stage
from penstock.reports.console import ConsoleReport
from penstock.reports.jsonlines import JsonLines
from penstock.reports.live import Rows
from penstock.reports.terminal import Terminal, is_colored, is_watched, printable
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.reports.terminal import Color

PASSED = Outcome(result=Result.SUCCESS, duration_s=1.0)
HOSTILE = [
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]0;no end",
    "\x9b31m",
    "\x1bc",
    "\r",
    "\b\b",
    "\u202eabc",
    "\u2028",
    "\ud800",
    "e\u0301" * 3,
    "漢字",
    "👩\u200d👩\u200d👧",
    "[bold]x[/]",
    "::error::x",
    "]]><script>",
    "y" * 3000,
]
hostile = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text()), max_size=5).map("".join)


def started(*stages: Stage, jobs: int | None = None) -> RunStarted:
    return RunStarted(
        pipeline="p",
        run_id="1",
        commit="c",
        started_at="t",
        stages=stages,
        reproduce="python ci/main.py",
        jobs=jobs,
    )


def finished(result: Result = Result.SUCCESS, root: str = "") -> RunFinished:
    return RunFinished(result=result, reason="", exit_code=0, duration_s=4.0, root=root)


TWO = started(
    Stage(name="lint", title="Lint with ruff"), Stage(name="test", title="Test", needs=("lint",))
)
RUN: list[Event] = [
    TWO,
    StageStarted(stage="lint"),
    OutputWritten(stage="lint", text="one\ntwo\n"),
    StageFinished(stage="lint", outcome=PASSED),
    Warned(message="look here"),
    StageStarted(stage="test"),
    StageFinished(
        stage="test",
        outcome=Outcome(result=Result.FAILURE, reason="exit code 1", output="$ pytest\nboom"),
    ),
    finished(Result.FAILURE, root="test"),
]


class Stream(io.StringIO):
    """A stream of text as most are."""

    encoding = "utf-8"


class Screen:
    """A terminal without end that knows what rich and we write; anything else is an error."""

    HARMLESS = re.compile(r"\x1b\[([0-9;]*m|\?(7|2026)[hl])")

    def __init__(self) -> None:
        self.rows = [""]
        self.at = 0

    def feed(self, text: str) -> None:
        for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b\r\n]+|.", text, re.DOTALL):
            match token:
                case "\n":
                    self.at += 1
                    self.rows += [""] * (self.at == len(self.rows))
                case "\x1b[1A":
                    self.at -= 1
                case "\x1b[2K":
                    self.rows[self.at] = ""
                case "\r":
                    pass  # what follows is an erased row
                case _ if token[0] == "\x1b":
                    assert self.HARMLESS.fullmatch(token), token
                case _:
                    self.rows[self.at] += token

    @property
    def lines(self) -> list[str]:
        return "\n".join(self.rows).rstrip("\n").split("\n")


class Watched:
    """A report on a terminal of a size, whose clock and ticks are ours."""

    def __init__(self, columns: int = 80, lines: int = 24, verbosity: int = 0) -> None:
        self.now_s = 0.0
        self.stream = Stream()
        self.screen = Screen()
        self._environ = {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm"}
        self.report = ConsoleReport(
            self.stream,
            environ=self._environ,
            live=True,
            verbosity=verbosity,
            clock=lambda: self.now_s,
        )
        self.report._ticker.start = lambda: None  # type: ignore[method-assign]
        self.report._ticker.join = lambda timeout=None: None  # type: ignore[method-assign]  # noqa: ARG005

    def shows(self, *events: Event) -> list[str]:
        for event in events:
            self.report(event)
        self.report.tick()
        return self.seen()

    def seen(self) -> list[str]:
        self.screen.feed(self.stream.getvalue())
        self.stream.seek(0)
        self.stream.truncate()
        return self.screen.lines


def shown(
    events: Iterable[Event], *, verbosity: int = 0, color: Color = "auto", live: bool = False
) -> str:
    stream = Stream()
    environ = {"COLUMNS": "1000"}
    report = ConsoleReport(stream, verbosity=verbosity, color=color, environ=environ, live=live)
    for event in events:
        report(event)
    return stream.getvalue()


def drawn(events: Iterable[Event], width: int = 80, height: int = 24, now_s: float = 0.0) -> str:
    view = RunView()
    for event in events:
        view(event)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    terminal = Terminal(stream, colored=False, live=True, environ={})
    rows = Rows(view, terminal)
    rows.draw(now_s, width, height)
    return rows.__rich__().plain


@pytest.mark.parametrize(
    ("color", "environ", "is_terminal", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"TERM": "dumb", "FORCE_COLOR": "1"}, False, True),
        ("auto", {"FORCE_COLOR": "0"}, False, False),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_colours_follow_the_option_then_the_variables_then_the_terminal(
    color: Color, environ: dict[str, str], *, is_terminal: bool, expected: bool
) -> None:
    """The order is --color, NO_COLOR, FORCE_COLOR, TERM=dumb, terminal."""
    assert is_colored(color, environ, is_terminal=is_terminal) is expected


@pytest.mark.parametrize(
    ("environ", "is_terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"CI": "true"}, True, False),
        ({"CI": "false"}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_lines_are_drawn_again_only_where_someone_looks(
    environ: dict[str, str], *, is_terminal: bool, expected: bool
) -> None:
    """A log never holds what was meant to be overwritten."""
    assert is_watched(environ, is_terminal=is_terminal) is expected


def test_colour_is_no_reason_to_draw_again() -> None:
    """FORCE_COLOR in a log colours lines and moves nothing."""
    stream = Stream()
    with ConsoleReport(stream, environ={"FORCE_COLOR": "1"}) as report:
        for event in RUN:
            report(event)
        report.tick()
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert ("\x1b" in stream.getvalue(), "\x1b" in text) == (True, False)


@pytest.mark.fault(49)
@given(hostile)
def test_nothing_untrusted_acts(text: str) -> None:
    """Controls, bidirectional marks and lone surrogates are spelled out; the rest stays as it is."""
    safe = printable(text)
    joiners = "\u200c\u200d"
    acting = {c for c in safe if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}}
    marks = {c for c in safe if unicodedata.bidirectional(c) in {"LRE", "RLE", "RLO", "LRO", "PDF"}}
    assert (acting - {"\t"}, marks - set(joiners)) == (set(), set())
    assert printable(safe) == safe


def test_colours_of_tools_are_dropped_and_all_else_is_literal() -> None:
    """A person can read what a tool printed, and see what it tried."""
    assert printable("\x1b[1;31mE\x1b[0m   \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "E   link"
    assert printable("\x1b]0;no end \u202e\x9b<b>") == "\\x1b]0;no end \\u202e\\x9b<b>"
    assert printable("漢字 e\u0301 שלום\t👩\u200d👧") == "漢字 e\u0301 שלום\t👩\u200d👧"


def everywhere(text: str) -> list[Event]:
    """A run in which every string that a stage has a say in is the text."""
    finding = Finding(message=text, file=text, code=text)
    failed = Outcome(
        result=Result.FAILURE, reason=text, output=text, notes=(text,), findings=(finding,) * 2
    )
    attempt = Attempt(result=Result.ERROR, reason=text)
    return [
        started(Stage(name="a", title=text), Stage(name="b", title=f"{text}[1]", needs=("a",))),
        StageStarted(stage="a"),
        ActivityChanged(service="s", what=text),
        OutputWritten(stage="a", text=f"{text}\n"),
        ServiceFailed(service="s", what=text, reason=text),
        StageRetried(stage="a", attempt=attempt, delay_s=1.0),
        Warned(message=text),
        StageFinished(stage="a", outcome=failed),
        finished(Result.FAILURE, root="a"),
    ]


@given(hostile)
def test_hostile_output_cannot_leave_its_line(text: str) -> None:
    """In no place and at no verbosity: all is text and line feeds, and the verdict stands alone."""
    for verbosity in (-1, 0, 1):
        out = shown(everywhere(text), verbosity=verbosity)
        assert {c for c in out if unicodedata.category(c) in {"Cc", "Cs"}} <= {"\n"}
        assert out.splitlines()[-1] == "reproduce: python ci/main.py --only a"
    colors = set(re.findall(r"\x1b\[[^a-z]*.", shown(everywhere(text), color="always")))
    assert colors <= {f"\x1b[{code}m" for code in ("0", "1;31", "31", "33", "2")}


@given(hostile, st.integers(20, 100), st.integers(1, 12))
def test_live_rows_never_wrap_and_never_outgrow_the_terminal(
    text: str, width: int, height: int
) -> None:
    """Whatever is printed, the next frame begins where the last one did."""
    rows = drawn(everywhere(text)[:5], width, height).removesuffix("\n").split("\n")
    assert len(rows) <= height
    assert all(cell_len(row) < width for row in rows)


@given(hostile, st.sets(st.integers(0, 8)))
def test_live_view_loses_no_line_and_leaves_none_behind(text: str, ticks: set[int]) -> None:
    """Whenever it was drawn, in the end the terminal holds what a log would, without the starts."""
    watched = Watched(columns=1000)
    with watched.report as report:
        for number, event in enumerate(everywhere(text)):
            report(event)
            if number in ticks:
                watched.shows()
    plain = shown(everywhere(text), live=True).expandtabs().splitlines()
    assert [r.rstrip() for r in watched.seen()] == [line.rstrip() for line in plain]


def test_live_view_tells_what_runs_and_waits_and_for_how_long() -> None:
    """In graph order: elapsed and expected time, last line, services, what is left."""
    stages = (
        Stage(name="push", title="Push", needs=("test",), expected_s=5),
        Stage(name="lint", title="Lint"),
        Stage(name="test", title="Run tests", needs=("lint",), expected_s=10),
        Stage(name="types", title="Check types", needs=("lint",), expected_s=2),
    )
    events = [
        started(*stages),
        EngineConnected(version="v", duration_s=1.0),
        StageStarted(at_s=1.0, stage="lint"),
        StageFinished(at_s=2.0, stage="lint", outcome=PASSED),
        StageStarted(at_s=2.0, stage="test"),
        OutputWritten(stage="test", text="\x1b[32mtests/a.py\x1b[0m   PASSED\r\n\n"),
        ServiceStarted(service="redis", duration_s=1.0),
        ActivityChanged(service="postgres", what="pulling postgres:15"),
        ServiceStarted(service="gone", duration_s=1.0),
        ServiceStopped(service="gone"),
    ]
    assert drawn(events, now_s=6.5).splitlines() == [
        "Run tests       4.5/10 s  tests/a.py PASSED",
        "Push                      waits for test",
        "Check types               waits for its turn",
        "postgres                  starting: pulling postgres:15",
        "healthy: redis",
        "6.5 s, about 10 s left, 1 running, 2 waiting, 1 done",
        "",
    ]


def test_expected_time_heeds_how_many_run_at_once_and_what_is_unknown() -> None:
    """Two workers need three turns for six stages of ten seconds; a new stage may take any time."""
    six = [Stage(name=f"s{n}", expected_s=10) for n in range(6)]
    assert "about 30 s left" in drawn([started(*six, jobs=2)])
    assert "about 10 s left" in drawn([started(*six)])
    assert "at least 10 s left" in drawn([started(*six, Stage(name="new"))])
    assert "left" not in drawn([started(Stage(name="new"))])


def test_what_waits_makes_room_for_what_runs() -> None:
    """Of two hundred stages the running ones are seen; the numbers count them all."""
    stages = [Stage(name=f"s{n:03}") for n in range(200)]
    running = [StageStarted(stage=f"s{n:03}") for n in range(100, 110)]
    healthy = ServiceStarted(service="db", duration_s=1.0)
    assert drawn([started(*stages), *running, healthy], height=2).split() == (
        ["0.0", "s,", "10", "running,", "190", "waiting"]
    )
    rows = drawn([started(*stages), *running], height=24).splitlines()
    assert [row[:4] for row in rows[:2]] == ["s000", "s001"]
    assert [row[:4] for row in rows[2:12]] == [f"s{n}" for n in range(100, 110)]
    assert rows[12] == "0.0 s, 10 running, 190 waiting"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("[python=3.1{}]", ["…[python=3.11]", "…[python=3.12]"]),
        ("[py=3.1{}]", ["Run…[py=3.11] ", "Run…[py=3.12] "]),
        ("[db=15,python=3.1{}]", ["…,python=3.11]", "…,python=3.12]"]),
    ],
)
def test_cells_of_a_matrix_are_told_apart_in_a_narrow_terminal(
    cell: str, expected: list[str]
) -> None:
    """What differs is the last that is cut off."""
    stages = [Stage(name=v, title=f"Run pytest {cell.format(v)}") for v in "12"]
    rows = drawn([started(*stages)], width=40).splitlines()
    assert [row[:14] for row in rows[:2]] == expected


def test_stages_found_out_are_seen_and_attempts_counted() -> None:
    """The live view follows a run that grows and tries again."""
    attempt = Attempt(result=Result.ERROR, reason="no host")
    events = [
        started(Stage(name="a")),
        StageStarted(stage="a"),
        StageRetried(stage="a", attempt=attempt, delay_s=1.0),
        OutputWritten(stage="a", text="again"),
    ]
    rows = drawn([*events, StagesAdded(stages=(Stage(name="b", needs=("a", "?")),))])
    assert rows.splitlines()[:2] == [
        "a        0.0 s  attempt 2: again",
        "b               waits for a",
    ]


def test_finished_lines_scroll_and_the_rest_is_drawn_below() -> None:
    """On a terminal starts have no line; what ended stays above what runs."""
    watched = Watched()
    with watched.report:
        assert watched.shows(TWO) == [
            "Lint with ruff               waits for the engine",
            "Test                         waits for lint",
            "0.0 s, connecting to the engine, 2 waiting",
        ]
        watched.now_s = 2.0
        watched.report.tick()
        lines = watched.shows(*[dataclasses.replace(event, at_s=2.0) for event in RUN[1:4]])
        assert lines == [
            f"Lint with ruff {'.' * 26} PASSED ✓   1.0 s",
            "Test               waits for the engine",
            "2.0 s, connecting to the engine, 1 waiting, 1 done",
        ]


def test_time_goes_on_between_events() -> None:
    """The clock is read when the rows are drawn."""
    watched = Watched()
    with watched.report:
        watched.shows(TWO, StageStarted(stage="lint"))
        watched.now_s = 7.25
        assert watched.shows()[0] == "Lint with ruff        7.2 s"


def test_other_output_of_the_process_comes_above_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an author prints on the same terminal is neither lost nor drawn over."""
    watched = Watched()
    monkeypatch.setattr(watched.stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", watched.stream)
    with watched.report:
        watched.shows(TWO)
        sys.stdout.write("from the author\n")
        lines = watched.shows(Warned(message="w"))
    assert lines[:2] == ["from the author", "WARNING: w"]
    assert len(lines) == 5


def test_suspended_process_leaves_the_terminal_to_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-Z removes the rows first; they are drawn again when the process goes on."""
    watched = Watched()
    meanwhile: list[list[str]] = []
    monkeypatch.setattr("os.kill", lambda _pid, _number: meanwhile.append(watched.seen()))
    with watched.report:
        watched.shows(TWO, Warned(message="w"))
        signal.raise_signal(signal.SIGTSTP)
        assert meanwhile == [["WARNING: w"]]
        assert watched.shows()[-1] == "0.0 s, connecting to the engine, 2 waiting"
    assert signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL


def test_rows_that_were_given_up_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z in what follows is the shell's business alone."""
    watched = Watched()
    monkeypatch.setattr("os.kill", lambda _pid, _number: None)
    with watched.report:
        region, _ = watched.report._live or (None, None)
        assert region
        region.stop()
        region._suspend(signal.SIGTSTP, None)
        assert not region.is_started


def test_verdict_stands_alone_as_soon_as_it_is_known() -> None:
    """What else a run still has to do, nothing moves below its last line."""
    watched = Watched()
    with watched.report:
        watched.shows(*RUN[:5])
        assert watched.shows(*RUN[5:])[-1] == "reproduce: python ci/main.py --only test"


def test_quiet_terminal_shows_no_rows() -> None:
    """`-q` is also meant for terminals."""
    stream = Stream()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    with ConsoleReport(stream, verbosity=-1, environ={"TERM": "xterm"}) as report:
        report(TWO)
        report.tick()
    assert stream.getvalue() == ""


def test_a_mistake_of_the_live_view_costs_no_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and the run goes on with plain lines."""
    watched = Watched()
    with watched.report:
        watched.shows(TWO)
        monkeypatch.setattr(Rows, "draw", lambda *_: 1 // 0)
        watched.shows(*RUN[1:5])
        lines = watched.shows(*RUN[5:])
    assert "ZeroDivisionError" in caplog.text
    assert {"WARNING: look here", "Test: started"} <= set(lines)
    assert lines[-1] == "reproduce: python ci/main.py --only test"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            40,
            [
                "Lint with ruff ........ PASSED ✓   1.0 s",
                "Run pytest with coverage",
                "  FAILED ✗ (exit code 1)   0.0 s",
                "Push:",
                "  SKIPPED (because that one has failed)",
                "",
                "Run pytest with coverage: FAILED (exit code 1)",
                "",
                "PIPELINE STOPPED ✗   4.0 s",
                "  report: reports/index.html",
            ],
        ),
        (
            60,
            [
                "Lint with ruff .......................... PASSED ✓   1.0 s",
                "Run pytest with coverage .... FAILED ✗ (exit code 1)   0.0 s",
                "Push: SKIPPED (because that one has failed)",
                "",
                "Run pytest with coverage: FAILED (exit code 1)",
                "",
                "PIPELINE STOPPED ✗   4.0 s   report: reports/index.html",
            ],
        ),
    ],
)
def test_lines_are_broken_between_what_belongs_together(width: int, expected: list[str]) -> None:
    """Title and result, verdict and report each keep together at any width."""
    watched = Watched(columns=width)
    test = Stage(name="test", title="Run pytest with coverage")
    plan = started(TWO.stages[0], test, Stage(name="push", title="Push"))
    failed = Outcome(result=Result.FAILURE, reason="exit code 1")
    skipped = Outcome(result=Result.SKIP, reason="because that one has failed")
    ends = (
        StageFinished(stage="test", outcome=failed),
        StageFinished(stage="push", outcome=skipped),
    )
    with watched.report:
        watched.shows(plan, RUN[3], *ends, finished(Result.FAILURE))
    assert watched.seen()[: len(expected)] == expected


@pytest.mark.parametrize(("width", "lines"), [(54, 2), (55, 1)])
def test_line_that_just_fits_is_not_broken(width: int, lines: int) -> None:
    """Dots go first, down to none."""
    watched = Watched(columns=width)
    failed = Outcome(result=Result.FAILURE, reason="exit code 1")
    plan = started(Stage(name="test", title="Run pytest with coverage"))
    watched.shows(plan, StageFinished(stage="test", outcome=failed))
    assert len(watched.seen()) == lines


def test_live_view_without_unicode_measures_what_is_shown() -> None:
    """A character that becomes an escape takes the escape's cells."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    terminal = Terminal(stream, colored=False, live=True, environ={})
    assert terminal.glimpse("größer", 20) == "gr\\xf6\\xdfer"
    assert terminal.glimpse("größer", 9) == "gr\\xf6..."


class Silence:
    """A log, and a clock that jumps."""

    def __init__(self, verbosity: int = 0) -> None:
        self.now_s = 0.0
        self.stream = Stream()
        self.report = ConsoleReport(
            self.stream, environ={}, verbosity=verbosity, clock=lambda: self.now_s
        )

    def at(self, now_s: float, *events: Event) -> list[str]:
        self.now_s = now_s
        for event in events:
            self.report(dataclasses.replace(event, at_s=now_s))
        self.report.tick()
        return self.stream.getvalue().splitlines()


def test_log_says_every_half_minute_that_a_stage_still_runs() -> None:
    """With its last line, until it has ended."""
    log = Silence()
    log.at(0, TWO, StageStarted(stage="lint"), OutputWritten(stage="lint", text="a\n\x1b[1mb\n"))
    log.at(29)
    assert log.at(31)[1:] == ["Lint with ruff: still running, 31 s  b"]
    assert len(log.at(59)) == 2
    assert log.at(62)[2:] == ["Lint with ruff: still running, 62 s  b"]
    assert len(log.at(63, RUN[3])) == 4
    assert len(log.at(100)) == 4


def test_verbose_log_has_every_line_with_its_stage_and_speaks_only_when_that_is_silent() -> None:
    """`-v`: output is a sign of life."""
    log = Silence(verbosity=1)
    log.at(0, TWO, StageStarted(stage="lint"))
    of_service = OutputWritten(service="db", text="checkpoint\n")
    assert log.at(20, RUN[2], of_service)[1:] == ["lint | one", "lint | two"]
    assert len(log.at(40)) == 3
    assert log.at(51)[3:] == ["Lint with ruff: still running, 51 s  two"]


def test_quiet_has_failures_and_the_verdict_only() -> None:
    """`-q`: nothing about what passed; a warning is no small talk."""
    assert shown(RUN, verbosity=-1).splitlines() == [
        "WARNING: look here",
        "",
        "Test: FAILED (exit code 1)",
        "  | $ pytest",
        "  | boom",
        "",
        "PIPELINE STOPPED ✗   4.0 s   report: reports/index.html",
        "reproduce: python ci/main.py --only test",
    ]
    log = Silence(verbosity=-1)
    assert log.at(99, TWO, StageStarted(stage="lint")) == log.at(200) == []


def test_output_of_what_passed_is_not_repeated() -> None:
    """Outcomes keep it for the report."""
    passed = StageFinished(stage="lint", outcome=dataclasses.replace(PASSED, output="quiet"))
    assert "quiet" not in shown([TWO, passed, finished()])


def test_problems_that_fail_come_before_those_that_do_not() -> None:
    """The first lines are those to mend."""
    findings = (Finding(message="w", is_error=False), Finding(message="e", file="a.py", line=3))
    failed = Outcome(result=Result.FAILURE, findings=findings)
    lines = shown([TWO, StageFinished(stage="lint", outcome=failed), finished(Result.FAILURE)])
    assert lines.index("  a.py:3: e\n") < lines.index("  w\n")


def test_long_lines_are_whole_where_the_failure_is_told() -> None:
    """A megabyte is soft-wrapped by the terminal, not cut by us."""
    failed = Outcome(result=Result.FAILURE, output="x" * 1_000_000)
    events = [TWO, StageFinished(stage="lint", outcome=failed), finished(Result.FAILURE)]
    assert f"  | {'x' * 1_000_000}\n" in shown(events)


def test_events_of_unknown_stages_are_left_out() -> None:
    """A record that lacks its beginning still shows its end."""
    lines = shown(RUN[1:]).splitlines()
    assert lines[0] == "WARNING: look here"
    assert lines[-1].startswith("PIPELINE STOPPED")


def test_json_lines_are_the_events() -> None:
    """Each is read back as it was, whatever the stream's encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    events: list[Event] = [*RUN, Warned(message="größer \udcff\u2028\x1b")]
    report = JsonLines(stream)
    for event in events:
        report(event)
    lines = raw.getvalue().decode("ascii").splitlines()
    assert [from_dict(json.loads(line)) for line in lines] == events


@pytest.mark.parametrize("listen", [JsonLines, ConsoleReport])
def test_nobody_reads_any_more(
    listen: Callable[[io.TextIOWrapper], Callable[[Event], None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`| head -1` ends the output, and nothing else."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        report = listen(stream)
        os.close(reading)
        for event in RUN:
            report(event)
    assert caplog.text == ""


def test_terminal_that_is_gone_ends_the_output_in_words(caplog: pytest.LogCaptureFixture) -> None:
    """Its window was closed: said once, and no listener fails."""
    ours, theirs = os.openpty()
    environ = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with (
        os.fdopen(theirs, "w") as stream,
        ConsoleReport(stream, environ=environ, live=True) as report,
    ):
        report(TWO)
        report.tick()
        os.close(ours)
        for event in RUN[1:]:
            report(event)
            report.tick()
    assert [record.args for record in caplog.records] == [("Input/output error",)]


SCRIPT = """
import sys, time
from penstock.reports.console import ConsoleReport
from test_console import TWO, StageStarted, Warned
with ConsoleReport() as console:
    for event in (TWO, StageStarted(stage="lint"), Warned(message="w")):
        console(event)
    print("ready", file=sys.stderr)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_process_leaves_a_terminal_to_work_on(number: signal.Signals) -> None:
    """The cursor was never hidden, lines wrap, and the prompt has a line of its own."""
    ours, theirs = os.openpty()
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (here.parents[1] / "ci", here)))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={
            "TERM": "xterm",
            "COLUMNS": "80",
            "LINES": "24",
            "PYTHONPATH": path,
            "LC_ALL": "C.UTF-8",
        },
    )
    os.close(theirs)
    said = b""
    while b"1 running" not in said:
        said += os.read(ours, 65536)
    process.send_signal(number)
    process.wait(timeout=10)
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:
        pass  # the other end is closed
    text = said.decode()
    screen = Screen()
    screen.feed(text)
    assert "\x1b[?25" not in text
    assert text.rfind("\x1b[?7h") > text.rfind("\x1b[?7l")
    assert screen.rows[screen.at] == ""
    assert screen.lines[:2] == ["ready", "WARNING: w"] or screen.lines[:2] == [
        "WARNING: w",
        "ready",
    ]


def test_what_is_begun_early_has_a_quiet_line() -> None:
    """And one when it is thrown away; on a terminal its row says so while it waits."""
    build = Stage(name="build", title="Build the image", needs=("test",))
    begun = [started(Stage(name="test"), build), EarlyBegun(stage="build")]
    dropped = EarlyDropped(stage="build", reason="test failed")
    lines = shown([*begun, dropped]).splitlines()
    assert lines[-2:] == [
        "Build the image: begun early (--speculate)",
        "Build the image: begun early, thrown away: test failed",
    ]
    assert "begun early, waits for test" in drawn(begun)
    assert "begun early" not in drawn([*begun, dropped])
    assert shown([*begun, dropped], verbosity=-1) == ""


def test_what_was_taken_over_and_what_was_prepared_is_said() -> None:
    """Where it comes from stands below the word, as do other notes."""
    origin = Origin(run_id="f" * 32, commit="c", passed_at="2026-11-26", duration_s=1.0)
    outcome = replace(PASSED, cached=True, origin=origin, notes=(str(origin),))
    base = BasePrepared(base="base-1", is_pulled=True, duration_s=2.0)
    made = replace(base, is_pulled=False)
    stage = Stage(name="lint", title="Lint")
    lines = shown([started(stage), base, made, StageFinished(stage="lint", outcome=outcome)])
    assert "base-1: pulled from the cache" in lines
    assert "base-1: made, for the cache to keep" in lines
    assert "PASSED (reused)" in lines
    assert f"  {origin}\n" in lines
