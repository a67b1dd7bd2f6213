"""A run as spans and metrics of the official SDK; imported only where they are wanted.

Source: OpenTelemetry semantic conventions 1.44 for CI/CD, VCS and tests.
"""

from __future__ import annotations

import re
import threading
import time
import urllib.parse
from datetime import datetime
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.semconv._incubating.attributes import cicd_attributes as cicd
from opentelemetry.semconv._incubating.attributes import test_attributes as test
from opentelemetry.semconv._incubating.attributes import vcs_attributes as vcs
from opentelemetry.semconv._incubating.attributes.process_attributes import PROCESS_EXIT_CODE
from opentelemetry.semconv._incubating.metrics import cicd_metrics
from opentelemetry.semconv.attributes.code_attributes import CODE_FILE_PATH, CODE_LINE_NUMBER
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
)
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstock import __version__
from penstock.config import first, repository_url, run_url
from penstock.evidence import FAILED, TestResult
from penstock.model import BROKEN, Result
from penstock.reports.literal import literal
from penstock.reports.reading import shortened
from penstock.reports.record import TestCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.trace import Span

    from penstock.events import RunFinished, RunStarted, StageRetried
    from penstock.evidence import TestCase
    from penstock.model import Fault, Stage
    from penstock.reports.view import RunView, StageView

    Attributes = dict[str, str | int | float | bool]

ACTION = cicd.CicdPipelineActionNameValues.RUN.value
MOST_TESTS = 100  # spans of a stage
MOST_SPANS = 1 << 16  # waiting to be sent; the SDK's 2048 are less than what a large run ends with
NANOSECONDS = 1_000_000_000
# What a stage does, by what it is called.
_TYPES = {
    "test": cicd.CicdPipelineTaskTypeValues.TEST,
    "build": cicd.CicdPipelineTaskTypeValues.BUILD,
    "deploy": cicd.CicdPipelineTaskTypeValues.DEPLOY,
    "push": cicd.CicdPipelineTaskTypeValues.DEPLOY,
    "publish": cicd.CicdPipelineTaskTypeValues.DEPLOY,
    "release": cicd.CicdPipelineTaskTypeValues.DEPLOY,
}
_SUITE = test.TestSuiteRunStatusValues
_SUITES = {
    Result.SUCCESS: _SUITE.SUCCESS,
    Result.FAILURE: _SUITE.FAILURE,
    Result.ERROR: _SUITE.ABORTED,
    Result.TIMEOUT: _SUITE.TIMED_OUT,
    Result.CANCELLATION: _SUITE.ABORTED,
    Result.SKIP: _SUITE.SKIPPED,
}


