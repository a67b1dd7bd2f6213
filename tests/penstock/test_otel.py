from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from penstock.events import Event, RunStarted, StageFinished, TestsRead
from penstock.evidence import TestCase, TestResult
from penstock.model import Outcome, Result
from penstock.reports.literal import literal
from penstock.reports.otel import TelemetryReport, signals
from penstock.reports.otlp import surroundings, web_url
from tests.penstock.collector import Collector, attributes, collecting
from tests.penstock.hostile import run_of, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RUN = run_of("words")
TRACE = 0x0123456789ABCDEF0123456789ABCDEF
SPANS = {name: number for number, name in enumerate(("lint", "test", "push", "note"), start=0xA0)}
BEGAN = 1795569441_000000000 - 100_000_000  # of the events' clock, in nanoseconds


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the CI host's and the person's own settings away, and what the SDK's logger got."""
    for name in os.environ:
        if name.startswith(("OTEL_", "GITHUB_", "TRACE", "CI_", "RUNNER_", "DO_NOT_TRACK")):
            monkeypatch.delenv(name)
    # What is given up goes on in threads for so long; hypothesis bears no other user of `random`.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    sdk = logging.getLogger("opentelemetry")
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    sdk.handlers.clear()
    sdk.propagate = True


def sent(
    monkeypatch: pytest.MonkeyPatch,
    events: list[Event] = RUN,
    collector: Collector | None = None,
    environ: Mapping[str, str] | None = None,
) -> Collector:
    with collecting(collector or Collector()) as served:
        for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": served.url, **(environ or {})}.items():
            monkeypatch.setenv(name, value)
        report = TelemetryReport(trace_id=TRACE, span_ids=lambda name: SPANS.get(name, 0))
        for event in events:
            report(event)
    return served


def told(collector: Collector, name: str) -> dict[str, Any]:
    return attributes(collector.spans[name].attributes)


# ANCHORS 5.3, from the registry of the semantic conventions 1.44.
CONVENTIONS = {
    "cicd.pipeline.action.name",
    "cicd.pipeline.name",
    "cicd.pipeline.result",
    "cicd.pipeline.run.id",
    "cicd.pipeline.run.state",
    "cicd.pipeline.run.url.full",
    "cicd.pipeline.task.name",
    "cicd.pipeline.task.run.id",
    "cicd.pipeline.task.run.result",
    "cicd.pipeline.task.run.url.full",
    "cicd.pipeline.task.type",
    "cicd.worker.name",
    "code.file.path",
    "code.line.number",
    "error.type",
    "process.exit.code",
    "service.instance.id",
    "service.name",
    "service.version",
    "telemetry.sdk.language",
    "telemetry.sdk.name",
    "telemetry.sdk.version",
    "test.case.name",
    "test.case.result.status",
    "test.suite.name",
    "test.suite.run.status",
    "vcs.change.id",
    "vcs.owner.name",
    "vcs.provider.name",
    "vcs.ref.base.name",
    "vcs.ref.base.type",
    "vcs.ref.head.name",
    "vcs.ref.head.revision",
    "vcs.ref.head.type",
    "vcs.repository.name",
    "vcs.repository.url.full",
}
GITHUB = {
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "owner/project",
    "GITHUB_RUN_ID": "77",
    "GITHUB_REF": "refs/pull/5/merge",
    "GITHUB_BASE_REF": "main",
    "RUNNER_NAME": "worker-1",
}


def test_names_are_those_of_the_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attribute is one of theirs or says that it is ours."""
    collector = sent(monkeypatch, environ=GITHUB)
    names = set(collector.resource)
    for span in collector.spans.values():
        names |= {pair.key for pair in span.attributes}
    for metric in ("duration", "active", "errors"):
        for point, _ in collector.points(f"cicd.pipeline.run.{metric}"):
            names |= point.keys()
    assert {name for name in names if not name.startswith("penstock.")} == CONVENTIONS


def test_run_is_a_server_span_over_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kind, name, result, times and ids are what the conventions and the engine's spans need."""
    collector = sent(monkeypatch)
    root = collector.spans["RUN p"]
    assert (root.kind, root.parent_span_id, root.trace_id.hex()) == (2, b"", f"{TRACE:032x}")
    assert told(collector, "RUN p") == {
        "cicd.pipeline.action.name": "RUN",
        "cicd.pipeline.name": "p",
        "cicd.pipeline.run.id": "1",
        "cicd.pipeline.result": "failure",
        "error.type": "failure",
    }
    assert (root.status.code, root.status.message) == (2, "exit code 1")
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (
        BEGAN + 100_000_000,
        BEGAN + 5_200_000_000,
    )
    for name, number in SPANS.items():
        span = collector.spans[name]
        assert (span.kind, span.parent_span_id) == (1, root.span_id)
        assert span.span_id == number.to_bytes(8, "big")
        assert span.trace_id == root.trace_id
    assert len({span.span_id for span in collector.spans.values()}) == len(collector.spans)


