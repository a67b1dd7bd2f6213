"""`index.html`: the run as one page that needs nothing else, no network and no script.

What a run says is untrusted. Its strings reach the page by the template alone, where `Words` and
the escaping take each of them, or as an `Excerpt`; its size is bounded whatever a run prints.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import heapq
import logging
import math
import shlex
import statistics
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from penstock.events import Event, PastRun, RunFinished
from penstock.evidence import TestResult
from penstock.folder import cache_home, make_private, write_whole
from penstock.graph import Graph
from penstock.model import Result
from penstock.reports.drawing import BOX_HEIGHT, BOX_WIDTH, MARGIN, curve, places_of
from penstock.reports.markup import MOST_CHARACTERS, Excerpt, Words, excerpt
from penstock.reports.reading import counted
from penstock.reports.record import LOG_FOLDER, PAGE
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jinja2 import Environment, FileSystemBytecodeCache
    from jinja2.bccache import Bucket
    from markupsafe import Markup

    from penstock.events import CoverageRead
    from penstock.evidence import FileCoverage, TestCase
    from penstock.model import Artifact, Outcome
    from penstock.reports.view import ServiceView, StageView

logger = logging.getLogger(__name__)
T = TypeVar("T")

HERE = Path(__file__).parent
MOST_TEXT = 64_000  # bytes of the page, for one output
# Bytes of the page that all outputs of a kind share, so that 200 stages make no 100 MB.
FAILED_BYTES, OTHER_BYTES, SERVICE_BYTES, DETAIL_BYTES = 2_500_000, 1_500_000, 500_000, 1_000_000
WORDS_BYTES = 1_500_000  # for everything else that is not the page's own
LAST_BYTES = 16_000  # of the output at the top
FINDINGS, LOGS, TESTS, KEPT = 50, 5, 200, 500  # rows of a table
FILES, FEW_FILES = 1_000, 10  # of all stages with coverage together, and of each at least
SLOWEST, MOST_RUNS = 10, 40


class PageReport:
    """Writes the page when a run ends.

    Args:
        folder: The reports folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PAGE
        self._view = RunView()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._view(event)
        if isinstance(event, RunFinished):
            try:
                write_whole(self._path, page(self._view))
            except OSError as error:
                logger.warning("WARNING: cannot write %s (%s)", self._path, error.strerror)


def page(view: RunView) -> str:
    """Return a run as HTML, also one whose end nobody has seen."""
    return _environment(Words(WORDS_BYTES)).get_template("page.html").render(run=_Run(view))


@dataclass(frozen=True)
class Badge:
    """A result as word, mark and kind: never as a colour alone.

    Args:
        word: In words, as on the terminal.
        mark: One character.
        kind: `good`, `warn`, `bad` or `none`.
    """

    word: str
    mark: str
    kind: str


UNKNOWN, NOT_STARTED = Badge("NOT ENDED", "?", "none"), Badge("NOT STARTED", "?", "none")
_MARKS = {Result.SUCCESS: ("✓", "good"), Result.CANCELLATION: ("■", "none")}
_MARKS |= {Result.SKIP: ("–", "none")}  # noqa: RUF001 - a dash is the usual mark
_MARKS |= dict.fromkeys((Result.FAILURE, Result.ERROR, Result.TIMEOUT), ("✗", "bad"))


def badge(result: Result, label: str = "", *, allowed: bool = False) -> Badge:
    """Return how a result is shown."""
    if allowed:
        return Badge(f"WARNING ({result.label}, which is allowed)", "!", "warn")
    return Badge(label or result.label, *_MARKS[result])