class Telemetry:
    """The spans and metrics of one run.

    Args:
        started: The beginning of the run.
        signals: Which of `TRACES` and `METRICS` are sent.
        trace_id: Of the trace, where no parent gives it.
        span_ids: Gives the ids of the stages' spans.
        repository: URL of the git remote.
        environ: The environment.
    """

    def __init__(
        self,
        started: RunStarted,
        signals: Sequence[str],
        *,
        trace_id: int,
        span_ids: Callable[[str], int],
        repository: str,
        environ: Mapping[str, str],
    ) -> None:
        self.begins: list[Callable[[], object]] = []
        self.ends: list[Callable[[], object]] = []
        self._span_ids = span_ids
        self._ids = _Ids(trace_id)
        self._zero = _nanoseconds(started)
        self._retries: dict[str, list[StageRetried]] = {}
        self._run_url = run_url(environ)
        ours = surroundings(started, environ, repository)
        # Last, so that `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have their way.
        resource = Resource.create(ours).merge(OTELResourceDetector().detect())
        self._trace(resource, is_sent="TRACES" in signals)
        self._measure(resource, is_sent="METRICS" in signals)
        self._pipeline: Attributes = {cicd.CICD_PIPELINE_NAME: _text(started.pipeline)}
        parent = {name: environ.get(name.upper(), "") for name in ("traceparent", "tracestate")}
        self._root = self._tracer.start_span(
            _text(f"{ACTION} {started.pipeline}"),
            TraceContextTextMapPropagator().extract(parent, Context()),
            kind=SpanKind.SERVER,
            attributes=self._pipeline
            | {cicd.CICD_PIPELINE_ACTION_NAME: ACTION, cicd.CICD_PIPELINE_RUN_ID: started.run_id},
            start_time=self._at(started.at_s),
        )
        self._active.add(1, self._executing)
        for begin in self.begins:
            threading.Thread(target=begin, daemon=True).start()

    def _trace(self, resource: Resource, *, is_sent: bool) -> None:
        provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        if is_sent:
            provider.add_span_processor(
                BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=MOST_SPANS)
            )
            self.ends.append(provider.shutdown)
        self._tracer = provider.get_tracer("penstock", __version__)

    def _measure(self, resource: Resource, *, is_sent: bool) -> None:
        readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if is_sent else []
        provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        if is_sent:
            # Sent by the minute else, so that of most runs nobody saw that they are active.
            self.begins.append(provider.force_flush)
            self.ends.append(provider.shutdown)
        meter = provider.get_meter("penstock", __version__)
        self._active = cicd_metrics.create_cicd_pipeline_run_active(meter)
        self._duration = cicd_metrics.create_cicd_pipeline_run_duration(meter)
        self._errors = cicd_metrics.create_cicd_pipeline_run_errors(meter)

    @property
    def _executing(self) -> Attributes:
        state = cicd.CicdPipelineRunStateValues.EXECUTING.value
        return self._pipeline | {cicd.CICD_PIPELINE_RUN_STATE: state}

    def _at(self, at_s: float) -> int:
        return self._zero + round(at_s * NANOSECONDS)

    def retry(self, event: StageRetried) -> None:
        """Remember an attempt that failed and was followed by another one."""
        self._retries.setdefault(event.stage, []).append(event)
        kind = _error_type(event.attempt.result, event.attempt.fault)
        self._errors.add(1, self._pipeline | {ERROR_TYPE: kind})

    def stage(self, view: StageView) -> None:
        """Tell a stage that has come to its end, and its tests."""
        outcome, end_s = view.outcome, view.ended_s
        if outcome is None or end_s is None:
            return
        start_s = end_s if view.started_s is None else view.started_s
        self._ids.next = self._span_ids(view.stage.name)
        span = self._tracer.start_span(
            _text(view.stage.name),
            set_span_in_context(self._root, Context()),
            attributes=self._task(view),
            start_time=self._at(start_s),
        )
        for event in self._retries.get(view.stage.name, ()):
            _add_attempt(span, event, self._at(event.at_s))
        if outcome.result in BROKEN:
            kind = _error_type(outcome.result, outcome.fault)
            self._errors.add(1, self._pipeline | {ERROR_TYPE: kind})
            span.set_attribute(ERROR_TYPE, kind)
            span.set_status(StatusCode.ERROR, _text(outcome.reason))
        if not outcome.cached:  # else they ran at another time
            below = set_span_in_context(span, Context())
            for case, case_start_s, case_end_s in _placed(view.tests, start_s, end_s):
                self._case(case, below, self._at(case_start_s), self._at(case_end_s))
        span.end(self._at(end_s))

    def _task(self, view: StageView) -> Attributes:
        outcome, stage = view.outcome, view.stage
        if outcome is None:
            return {}
        attributes: Attributes = {
            cicd.CICD_PIPELINE_TASK_NAME: _text(stage.name),
            cicd.CICD_PIPELINE_TASK_RUN_ID: _text(stage.name),
            cicd.CICD_PIPELINE_TASK_RUN_RESULT: outcome.result.value,
            "penstock.cached": outcome.cached,
            "penstock.allowed": outcome.allowed,
        }
        if self._run_url:
            attributes[cicd.CICD_PIPELINE_TASK_RUN_URL_FULL] = self._run_url
        if kind := _task_type(stage, has_tests=bool(view.tests)):
            attributes[cicd.CICD_PIPELINE_TASK_TYPE] = kind
        if outcome.exit_code is not None:
            attributes[PROCESS_EXIT_CODE] = outcome.exit_code
        if view.tests:
            counts = TestCounts.of(view.tests)
            attributes |= {
                test.TEST_SUITE_NAME: _text(stage.name),
                test.TEST_SUITE_RUN_STATUS: _SUITES[outcome.result].value,
                "penstock.tests.passed": counts.passed,
                "penstock.tests.failed": counts.failed,
                "penstock.tests.skipped": counts.skipped,
            }
        if view.coverage:
            attributes["penstock.coverage.percent"] = view.coverage.percent
        return attributes

    def _case(self, case: TestCase, below: Context, start: int, end: int) -> None:
        status = test.TestCaseResultStatusValues
        failed = case.result in FAILED
        attributes: Attributes = {
            test.TEST_CASE_NAME: _text(case.name),
            test.TEST_SUITE_NAME: _text(case.suite),
            test.TEST_CASE_RESULT_STATUS: (status.FAIL if failed else status.PASS).value,
        }
        if case.file:
            attributes[CODE_FILE_PATH] = _text(case.file)
        if case.line:
            attributes[CODE_LINE_NUMBER] = case.line
        span = self._tracer.start_span(
            _text(case.name), below, attributes=attributes, start_time=start
        )
        if failed:
            said = {
                EXCEPTION_MESSAGE: _text(case.message),
                EXCEPTION_STACKTRACE: _text(case.detail),
            }
            span.add_event("exception", said, end)
            span.set_status(StatusCode.ERROR, _text(case.message))
        span.end(end)

    def finish(self, event: RunFinished, view: RunView) -> None:
        """Tell the verdict."""
        told: Attributes = {cicd.CICD_PIPELINE_RESULT: event.result.value}
        if event.result in {Result.FAILURE, Result.ERROR}:
            root = view.stages.get(event.root)
            fault = root.outcome.fault if root and root.outcome else None
            told[ERROR_TYPE] = _error_type(event.result, fault)
        self._root.set_attributes(told)
        if event.result in BROKEN:
            self._root.set_status(StatusCode.ERROR, _text(event.reason))
        self._root.end(self._at(event.at_s))
        self._active.add(-1, self._executing)
        self._duration.record(event.duration_s, self._executing | told)