def test_stage_tells_result_type_tests_and_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A span for each, also where it never ran; a try that failed is an event at its time."""
    collector = sent(monkeypatch, environ=GITHUB)
    test = told(collector, "test")
    assert test == {
        "cicd.pipeline.task.name": "test",
        "cicd.pipeline.task.run.id": "test",
        "cicd.pipeline.task.run.result": "failure",
        "cicd.pipeline.task.run.url.full": "https://github.com/owner/project/actions/runs/77",
        "cicd.pipeline.task.type": "test",
        "error.type": "failure",
        "process.exit.code": 1,
        "test.suite.name": "test",
        "test.suite.run.status": "failure",
        "penstock.allowed": False,
        "penstock.cached": False,
        "penstock.coverage.percent": 79.5,
        "penstock.tests.failed": 1,
        "penstock.tests.passed": 1,
        "penstock.tests.skipped": 1,
    }
    span = collector.spans["test"]
    assert span.start_time_unix_nano == BEGAN + 2_000_000_000
    (attempt,) = span.events
    assert (attempt.name, attempt.time_unix_nano) == ("penstock.attempt", BEGAN + 2_500_000_000)
    assert attributes(attempt.attributes)["error.type"] == "registry"
    push = collector.spans["push"]
    assert push.start_time_unix_nano == push.end_time_unix_nano
    assert (told(collector, "push")["cicd.pipeline.task.run.result"], push.status.code) == (
        "skip",
        0,
    )
    assert told(collector, "push")["cicd.pipeline.task.type"] == "deploy"


def test_tests_are_spans_below_their_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie within its time; what failed carries its words; what was skipped did not run."""
    collector = sent(monkeypatch)
    stage, failed = collector.spans["test"], collector.spans["test_b[words]"]
    assert failed.parent_span_id == collector.spans["test_a"].parent_span_id == stage.span_id
    assert told(collector, "test_b[words]") == {
        "test.case.name": "test_b[words]",
        "test.suite.name": "tests.test_a",
        "test.case.result.status": "fail",
        "code.file.path": "tests/test_a.py",
        "code.line.number": 9,
    }
    assert told(collector, "test_a")["test.case.result.status"] == "pass"
    assert failed.end_time_unix_nano == stage.end_time_unix_nano
    assert failed.end_time_unix_nano - failed.start_time_unix_nano == 500_000_000
    (event,) = failed.events
    assert attributes(event.attributes)["exception.stacktrace"] == "words"
    assert "test_c" not in collector.spans


def test_spans_of_tests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that failed and the slowest are told, within their stage's time; all are counted."""
    cases = [TestCase(name=f"t{n}", duration_s=float(n)) for n in range(300)]
    cases[0] = replace(cases[0], result=TestResult.FAILED)
    outcome = Outcome(result=Result.FAILURE)
    events = [
        RUN[0],
        TestsRead(stage="test", cases=tuple(cases)),
        StageFinished(stage="test", outcome=outcome, at_s=9.0),
        RUN[-1],
    ]
    collector = sent(monkeypatch, events)
    tests = {name for name in collector.spans if name.startswith("t") and name != "test"}
    assert tests == {"t0", *[f"t{n}" for n in range(201, 300)]}
    assert told(collector, "test")["penstock.tests.passed"] == 299
    stage = collector.spans["test"]
    for name in tests:
        span = collector.spans[name]
        assert stage.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= stage.end_time_unix_nano


