from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.events import (
    ActivityChanged,
    CoverageRead,
    EngineConnected,
    Event,
    OutputWritten,
    PastRun,
    RunFinished,
    RunStarted,
    ServiceFailed,
    ServicePrepared,
    ServiceStarted,
    ServiceStopped,
    StageFinished,
    StageRetried,
    StageStarted,
    TestsRead,
    Warned,
)
from penstock.evidence import FileCoverage, Finding, TestCase, TestResult
from penstock.model import Artifact, Attempt, Outcome, Result, Skip, Stage
from penstock.reports.literal import literal
from penstock.reports.page import PageReport, page, took
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BENCH = Path(__file__).parents[2] / "bench" / "page.py"
APART = {"td", "th", "dt", "dd", "pre"}
HOSTILE = (
    "<script>alert(1)</script>",
    "</pre></style></script><img src=x onerror=alert(1)>",
    "]]>-->{{ 7 * 7 }}{% raw %}",
    "' onload='alert(1)\" style=\"x",
    "javascript:alert(1)",
    "\x1b[31mred\x1b[0m\x00\x07",
    "::error::no command",
    "a\u202egnp.exe\u2066",
    "\udcff\ud800",
    "x" * 1_000_000,
)


class Seen(HTMLParser):
    """What a browser makes of a page: its elements, and its text by the headings of sections."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {"": ""}
        self._section = self._tag = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._tag = tag
        if tag in APART:
            self.sections[self._section] += " "
        if tag == "h2":
            self._section = dict(attrs)["id"] or ""
            self.sections[self._section] = ""

    def handle_data(self, data: str) -> None:
        if self._tag not in {"script", "style"}:
            self.sections[self._section] += data

    def __getitem__(self, section: str) -> str:
        return " ".join(self.sections[section].split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]


def folded(events: Iterable[Event]) -> str:
    view = RunView()
    for event in events:
        view(event)
    return page(view)


def seen(*events: Event) -> Seen:
    return Seen(folded(events))


def start(*stages: Stage, history: tuple[PastRun, ...] = ()) -> RunStarted:
    return RunStarted(
        pipeline="service",
        run_id="r1",
        commit="843171a",
        branch="main",
        started_at="2026-11-24T21:37:51+00:00",
        stages=stages,
        reproduce="python ci/main.py",
        environment=(("Python", "3.11.7"),),
        history=history,
    )


def ended(name: str, result: Result, at_s: float = 1.0, **facts: object) -> StageFinished:
    outcome = Outcome(result=result, **facts)  # type: ignore[arg-type]  # the test's own facts
    return StageFinished(at_s=at_s, stage=name, outcome=outcome)


def end(result: Result = Result.SUCCESS, **facts: object) -> RunFinished:
    return RunFinished(
        **{"reason": "", "exit_code": 0, "duration_s": 4.0} | facts,  # type: ignore[arg-type]
        result=result,
    )


LINT, TEST = Stage(name="lint", title="Lint with ruff"), Stage(name="test", needs=("lint",))


def everything(text: str) -> Iterator[Event]:
    """Yield a run that has all there can be, with a text wherever one can be."""
    case = TestCase(name=text, suite=text, result=TestResult.FAILED, file=text, line=3)
    skipped = TestCase(name=f"a{text}", result=TestResult.SKIPPED, message=text, duration_s=1.0)
    attempt = Attempt(result=Result.ERROR, reason=text)
    stages = (
        Stage(name="a", title=text, place=text),
        Stage(name=f"b {text}", title=text, needs=("a",), skip=Skip(reason=text)),
    )
    past = PastRun(started_at=text, result=Result.FAILURE, duration_s=3.0, commit=text)
    yield RunStarted(
        pipeline=text,
        run_id=text,
        commit=text,
        started_at=text,
        stages=stages,
        reproduce=text,
        branch=text,
        environment=((text, text),),
        history=(past,),
    )
    yield EngineConnected(version=text, duration_s=1.0)
    yield Warned(message=text)
    yield ServicePrepared(service=text, what=text, duration_s=1.0)
    yield ServiceStarted(service=text, duration_s=1.0)
    yield ServiceFailed(service=text, what=text, reason=text)
    yield StageStarted(stage="a")
    yield ActivityChanged(stage="a", what=text)
    yield TestsRead(stage="a", cases=(case,))
    yield StageRetried(stage="a", attempt=attempt, delay_s=1.0)
    yield OutputWritten(stage="a", text=text)
    yield OutputWritten(service=text, text=text)
    passed = TestCase(name=text, suite=text, duration_s=1.0)
    failed = TestCase(name="f", result=TestResult.ERROR, message=text, detail=text)
    yield TestsRead(stage="a", cases=(passed, failed, skipped))
    files = (FileCoverage(file=text, percent=50.0, missing=text),)
    yield CoverageRead(stage="a", percent=50.0, threshold=80, files=files)
    finding = Finding(message=text, file=text, line=1, tool=text, code=text)
    yield ended(
        "a",
        Result.FAILURE,
        reason=text,
        notes=(text,),
        why=(text, text),
        findings=(finding,),
        output=text,
        artifacts=(Artifact("logs/a.txt", 1, text),),
        attempts=(attempt,),
    )
    yield ended(f"b {text}", Result.SKIP, reason=text)
    yield end(Result.FAILURE, reason=text, root="a", exit_code=1)


PLAIN = "plain words"


@pytest.mark.fault(49)
@settings(deadline=None, max_examples=20)  # each compiles the template
@given(st.text(min_size=1, max_size=200))
@example("\n")
@example(HOSTILE[1])
def test_no_text_becomes_markup(text: str) -> None:
    """Whatever is printed, the page has the same elements with the same attributes."""
    assert Seen(folded(everything(text))).shape == Seen(folded(everything(PLAIN))).shape


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_hostile_text_is_shown_literally(text: str) -> None:
    """In each section it can be read as it was written."""
    found = Seen(folded(everything(text)))
    sections = found.sections.keys() - {"artifacts"}  # where only a hash could be one
    assert len(sections) == 11
    assert {name for name in sections if literal(text) not in found.sections[name]} <= {"graph"}
    assert re.sub(r"\n", "", literal(text))[:25] in found.sections["graph"]


def test_page_asks_for_nothing() -> None:
    """Its policy lets in its own style and script by their hashes; links stay beside it."""
    text = folded(everything(PLAIN))
    found = Seen(text)
    policy = next(a["content"] for a in found.all("meta") if "http-equiv" in a)
    for tag in ("style", "script"):
        ((content),) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert not {"src", "style", "action", "srcset"} & {n for _, a in found.elements for n in a}
    assert all(a["href"].startswith(("#", "./")) for a in found.all("a"))
    assert not {"link", "img", "iframe", "object", "form"} & {tag for tag, _ in found.elements}


def test_every_link_within_the_page_has_a_target() -> None:
    """Also those of stages whose names are no words."""
    found = Seen(folded(everything("<&> \u202e")))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    targets = {a["href"][1:] for a in found.all("a") if a["href"].startswith("#")}
    assert targets <= set(ids)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("logs/test[a=1].txt", "./logs/test%5Ba%3D1%5D.txt"),
        ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
        ("//host/x", ".///host/x"),
        ("gr\udcf6sse", "./gr%F6sse"),
        ("\ud800", None),
    ],
)
def test_artifact_is_a_link_to_a_file_beside_the_page(path: str, address: str | None) -> None:
    """Whatever its name; one that no address can spell is only named."""
    kept = (Artifact(path, 2_048, "ab" * 32),)
    found = seen(start(LINT), ended("lint", Result.SUCCESS, artifacts=kept), end())
    assert [a["href"] for a in found.all("a") if a["href"][0] == "."][-1:] == [address][
        : address is not None
    ]
    assert found["artifacts"].endswith(f"{literal(path)} lint 2.0 kB {'ab' * 32}")


def test_green_run_has_a_verdict_and_nothing_to_do() -> None:
    """What is not there has no heading."""
    found = seen(start(LINT), StageStarted(stage="lint"), ended("lint", Result.SUCCESS), end())
    assert "service ✓ PASSED All stages passed. 4.0 s; 1 stage: 1 passed." in found[""]
    assert set(found.sections) == {"", "graph", "timeline", "stages", "environment"}


def test_red_run_begins_with_what_to_do() -> None:
    """The stage at fault, its problems by place, its last lines and how to run it again."""
    stages = (LINT, Stage(name="te st", title="Run pytest", needs=("lint",)))
    findings = tuple(Finding(file="a.py", line=n, message="bad") for n in range(1, 13))
    found = seen(
        start(*stages),
        ended("lint", Result.FAILURE, allowed=True, reason="exit code 1"),
        ended(
            "te st",
            Result.FAILURE,
            reason="75% < 80% threshold",
            findings=findings,
            output="boom\n",
        ),
        end(
            Result.FAILURE,
            reason="75% < 80% threshold",
            root="te st",
            exit_code=1,
            warnings=("lint",),
        ),
    )
    assert (
        "✗ FAILED PIPELINE STOPPED: te st (75% < 80% threshold). 4.0 s; 2 stages: 1 warning, 1 failed. Exit code 1."
        in found[""]
    )
    first, _, second = found["next"].partition("Lint with ruff")
    assert first.startswith("What to do next Run pytest ✗ FAILED 75% < 80% threshold a.py:1: bad")
    assert (
        "a.py:10: bad and 2 more: te st boom Reproduce: python ci/main.py --only 'te st'" in first
    )
    assert second.startswith(" ! WARNING (FAILED, which is allowed) exit code 1 Reproduce:")


def test_allowed_failure_is_no_plain_pass() -> None:
    """The verdict says that there are warnings."""
    failed = ended("lint", Result.FAILURE, allowed=True)
    assert "! PASSED WITH WARNINGS" in seen(start(LINT), failed, end(warnings=("lint",)))[""]


def test_timeline_marks_and_names_the_critical_path() -> None:
    """It leads through stages that were skipped to what they had waited for; services stand beside it."""
    stages = (
        LINT,
        Stage(name="types"),
        Stage(name="build", needs=("lint", "types")),
        Stage(name="clean", needs=("build",), always=True),
    )
    found = seen(
        start(*stages),
        StageStarted(stage="lint", at_s=1.0),
        StageStarted(stage="types", at_s=1.0),
        ended("lint", Result.SUCCESS, 2.0),
        ServiceStarted(service="db", duration_s=0.5, at_s=2.5),
        ended("types", Result.FAILURE, 3.0),
        ended("build", Result.SKIP, 3.0, reason="because types failed"),
        StageStarted(stage="clean", at_s=3.0),
        ended("clean", Result.SUCCESS, 3.5),
        ServiceStopped(service="db", at_s=3.6),
        end(Result.FAILURE),
    )
    assert "how long the run took: types → clean ." in found["timeline"].replace(
        "clean.", "clean ."
    )
    lines = found["timeline"].partition("4.0 s ")[2]
    assert lines == (
        "lint ✓ PASSED 1.0 s 1.0 s ◆ types ✗ FAILED 1.0 s 2.0 s "
        "db service ✓ HEALTHY 2.0 s 1.6 s ◆ clean ✓ PASSED 3.0 s 0.5 s"
    )


def test_bars_stand_where_the_time_was() -> None:
    """A thin one for the attempts before the last, a full one for what is on the critical path."""
    attempt = Attempt(result=Result.ERROR, reason="lost", duration_s=1.0)
    found = seen(
        start(LINT),
        StageStarted(stage="lint", at_s=1.0),
        StageRetried(stage="lint", attempt=attempt, delay_s=0.0, at_s=2.0),
        ended("lint", Result.SUCCESS, 3.0, duration_s=0.5, attempts=(attempt,)),
        end(),
    )
    before, last = found.all("rect")[-2:]
    assert (before["x"], before["width"]) == ("250.0", "375.0")
    assert (last["x"], last["width"], last["height"]) == ("625.0", "125.0", "16")


def test_graph_shows_each_stage_by_word_and_shape() -> None:
    """Failure has square corners and a skip another kind of line, beside their words."""
    found = seen(
        start(LINT, TEST),
        ended("lint", Result.FAILURE),
        ended("test", Result.SKIP, reason="because lint failed"),
        end(Result.FAILURE),
    )
    assert "✗ FAILED" in found["graph"]
    assert "– SKIPPED" in found["graph"]  # noqa: RUF001 - the page's own mark
    nodes = [a["class"] for a in found.all("a") if "node" in a.get("class", "")]
    assert [name.strip() for name in nodes] == ["node bad", "node none"]
    assert [a["rx"] for a in found.all("rect") if "rx" in a] == ["0", "6"]
    assert len(found.all("path")) == 1


def test_stage_tells_how_it_came_to_its_result() -> None:
    """Cached or executed, its attempts, notes and where to read all of its output."""
    attempt = Attempt(
        result=Result.ERROR, reason="registry silent", fault="registry", duration_s=2.0
    )
    kept = (Artifact("logs/test.txt", 5),)
    found = seen(
        start(LINT, TEST),
        StageStarted(stage="lint", at_s=1.0),
        ended("lint", Result.SUCCESS, cached=True),
        StageStarted(stage="test", at_s=1.0),
        StageRetried(stage="test", attempt=attempt, delay_s=0.1),
        OutputWritten(stage="test", text="all is well\n"),
        ended(
            "test",
            Result.SUCCESS,
            2.0,
            notes=("8 passed",),
            why=("a.py changed",),
            artifacts=kept,
            exit_code=0,
        ),
        end(),
    )
    lint, _, test = found["stages"].partition("test ✓ PASSED")
    assert "✓ PASSED (cached)" in lint
    assert "Ran taken from the engine's cache, from 1.0 s to 1.0 s" in lint
    assert (
        "8 passed Ran executed, from 1.0 s to 2.0 s Why a.py changed Needs lint Exit code 0" in test
    )
    assert "Attempts before the last one: ✗ ERROR registry silent, 2.0 s" in test
    assert test.endswith("all is well Whole output: logs/test.txt")


def test_output_is_cut_from_its_beginning_and_says_so() -> None:
    """The end tells why."""
    line = "<" * 99 + "\n"
    found = seen(start(LINT), OutputWritten(stage="lint", text=line * 1_000 + "the end\n"), end())
    assert re.search(r"\d\d,\d{3} characters before this are left out\. <", found["stages"])
    assert found["stages"].endswith("the end")


def test_services_tell_what_they_lived_through() -> None:
    """What was prepared, from when to when, why one failed and what it printed."""
    found = seen(
        start(LINT),
        ServicePrepared(service="db", what="Create schema", duration_s=0.4),
        ServiceStarted(service="db", duration_s=0.5, at_s=2.0),
        OutputWritten(service="db", text="ready\n"),
        ServiceStopped(service="db", at_s=3.0),
        ServiceFailed(service="cache", what="health check", reason="never healthy"),
        ServicePrepared(service="queue", what="image", duration_s=0.1),
        end(Result.ERROR),
    )
    assert found["services"] == (
        "Services db ✓ HEALTHY 0.5 s Prepared Create schema, 0.4 s Lived from 2.0 s to 3.0 s ready "
        "cache ✗ FAILED health check: never healthy It printed nothing that was kept. "
        "queue ? NOT STARTED Prepared image, 0.1 s It printed nothing that was kept."
    )


def test_tests_are_counted_failed_flaky_slow_and_skipped() -> None:
    """Flaky is what failed in an earlier attempt and passed in the last; ten are the slowest."""
    slow = tuple(TestCase(name=f"t{n:02}", duration_s=n / 10) for n in range(1, 13))
    failed = TestCase(name="bad", suite="s", result=TestResult.FAILED, message="no", detail="E no")
    skipped = TestCase(name="off", result=TestResult.SKIPPED, message="needs a GPU")
    flaky = TestCase(name="t01", result=TestResult.FAILED, message="reset", file="t.py", line=7)
    attempt = Attempt(result=Result.ERROR, reason="lost")
    found = seen(
        start(LINT),
        TestsRead(stage="lint", cases=(flaky, failed)),
        StageRetried(stage="lint", attempt=attempt, delay_s=0.0),
        TestsRead(stage="lint", cases=(*slow, failed, skipped)),
        end(Result.FAILURE),
    )["tests"]
    assert "lint 12 passed, 1 failed, 1 skipped 7.8 s" in found
    assert "Failed: 1 s::bad failed 0.0 s no in lint E no" in found
    assert "then passed Test Stage Had said t01 t.py:7 lint reset Slowest" in found
    assert "Slowest Test Stage Took t12 lint 1.2 s t11 lint 1.1 s" in found
    assert "t03 lint 0.3 s Skipped: 1" in found
    assert found.endswith("off lint needs a GPU")


def test_many_failing_tests_are_counted_where_they_are_not_literal() -> None:
    """Nobody reads a thousand; nobody may think there were two hundred."""
    cases = tuple(TestCase(name=f"t{n}", result=TestResult.FAILED) for n in range(1_000))
    found = seen(start(LINT), TestsRead(stage="lint", cases=cases), end(Result.FAILURE))["tests"]
    assert "Failed: 1000" in found
    assert "and 800 more in the reports that are kept" in found


def test_coverage_lists_the_worst_file_first() -> None:
    """Rounded down, so that 79.99% is no passed 80%, beside the threshold and the missing lines."""
    files = (
        FileCoverage(file="good.py", percent=100.0),
        FileCoverage(file="bad.py", percent=49.99, missing="3-5, 9"),
    )
    read = CoverageRead(stage="lint", percent=79.99, threshold=80, files=files)
    found = seen(start(LINT), read, end(Result.FAILURE))["coverage"]
    assert "lint ✗ 79% < 80% threshold" in found
    assert found.endswith("bad.py 49% 3-5, 9 good.py 100%")


@pytest.mark.parametrize(("threshold", "words"), [(None, "79%"), (79, "✓ 79% >= 79% threshold")])
def test_coverage_that_is_enough_is_no_failure(threshold: float | None, words: str) -> None:
    """Nor is it when nothing was asked for."""
    read = CoverageRead(stage="lint", percent=79.5, threshold=threshold)
    assert f"Coverage lint {words} Files" in seen(start(LINT), read, end())["coverage"]


def test_history_sets_the_run_beside_earlier_ones() -> None:
    """Newest first in figures, with the median of those that passed; a bar for each."""
    history = tuple(
        PastRun(started_at=f"day {n}", result=result, duration_s=duration_s, commit="c")
        for n, (result, duration_s) in enumerate(
            [(Result.SUCCESS, 2.0), (Result.FAILURE, 99.0), (Result.SUCCESS, 3.0)]
        )
    )
    found = seen(start(LINT, history=history), end())
    assert "took 4.0 s; the median of 2 earlier ones that passed is 2.5 s." in found["history"]
    figures = found["history"].partition("Commit ")[2]
    assert figures.startswith(
        "2026-11-24T21:37:51+00:00 ✓ PASSED 4.0 s 843171a day 2 ✓ PASSED 3.0 s"
    )
    heights = [float(a["height"]) for a in found.all("rect")[-4:]]
    assert heights == [1.6, 80.0, 2.4, 3.2]


def test_environment_tells_what_the_run_ran_with() -> None:
    """What is unknown is left out."""
    found = seen(start(LINT), EngineConnected(version="v0.21.8", duration_s=1.0), end())
    assert "Branch main Engine v0.21.8 After a failure" in found["environment"]
    assert found["environment"].endswith("Python 3.11.7")


@pytest.mark.parametrize(
    "events", [[], [start()], [start(LINT)], [start(LINT, TEST), StageStarted(stage="lint")]]
)
def test_run_without_an_end_has_a_page_too(events: list[Event]) -> None:
    """It says that no end was seen, and of which stages."""
    found = seen(*events)
    assert "? NOT ENDED" in found[""]
    assert ("NOT STARTED" in found["stages"]) == (len(events) > 0 and events[-1] != start())


def test_unknown_needs_and_rings_do_not_matter() -> None:
    """A record may have been cut, or made by anyone."""
    stages = (Stage(name="a", needs=("gone", "b")), Stage(name="b", needs=("a",)), LINT)
    begun = [StageStarted(stage=stage.name) for stage in stages]
    found = seen(start(*stages), *begun, ended("a", Result.SUCCESS), end())
    assert "Needs gone, b" in found["stages"]
    assert "Lint with ruff" in found["graph"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3720, "1 h 02 min"),
    ],
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    """Never sixty seconds or minutes."""
    assert took(seconds) == words


def test_page_is_written_at_the_end_and_whole(tmp_path: Path) -> None:
    """Nothing lies there before, and nothing beside it after."""
    report = PageReport(tmp_path)
    for event in everything(HOSTILE[-1]):
        assert not list(tmp_path.iterdir())
        report(event)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text().endswith("</html>")


@pytest.mark.fault(32)
def test_page_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run's result does not depend on its page."""
    (tmp_path / "index.html").mkdir()
    PageReport(tmp_path)(end())
    assert [record.args for record in caplog.records] == [
        (tmp_path / "index.html", "Is a directory")
    ]


@pytest.mark.parametrize("what", ["usual", "worst"])
def test_large_run_has_a_page_that_can_be_opened(what: str) -> None:
    """200 stages, 20,000 tests, 100 MB of output, whatever characters: under 10 MB."""
    spec = importlib.util.spec_from_file_location("bench_page", BENCH)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    text = folded(bench.events(*bench.RUNS[what]))
    assert 1_000_000 < len(text.encode()) < 10_000_000
    assert text.endswith("</html>")


def test_templates_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = folded([start(LINT), end()])

    def never(*_: object, **__: object) -> str:
        raise AssertionError

    monkeypatch.setattr("jinja2.environment.generate", never)
    assert folded([start(LINT), end()]) == before


def test_page_needs_no_place_for_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether their folder cannot be made, or nothing can be written into it."""
    for name, blocked in (("a", "penstock"), ("b", f"penstock/templates-{jinja2.__version__}")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        (tmp_path / name / blocked).parent.mkdir(parents=True)
        (tmp_path / name / blocked).touch()
        assert "</html>" in folded([start(LINT), end()])

    def full(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setattr("jinja2.bccache.tempfile.NamedTemporaryFile", full)
    assert "</html>" in folded([start(LINT), end()])