class _Ids(RandomIdGenerator):
    """Random ids, but for those that are given.

    Args:
        trace_id: Of every trace that has no parent.
    """

    def __init__(self, trace_id: int) -> None:
        self._trace_id = trace_id
        self.next: int | None = None

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        given, self.next = self.next, None
        return given or super().generate_span_id()


def _text(words: str) -> str:
    """Return a text of bounded length that protobuf can hold, as lone surrogates cannot be held."""
    return literal(shortened(words))


def _nanoseconds(started: RunStarted) -> int:
    """Return the wall time from which the events count."""
    try:
        began = datetime.fromisoformat(started.started_at).timestamp()
    except ValueError:
        began = time.time()
    return round((began - started.at_s) * NANOSECONDS)


def _error_type(result: Result, fault: Fault | None) -> str:
    return fault or result.value


def _add_attempt(span: Span, event: StageRetried, at: int) -> None:
    attempt = event.attempt
    said: Attributes = {
        cicd.CICD_PIPELINE_TASK_RUN_RESULT: attempt.result.value,
        ERROR_TYPE: _error_type(attempt.result, attempt.fault),
        EXCEPTION_MESSAGE: _text(attempt.reason),
        "penstock.attempt.duration": attempt.duration_s,
    }
    span.add_event("penstock.attempt", said, at)


def _task_type(stage: Stage, *, has_tests: bool) -> str:
    words = [*stage.tags, *re.split(r"[^a-z]+", (stage.family or stage.name).lower())]
    found = next((_TYPES[word] for word in words if word in _TYPES), None)
    if found is None and has_tests:
        found = cicd.CicdPipelineTaskTypeValues.TEST
    return found.value if found else ""


