"""What the engine tells becomes lines of stages and services."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from penstock.events import ActivityChanged, Event, OutputWritten
from penstock.live import LONGEST_LINE, MOST_WAITING, ONGOING, Live, _lines, trace_id
from penstock.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Engine:
    """Speaks to a `Live` as the engine does."""

    def __init__(self, *secrets: str) -> None:
        self.told: list[Event] = []
        redactor = Redactor()
        for secret in secrets:
            redactor.add(secret)
        self.live = Live(TRACE, self.told.append, redactor)
        self.above: dict[str, int] = {}

    def stage(self, name: str) -> int:
        with self.live.under(stage=name):
            return trace.get_current_span().get_span_context().span_id

    def service(self, name: str) -> int:
        with self.live.under(service=name):
            return trace.get_current_span().get_span_context().span_id

    def span(self, number: int, above: int, name: str = "withExec", *, ended: bool = False) -> None:
        span = {"spanId": coded(number), "parentSpanId": coded(above), "name": name}
        self.live._spans([span | {"endTimeUnixNano": str(5 if ended else ONGOING + 5)}])

    def prints(self, number: int, text: str, *, stream: int = 1, **facts: bool) -> None:
        attributes: list[dict[str, Any]] = [{"key": "stdio.stream", "value": {"intValue": stream}}]
        attributes += [
            {"key": key.replace("_", "."), "value": {"boolValue": value}}
            for key, value in facts.items()
        ]
        body = {"stringValue": text}
        self.live._records([{"spanId": coded(number), "body": body, "attributes": attributes}])

    def lines(self) -> str:
        return "".join(event.text for event in self.told if isinstance(event, OutputWritten))


def coded(number: int) -> str:
    return base64.b64encode(number.to_bytes(8)).decode()


def test_line_belongs_to_the_stage_above_it() -> None:
    """However deep the engine's own spans are nested."""
    engine = Engine()
    engine.span(2, engine.stage("test"))
    engine.span(3, 2)
    engine.span(4, engine.service("postgres"))
    engine.prints(3, "8 passed\n")
    engine.prints(4, "ready\n")
    assert engine.told == [
        OutputWritten(stage="test", text="8 passed\n"),
        OutputWritten(service="postgres", text="ready\n"),
    ]


def test_line_waits_for_its_span() -> None:
    """The two come by different ways, in either order."""
    engine = Engine()
    engine.prints(2, "early\n")
    assert engine.told == []
    engine.span(2, engine.stage("test"))
    assert engine.lines() == "early\n"


def test_strange_spans_are_nobodys() -> None:
    """Neither a span without one of ours above it nor a circle makes a line."""
    engine = Engine()
    for number in range(MOST_WAITING + 10):
        engine.prints(1, f"{number}\n")
    engine.span(1, 2)
    engine.span(2, 1)
    assert engine.told == []
    assert len(engine.live._waiting) == MOST_WAITING


def test_values_that_the_engine_returns_are_no_output() -> None:
    """It logs the result of each of its functions too, and marks that."""
    engine = Engine()
    engine.span(2, engine.stage("test"))
    engine.prints(2, "0\n", dagger_io_logs_verbose=True)  # not the engine's spelling
    engine.live._records(
        [
            {
                "spanId": coded(2),
                "body": {"stringValue": "1\n"},
                "attributes": [
                    {"key": "stdio.stream", "value": {"intValue": 1}},
                    {"key": "dagger.io/logs.verbose", "value": {"boolValue": True}},
                ],
            },
            {"spanId": coded(2), "body": {"stringValue": "log\n"}},
        ]
    )
    assert engine.lines() == "0\n"


def test_lines_are_whole() -> None:
    """The end of a program ends its last line; the two streams do not mix within a line."""
    engine = Engine()
    engine.span(2, engine.stage("test"))
    engine.prints(2, "on")
    engine.prints(2, "err\n", stream=2)
    engine.prints(2, "e\ntwo")
    assert engine.lines() == "err\none\n"
    engine.prints(2, "", stdio_eof=True)
    assert engine.lines() == "err\none\ntwo"


@given(st.lists(st.integers(0, 30)))
def test_secret_in_pieces_is_masked(cuts: list[int]) -> None:
    """Wherever the engine cuts the output."""
    text = "key hunter2-hunter2 and more\n"
    engine = Engine("hunter2-hunter2")
    engine.span(2, engine.stage("test"))
    places = [0, *sorted(cuts), len(text)]
    for start, end in pairwise(places):
        engine.prints(2, text[start:end])
    engine.prints(2, "", stdio_eof=True)
    assert engine.lines() == "key *** and more\n"


@pytest.mark.fault(31)
@pytest.mark.parametrize("piece", [1_000_000, 10_000, 33_333])
def test_endless_line_is_cut(piece: int) -> None:
    """Its beginning is told, once, and what comes behind it as ever."""
    engine = Engine()
    engine.span(2, engine.stage("test"))
    text = "x" * 1_000_000 + "\nnext\n"
    for start in range(0, len(text), piece):
        engine.prints(2, text[start : start + piece])
    first, second = engine.lines().splitlines()
    assert len(first) < LONGEST_LINE + piece
    assert first.endswith("x [cut, whole in the log]")
    assert second == "next"