def test_tests_of_a_cached_stage_did_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted, and are no spans at a time when nothing ran."""
    tests = TestsRead(stage="test", cases=(TestCase(name="t", duration_s=9.0),))
    ended = StageFinished(stage="test", outcome=Outcome(result=Result.SUCCESS, cached=True))
    collector = sent(monkeypatch, [RUN[0], tests, ended, RUN[-1]])
    assert set(collector.spans) == {"RUN p", "test"}
    assert told(collector, "test")["penstock.tests.passed"] == 1


def test_metrics_are_those_of_the_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Duration by result, errors by type, and that a run was active and is no more."""
    collector = sent(monkeypatch)
    ((duration, seconds),) = collector.points("cicd.pipeline.run.duration")
    assert seconds == 5.1
    assert duration == {
        "cicd.pipeline.name": "p",
        "cicd.pipeline.run.state": "executing",
        "cicd.pipeline.result": "failure",
        "error.type": "failure",
    }
    errors = {p["error.type"]: n for p, n in collector.points("cicd.pipeline.run.errors")}
    assert errors == {"registry": 1, "failure": 2}
    assert collector.points("cicd.pipeline.run.active")[-1][1] == 0


def test_active_run_is_seen_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent at once, and not by the minute."""
    with collecting(Collector()) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        report = TelemetryReport(trace_id=TRACE, span_ids=SPANS.__getitem__)
        report(RUN[0])
        deadline = time.monotonic() + 5
        while not collector.metrics and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [n for _, n in collector.points("cicd.pipeline.run.active")] == [1]
        report(RUN[-1])


def test_trace_goes_on_where_traceparent_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who started us sees our spans below its own."""
    parent = "00-ffffffffffffffffffffffffffffff01-00000000000000b7-01"
    root = sent(monkeypatch, environ={"TRACEPARENT": parent}).spans["RUN p"]
    assert root.trace_id.hex() == "ffffffffffffffffffffffffffffff01"
    assert root.parent_span_id.hex() == "00000000000000b7"


@pytest.mark.parametrize("parent", ["", "nonsense", "00-0-0-00"])
def test_broken_traceparent_is_none(monkeypatch: pytest.MonkeyPatch, parent: str) -> None:
    """The trace is our own then."""
    root = sent(monkeypatch, environ={"TRACEPARENT": parent}).spans["RUN p"]
    assert (root.trace_id.hex(), root.parent_span_id) == (f"{TRACE:032x}", b"")