def _placed(
    cases: Sequence[TestCase], start_s: float, end_s: float
) -> Iterator[tuple[TestCase, float, float]]:
    """Yield the tests that failed and the slowest others, with a beginning and an end.

    A report says how long a test took, and not when it began: one after the other, up to the end of
    the stage, is how most of them run.
    """
    at_s = end_s - sum(case.duration_s for case in cases)
    placed = []
    for case in cases:
        begins_s = min(max(at_s, start_s), end_s)
        at_s += case.duration_s
        if case.result is not TestResult.SKIPPED:
            placed.append((case, begins_s, min(begins_s + case.duration_s, end_s)))
    placed.sort(key=lambda entry: (entry[0].result not in FAILED, -entry[0].duration_s))
    yield from placed[:MOST_TESTS]


def surroundings(
    started: RunStarted, environ: Mapping[str, str], repository: str = ""
) -> Attributes:
    """Return what is known of the run's origin, as attributes of its resource."""
    base = environ.get("GITHUB_BASE_REF") or environ.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "")
    change = re.match(r"refs/pull/(\d+)/", environ.get("GITHUB_REF", ""))
    tag = environ.get("GITHUB_REF_NAME", "") if environ.get("GITHUB_REF_TYPE") == "tag" else ""
    workers = ("RUNNER_NAME", "CI_RUNNER_DESCRIPTION", "BUILDKITE_AGENT_NAME")
    head, types = started.branch or tag, vcs.VcsRefHeadTypeValues
    known = {
        "service.name": "penstock",
        "service.version": __version__,
        cicd.CICD_PIPELINE_NAME: started.pipeline,
        cicd.CICD_PIPELINE_RUN_ID: started.run_id,
        cicd.CICD_PIPELINE_RUN_URL_FULL: run_url(environ),
        cicd.CICD_WORKER_NAME: first(environ, *workers),
        vcs.VCS_REF_HEAD_REVISION: started.commit.replace("uncommitted", ""),
        vcs.VCS_REF_HEAD_NAME: head,
        vcs.VCS_REF_HEAD_TYPE: head and (types.BRANCH if started.branch else types.TAG).value,
        vcs.VCS_REF_BASE_NAME: base,
        vcs.VCS_REF_BASE_TYPE: base and vcs.VcsRefBaseTypeValues.BRANCH.value,
        vcs.VCS_CHANGE_ID: change[1] if change else environ.get("CI_MERGE_REQUEST_IID", ""),
        **_repository(repository_url(environ) or repository),
    }
    return {name: _text(value) for name, value in known.items() if value}


def _repository(remote: str) -> dict[str, str]:
    url = web_url(remote)
    if not url:
        return {}
    host, _, path = url.partition("://")[2].partition("/")
    owner, _, name = path.rpartition("/")
    providers = (provider.value for provider in vcs.VcsProviderNameValues)
    return {
        vcs.VCS_REPOSITORY_URL_FULL: url,
        vcs.VCS_REPOSITORY_NAME: name,
        vcs.VCS_OWNER_NAME: owner,
        vcs.VCS_PROVIDER_NAME: next((provider for provider in providers if provider in host), ""),
    }


def web_url(remote: str) -> str:
    """Return a remote as one opens it in a browser: no credentials, no `.git`; empty for a path."""
    if short := re.fullmatch(r"(?:[^@/]*@)?([\w.-]+):(?!/)(.+)", remote):  # as scp writes it
        remote = f"ssh://{short[1]}/{short[2]}"
    try:
        parts = urllib.parse.urlsplit(remote)
        port = f":{parts.port}" if parts.port and parts.scheme in {"http", "https"} else ""
    except ValueError:
        return ""
    path = parts.path.strip("/").removesuffix(".git")
    if parts.scheme not in {"http", "https", "ssh", "git"} or not parts.hostname or not path:
        return ""
    scheme = "http" if parts.scheme == "http" else "https"
    return f"{scheme}://{parts.hostname}{port}/{path}"