def test_pull_is_an_activity() -> None:
    """It is told when it begins, and when it has ended unless something else has begun."""
    engine = Engine()
    test = engine.stage("test")
    engine.span(2, test, "resolving docker.io/library/redis:7@sha256:0f")
    engine.span(3, test, "pulling redis:7")
    engine.span(2, test, "resolving redis:7", ended=True)
    engine.span(3, test, "pulling redis:7", ended=True)
    engine.span(4, 99, "pulling nobody's")
    whats = [event.what for event in engine.told if isinstance(event, ActivityChanged)]
    assert whats == ["resolving redis:7", "pulling redis:7", ""]


def test_trace_above_the_run_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """What started us hands its trace on by `TRACEPARENT`; anything else is none."""
    monkeypatch.setenv("TRACEPARENT", f"00-{'ab' * 16}-{'cd' * 8}-01")
    assert trace_id(TRACE) == int("ab" * 16, 16)
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    assert trace_id(TRACE) == int(TRACE, 16)


class Session(http.server.BaseHTTPRequestHandler):
    """Serves what an engine's session does, once, and closes."""

    def do_GET(self) -> None:
        """Answer with the events of one path."""
        assert self.headers["Authorization"] == f"Basic {base64.b64encode(b'token:').decode()}"
        kind, records = {
            "/v1/traces": ("resourceSpans", {"scopeSpans": [{"spans": self.spans}]}),
            "/v1/logs": ("resourceLogs", {"scopeLogs": [{"logRecords": self.logs}]}),
        }[self.path]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        told = json.dumps({kind: [{"resource": {}} | records]})
        self.wfile.write(f"event: subscribed\ndata\n\nid: 3\ndata: {told}\n\n".encode())
        self.wfile.write(b"data: {broken\n\n")

    def log_message(self, *_words: object) -> None:
        """Stay silent."""

    spans: ClassVar[list[dict[str, Any]]] = []
    logs: ClassVar[list[dict[str, Any]]] = []


async def test_session_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over its own port, with its own token; what is broken ends the listening, not the run."""
    engine = Engine()
    above = engine.stage("test")
    attributes = [{"key": "stdio.stream", "value": {"intValue": "1"}}]
    line = {"spanId": coded(2), "body": {"stringValue": "hello\n"}, "attributes": attributes}
    monkeypatch.setattr(
        Session, "spans", [{"spanId": coded(2), "parentSpanId": coded(above), "name": "withExec"}]
    )
    monkeypatch.setattr(Session, "logs", [line])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Session) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DAGGER_SESSION_PORT", str(server.server_port))
        monkeypatch.setenv("DAGGER_SESSION_TOKEN", "token")
        with anyio.fail_after(5):
            await engine.live.follow()
        server.shutdown()
    assert engine.lines() == "hello\n"


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"\n", b"ab\ncd\n", b"x" * 30])))
async def test_lines_are_read_whatever_the_pieces(pieces: list[bytes]) -> None:
    """All of them that end, but for those that are too long."""

    async def come() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.live.LONGEST_BATCH", 40)
        found = [line async for line in _lines(come())]
    lines = b"".join(pieces).split(b"\n")[:-1]
    assert [line for line in lines if len(line) <= 40] == [f for f in found if len(f) <= 40]
    assert max(map(len, found), default=0) <= 40 or max(map(len, pieces)) > 40


async def test_nobody_there_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat tells of a lost engine; this one has only nothing to tell."""
    monkeypatch.setenv("DAGGER_SESSION_PORT", "1")
    monkeypatch.setenv("DAGGER_SESSION_TOKEN", "token")
    await Engine().live.follow()


async def test_last_lines_of_a_service_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last fifty, masked, with what the mask still held back; none once it is another one."""
    monkeypatch.setattr("penstock.live.LATE_S", 0.0)
    engine = Engine("correct-horse")
    engine.span(21, engine.service("db"))
    engine.span(22, engine.stage("test"))
    engine.prints(21, "".join(f"line {number}\n" for number in range(60)))
    engine.prints(21, "the password is correct-horse\nlast words\n")
    engine.prints(22, "of a stage\nand hal")
    lines = (await engine.live.last_lines("db")).splitlines()
    assert lines[-2:] == ["the password is ***", "last words"]
    assert len(lines) == 50
    engine.live.forget_lines("db")
    assert await engine.live.last_lines("db") == ""


async def test_server_lives_until_its_span_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the engine tells of the span above it only later."""
    monkeypatch.setattr("penstock.live.LATE_S", 0)
    engine = Engine()
    db = engine.service("db")
    assert not await engine.live.serves("db")
    engine.span(8, 7, "exec postgres")
    engine.span(7, db, "Service.start")
    assert await engine.live.serves("db")
    assert not await engine.live.serves("redis")
    engine.span(8, 7, "exec postgres", ended=True)
    assert not await engine.live.serves("db")