def test_resource_says_whose_run_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipeline, run, commit and repository; what the environment says of it goes first."""
    theirs = {"OTEL_RESOURCE_ATTRIBUTES": "team=a", "OTEL_SERVICE_NAME": "mine"}
    collector = sent(monkeypatch, environ=GITHUB | theirs)
    assert (
        collector.resource.items()
        >= {
            "service.name": "mine",
            "team": "a",
            "cicd.pipeline.name": "p",
            "cicd.pipeline.run.id": "1",
            "cicd.pipeline.run.url.full": "https://github.com/owner/project/actions/runs/77",
            "cicd.worker.name": "worker-1",
            "vcs.repository.url.full": "https://github.com/owner/project",
            "vcs.repository.name": "project",
            "vcs.owner.name": "owner",
            "vcs.provider.name": "github",
            "vcs.ref.head.name": "bwords",
            "vcs.ref.head.type": "branch",
            "vcs.ref.head.revision": "c" * 40,
            "vcs.ref.base.name": "main",
            "vcs.ref.base.type": "branch",
            "vcs.change.id": "5",
        }.items()
    )


def test_tag_is_told_as_one() -> None:
    """A run for a tag has no branch."""
    started = RUN[0]
    assert isinstance(started, RunStarted)
    environ = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1"}
    known = surroundings(replace(started, branch="", commit="uncommitted"), environ)
    assert (known["vcs.ref.head.name"], known["vcs.ref.head.type"]) == ("v1", "tag")
    assert "vcs.ref.head.revision" not in known


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://user:hunter2@github.com/o/r.git", "https://github.com/o/r"),
        ("https://hunter2@gitlab.com:8443/g/s/r?token=hunter2#x", "https://gitlab.com:8443/g/s/r"),
        ("http://host/r", "http://host/r"),
        ("git@github.com:o/r.git", "https://github.com/o/r"),
        ("hunter2@host:o/r", "https://host/o/r"),
        ("user:hunter2@host:o/r", "https://host/o/r"),
        ("ssh://git@host:2222/o/r.git/", "https://host/o/r"),
        ("/srv/git/r.git", ""),
        ("file:///srv/r", ""),
        ("https://[broken/r", ""),
        ("https://host:port/r", ""),
        ("", ""),
    ],
)
def test_remote_is_told_without_credentials(remote: str, url: str) -> None:
    """A token in it never leaves; a path of this machine neither."""
    assert web_url(remote) == url


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ("", ""),
        ("ENDPOINT=http://a", "TRACES METRICS"),
        ("TRACES_ENDPOINT=http://a", "TRACES"),
        ("METRICS_ENDPOINT=http://a", "METRICS"),
        ("ENDPOINT=http://a OTEL_SDK_DISABLED=true", ""),
        ("ENDPOINT=http://a OTEL_SDK_DISABLED=false", "TRACES METRICS"),
        ("ENDPOINT=http://a DO_NOT_TRACK=1", ""),
        ("ENDPOINT=http://a DO_NOT_TRACK=0", "TRACES METRICS"),
        ("ENDPOINT=http://a OTEL_TRACES_EXPORTER=none", "METRICS"),
        ("ENDPOINT=http://a OTEL_METRICS_EXPORTER=console,otlp", "TRACES METRICS"),
        ("ENDPOINT=http://a PROTOCOL=grpc TRACES_PROTOCOL=http/protobuf", "TRACES"),
    ],
)
def test_nothing_is_sent_unless_it_is_asked_for(environ: str, wanted: str) -> None:
    """The standard variables decide, and a single no is enough."""
    pairs = [pair.partition("=") for pair in environ.split()]
    names = ("OTEL_", "DO_NOT")
    given = {
        (name if name.startswith(names) else f"OTEL_EXPORTER_OTLP_{name}"): value
        for name, _, value in pairs
    }
    assert signals(given) == tuple(wanted.split())


def test_protocol_that_is_not_spoken_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Silence would look like a collector that lost everything."""
    signals({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "traces are not sent: penstock speaks http/protobuf, not 'grpc'" in caplog.text


def in_a_process(code: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    prelude = (
        "import logging, sys; from penstock.reports.otel import TelemetryReport; "
        "from tests.penstock.hostile import run_of\n"
        "logging.basicConfig()\n"
        "report = TelemetryReport(trace_id=1, span_ids=len)\n"
        "for event in run_of(''): report(event)\n"
    )
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", prelude + code],
        env={"PYTHONPATH": f"{root / 'ci'}:{root}", **environ},
        check=False,
        capture_output=True,
        text=True,
    )


def test_sdk_is_not_even_imported_for_others() -> None:
    """A plain run does not pay for it."""
    code = "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert in_a_process(code, {}).returncode == 0
    with collecting(Collector()) as collector:
        assert in_a_process(code, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}).returncode == 1


@pytest.mark.parametrize("collector", [Collector(hangs=True), Collector(status=503)])
def test_process_ends_although_the_collector_does_not_take_it(collector: Collector) -> None:
    """What is not delivered by then ends with it, after one line of words."""
    with collecting(collector):
        began = time.monotonic()
        done = in_a_process("", {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
        took = time.monotonic() - began
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (0, "", 1)
    assert took < 9.5  # the imports included; left alone the SDK would take its ten seconds


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("collector", "endpoint"),
    [
        (Collector(hangs=True), ""),
        (Collector(status=503), ""),
        (Collector(status=401), ""),
        (None, "http://127.0.0.1:9"),
        (None, "nonsense"),
    ],
    ids=["hangs", "is down", "refuses", "is not there", "is none"],
)
def test_broken_collector_costs_a_warning_and_no_time_to_speak_of(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    measured: Callable[[str], None],
    collector: Collector | None,
    endpoint: str,
) -> None:
    """Nothing is raised, it is said once, and the run's end is hardly delayed."""
    with collecting(collector or Collector()) as served:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint or served.url)
        report = TelemetryReport(trace_id=TRACE, span_ids=len)
        for event in RUN[:-1]:
            report(event)
        began = time.monotonic()
        report(RUN[-1])
        assert time.monotonic() - began < 1.0
    measured("503, 401, silence, closed port, no address: the end waits for less than a second")
    (record,) = [record for record in caplog.records if record.name.startswith("penstock")]
    assert record.message.startswith("WARNING: not all telemetry could be delivered")


def test_settings_that_the_sdk_refuses_are_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on without telemetry."""
    sent(monkeypatch, environ={"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"})
    assert "no telemetry is sent (ValueError" in caplog.text


@settings(max_examples=15, deadline=None)
@given(text=texts)
def test_hostile_words_arrive(text: str) -> None:
    """Also what is no valid Unicode, which would spoil the whole batch."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        collector = sent(monkeypatch, run_of(text))
    assert told(collector, "test_a")["test.suite.name"] == literal(text)
    assert collector.spans["test"].status.message == literal(f"exit code 1 {text}")