def stage_badge(view: StageView) -> Badge:
    """Return how the result of a stage is shown, or that it has none."""
    if view.outcome:
        outcome = view.outcome
        return badge(outcome.result, outcome.label, allowed=outcome.allowed)
    return UNKNOWN if view.is_running else NOT_STARTED


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A line of the timeline.

    Args:
        name: Of the stage or service.
        target: Id of what says more.
        badge: How it ended.
        start_s: Since the run began.
        end_s: The same.
        split_s: Where what comes before ends: earlier attempts, a service's start.
        is_critical: Whether it decided how long the run took.
        is_service: What it is.
    """

    name: str
    target: str
    badge: Badge
    start_s: float
    end_s: float
    split_s: float
    is_critical: bool = False
    is_service: bool = False


class Rows(Generic[T]):
    """The first of many things.

    Args:
        found: All of them.
        most: How many are shown.
    """

    def __init__(self, found: Sequence[T], most: int) -> None:
        self.shown = found[:most]
        self.total = len(found)
        self.more = self.total - len(self.shown)


class _Run:
    """What the template asks for, each thing in the order of the page."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self.started, self.finished = view.started, view.finished
        self.stages, self.services = list(view.stages.values()), list(view.services.values())
        self.failed, self.critical = view.failed, view.critical_path
        self.ids = {name: f"stage-{number}" for number, name in enumerate(view.stages)}
        self.most_findings = FINDINGS
        self.total_s = max(view.now_s, self.finished.duration_s if self.finished else 0, 0.001)

    @property
    def badge(self) -> Badge:
        """The verdict."""
        if not self.finished:
            return UNKNOWN
        if self.finished.result is Result.SUCCESS and self.finished.warnings:
            return Badge("PASSED WITH WARNINGS", "!", "warn")
        return badge(self.finished.result)

    @property
    def counts(self) -> str:
        """How many stages ended how, in words."""
        words = [stage_badge(view).word.partition(" (")[0].lower() for view in self.stages]
        return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))

    def reproduce(self, view: StageView) -> str:
        """The command that runs one stage alone."""
        program = self.started.reproduce if self.started else "python ci/main.py"
        return f"{program} --only {shlex.quote(view.stage.name)}"

    @property
    def nodes(self) -> list[tuple[StageView, int, int]]:
        """The stages with their places in the picture."""
        return [(self.view.stages[name], *place) for name, place in self._places.items()]

    @property
    def edges(self) -> Iterator[tuple[Markup, bool]]:
        """The curves between them, and whether they belong to the critical path."""
        from markupsafe import escape

        decisive = set(zip(self.critical, self.critical[1:], strict=False))
        for name, place in self._places.items():
            for need in self._graph.needs[name]:
                path = escape(curve(self._places[need], place))
                yield path, (need, name) in decisive

    @property
    def picture(self) -> tuple[int, int]:
        """Width and height of the picture."""
        places = self._places.values()
        width = max((x for x, _ in places), default=0) + BOX_WIDTH + MARGIN
        return width, max((y for _, y in places), default=0) + BOX_HEIGHT + MARGIN

    @functools.cached_property
    def _graph(self) -> Graph:
        known = self.view.stages
        needs = {n: [need for need in v.stage.needs if need in known] for n, v in known.items()}
        graph = Graph(needs)
        # A record may have been made by anyone.
        return Graph(dict.fromkeys(known, ())) if graph.cycle() else graph

    @functools.cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        return places_of(self._graph)

    @property
    def bars(self) -> list[Bar]:
        """The timeline: what ran, from the first start to the last."""
        bars = [*map(self._stage_bar, self.stages), *map(self._service_bar, self.services)]
        return sorted((bar for bar in bars if bar), key=lambda bar: (bar.start_s, bar.end_s))

    def _stage_bar(self, view: StageView) -> Bar | None:
        if (start := view.started_s) is None:
            return None
        end = self.total_s if view.ended_s is None else view.ended_s
        last_s = view.outcome.duration_s if view.outcome and view.attempts else end - start
        return Bar(
            name=view.stage.name,
            target=self.ids[view.stage.name],
            badge=stage_badge(view),
            start_s=start,
            end_s=end,
            split_s=max(start, end - last_s),
            is_critical=view.stage.name in self.critical,
        )

    def _service_bar(self, view: ServiceView) -> Bar | None:
        if (healthy := view.started_at_s) is None:
            return None
        return Bar(
            name=view.name,
            target="services",
            badge=service_badge(view),
            start_s=max(0.0, healthy - (view.ready_s or 0.0)),
            end_s=self.total_s if view.stopped_at_s is None else view.stopped_at_s,
            split_s=healthy,
            is_service=True,
        )

    def said(self, view: StageView) -> Excerpt:
        """The end of what a stage printed, as far as its share of the page goes."""
        outcome = view.outcome.output if view.outcome else ""
        text, left_out = str(view.output), view.output.dropped
        if len(outcome) >= len(text):  # it has the command too
            text, left_out = outcome, 0
        failed = {found.stage.name for found in self.failed}
        share = OTHER_BYTES // len(self.stages)
        if view.stage.name in failed:
            share = FAILED_BYTES // len(failed)
        return excerpt(text, min(share, MOST_TEXT), left_out=left_out)

    def last_words(self, outcome: Outcome) -> Excerpt:
        """The last lines of what failed, for the top of the page."""
        return excerpt(outcome.output, LAST_BYTES)

    def logs(self, view: StageView) -> list[Artifact]:
        """Where all that a stage printed can be read."""
        kept = view.outcome.artifacts if view.outcome else ()
        return [a for a in kept if a.path.startswith(f"{LOG_FOLDER}/") and link(a.path)][:LOGS]

    def service_said(self, view: ServiceView) -> Excerpt:
        """The same of a service."""
        most = min(SERVICE_BYTES // len(self.services), MOST_TEXT)
        return excerpt(str(view.output), most, left_out=view.output.dropped)

    def detail(self, case: TestCase) -> Excerpt:
        """Why a test failed."""
        return excerpt(case.detail, DETAIL_BYTES // TESTS)

    @functools.cached_property
    def tested(self) -> list[StageView]:
        """The stages that have tests."""
        return [view for view in self.stages if view.tests or view.failed_before]

    @functools.cached_property
    def failed_tests(self) -> Rows[tuple[StageView, TestCase]]:
        """The tests that failed."""
        return Rows([(v, case) for v in self.tested for case in v.failed_tests], TESTS)

    @functools.cached_property
    def flaky_tests(self) -> Rows[tuple[StageView, TestCase]]:
        """Those that failed in an earlier attempt only."""
        return Rows([(v, case) for v in self.tested for case in v.flaky_tests], TESTS)

    @property
    def slowest_tests(self) -> list[tuple[StageView, TestCase]]:
        """The ten that took longest."""
        timed = [(v, case) for v in self.tested for case in v.tests if case.duration_s]
        return heapq.nlargest(SLOWEST, timed, key=lambda test: test[1].duration_s)

    @functools.cached_property
    def skipped_tests(self) -> Rows[tuple[StageView, TestCase]]:
        """The tests that were skipped."""
        tests = [(v, case) for v in self.tested for case in v.tests]
        return Rows([test for test in tests if test[1].result is TestResult.SKIPPED], TESTS)

    @functools.cached_property
    def covered(self) -> list[StageView]:
        """The stages that measured coverage."""
        return [view for view in self.stages if view.coverage]

    def files(self, view: StageView) -> Rows[FileCoverage]:
        """The files of a coverage report, those with most to do first."""
        files = sorted(view.files, key=lambda found: (found.percent, found.file))
        return Rows(files, max(FILES // len(self.covered), FEW_FILES))

    def coverage_badge(self, coverage: CoverageRead) -> Badge:
        """Return how coverage is shown beside what was asked for; 79.99% is no passed 80%."""
        percent, least = f"{math.floor(coverage.percent)}%", coverage.threshold
        if least is None:
            return Badge(percent, "", "none")
        if coverage.percent < least:
            return Badge(f"{percent} < {least:g}% threshold", "✗", "bad")
        return Badge(f"{percent} >= {least:g}% threshold", "✓", "good")

    @property
    def kept_bytes(self) -> int:
        """The size of all that was left there."""
        return sum(a.size_bytes for v in self.stages if v.outcome for a in v.outcome.artifacts)

    @functools.cached_property
    def kept(self) -> Rows[tuple[StageView, Artifact]]:
        """What was left in the reports folder."""
        return Rows([(v, a) for v in self.stages if v.outcome for a in v.outcome.artifacts], KEPT)

    @property
    def runs(self) -> list[PastRun]:
        """The last runs, this one behind them."""
        if not (self.started and self.finished):
            return []
        this = PastRun(
            started_at=self.started.started_at,
            result=self.finished.result,
            duration_s=self.finished.duration_s,
            commit=self.started.commit,
        )
        return [*self.started.history[-MOST_RUNS:], this]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What the run ran with."""
        if not (started := self.started):
            return []
        facts = [
            ("Run", started.run_id),
            ("Started", started.started_at),
            ("Commit", started.commit),
            ("Branch", started.branch),
            ("Engine", self.view.engine),
            ("Stages at a time", str(started.jobs or "")),
            ("After a failure", "keep going" if started.keep_going else "stop what depends on it"),
            *started.environment,
        ]
        return [(name, value) for name, value in facts if value]


def service_badge(view: ServiceView) -> Badge:
    """Return how a service is shown: by name it has no result."""
    if view.reason:
        return Badge("FAILED", "✗", "bad")
    return NOT_STARTED if view.started_at_s is None else Badge("HEALTHY", "✓", "good")


def took(seconds: float) -> str:
    """Return a duration for people: `0.3 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 59.95:  # noqa: PLR2004 - what rounds to a minute is one
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def link(path: str) -> Markup | None:
    """Return the address of an artifact, relative to the page, if it can have one."""
    from markupsafe import escape

    try:
        # In front of it, as `//host` and `javascript:` would be addresses of another kind.
        address = f"./{urllib.parse.quote(path, errors='surrogateescape')}"
    except UnicodeEncodeError:
        return None
    return escape(address) if len(address) <= MOST_CHARACTERS else None


def _digest(name: str) -> str:
    """Return the hash by which the policy of the page lets in a style or script, and no other."""
    text = (HERE / name).read_text(encoding="utf-8").removesuffix("\n")
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _compiled() -> FileSystemBytecodeCache | None:
    """Return where compiled templates are kept, if they can be: compiling them takes 0.1 s."""
    import jinja2

    class Kept(jinja2.FileSystemBytecodeCache):
        def dump_bytecode(self, bucket: Bucket) -> None:
            with suppress(OSError):  # the page matters, not what it is faster with
                super().dump_bytecode(bucket)

    folder = cache_home() / "penstock" / f"templates-{jinja2.__version__}"
    try:
        make_private(folder)
    except OSError:
        return None
    return Kept(str(folder))


def _environment(words: Words) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        bytecode_cache=_compiled(),
        autoescape=True,
        finalize=words,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tools = (badge, counted, link, service_badge, stage_badge, took)
    environment.globals |= {tool.__name__: tool for tool in tools}
    environment.globals |= {"digest": _digest, "floor": math.floor, "median": statistics.median}
    return environment
