"""What runs on the engine, line by line, while it runs.

The engine tells its client of spans and logs, as OTLP in JSON, on the session's own port. A request
that is made under a span of ours has all that the engine does for it below that span: so every
line finds the stage or the service that it belongs to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from penstock.events import ActivityChanged, OutputWritten

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from penstock.events import Event
    from penstock.redact import Masker, Redactor

logger = logging.getLogger(__name__)

LONGEST_LINE = 32_000  # characters; what a line has beyond is in the log only
LONG = re.compile(rf"(.{{{LONGEST_LINE}}}).+")
LONGEST_BATCH = 8_000_000  # bytes; the engine's batches grow as they wait to be read
MOST_WAITING = 2_000  # records whose span has not been told of yet
LAST_LINES = 50  # of a service, for when it dies
LATE_S = 0.6  # the engine tells of a line up to 0.4 s after it was printed
ONGOING = 1 << 63  # the engine's end time of a span that has not ended is beyond it
# Spans of the engine's own work that takes long and prints nothing.
NOISE = re.compile(r"docker\.io/(library/)?|@sha256:[0-9a-f]+")
ACTIVITY = re.compile(r"(pull|resolv|extract|push)\w* ")


@dataclass
class _Printer:
    """One of the two streams of one command: masked as it comes, told of in whole lines."""

    masker: Masker
    _begun: str = ""
    _is_cut: bool = False
    _ends_line: bool = False

    def release(self) -> str:
        """Return what a silent program printed and the mask still holds, if it is whole lines."""
        return self.feed("", is_last=True) if self._ends_line else ""

    def feed(self, text: str, *, is_last: bool) -> str:
        """Return the lines that are complete now."""
        self._ends_line = text.endswith("\n")
        text = self.masker.feed(text) + (self.masker.flush() if is_last else "")
        if self._is_cut:  # the rest of a line whose beginning was told
            _, end, text = text.partition("\n")
            self._is_cut = not end
        text = self._begun + text
        complete = len(text) if is_last else text.rfind("\n") + 1
        self._begun = text[complete:]
        if len(self._begun) > LONGEST_LINE:
            self._begun, self._is_cut, complete = "", True, len(text)
        told = LONG.sub(r"\1 [cut, whole in the log]", text[:complete])
        return told + "\n" if self._is_cut and told else told


@dataclass
class Live:
    """Tells what stages and services print.

    Args:
        run_id: Unique for the run, in hex; its trace has the same id unless there is one above. Of a
            later run in the same session another one; spans of earlier ones stay known, as the engine
            tells of a command under the request that spoke of an equal one first.
        emit: Takes `OutputWritten` and `ActivityChanged`.
        redactor: Masks also what comes in pieces.
    """

    run_id: str
    emit: Callable[[Event], None]
    redactor: Redactor
    _sources: dict[str, tuple[str, str]] = field(default_factory=dict, init=False)
    _parents: dict[str, str] = field(default_factory=dict, init=False)
    _waiting: list[dict[str, Any]] = field(default_factory=list, init=False)
    _printers: dict[tuple[str, int], _Printer] = field(default_factory=dict, init=False)
    _active: dict[str, str] = field(default_factory=dict, init=False)
    _executing: set[str] = field(default_factory=set, init=False)
    _last: defaultdict[str, deque[str]] = field(
        default_factory=partial(defaultdict, partial(deque, maxlen=LAST_LINES)), init=False
    )

    @contextmanager
    def under(self, *, stage: str = "", service: str = "") -> Iterator[None]:
        """Have all requests that are made in here known as those of a stage or a service."""
        from opentelemetry import context, trace

        number = span_id(self.run_id, stage or f"service {service}")
        self._sources[f"{number:016x}"] = (stage, service)
        span = trace.SpanContext(
            trace_id(self.run_id), number, is_remote=False, trace_flags=trace.TraceFlags(1)
        )
        token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(span)))
        try:
            yield
        finally:
            context.detach(token)

    async def last_lines(self, service: str) -> str:
        """Return what a service that has just died printed last, masked."""
        await anyio.sleep(LATE_S)
        for (number, _), printer in self._printers.items():
            if self._source(number) == ("", service):
                self._tell("", service, printer.release())
        return "\n".join(self._last[service])

    def forget_lines(self, service: str) -> None:
        """Begin anew: another server is started, or what was printed so far prepared it."""
        self._last.pop(service, None)

    async def serves(self, service: str) -> bool:
        """Return whether a server of this run lives on, as far as the engine has told."""
        await anyio.sleep(LATE_S)
        return any(self._source(number) == ("", service) for number in self._executing)

    async def follow(self) -> None:
        """Listen as long as the session lives; without this the run is only less talkative."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, "traces", "spans", self._spans)
            tasks.start_soon(self._follow, "logs", "logRecords", self._records)

    async def _follow(
        self, path: str, kind: str, take: Callable[[Iterable[dict[str, Any]]], None]
    ) -> None:
        try:
            async for batch in _subscribe(path):
                scopes = [s for found in batch.values() for r in found for s in _list(r, "scope")]
                take([record for scope in scopes for record in scope.get(kind, ())])
        except Exception as error:  # noqa: BLE001 - the session closes, or the engine is another one
            logger.debug("no live output any more: %s", error)

    def _spans(self, spans: Iterable[dict[str, Any]]) -> None:
        for span in spans:
            number = _hex(span["spanId"])
            self._parents[number] = _hex(span.get("parentSpanId", ""))
            has_ended = int(span.get("endTimeUnixNano", 0)) < ONGOING
            if span["name"].startswith("exec "):
                (self._executing.discard if has_ended else self._executing.add)(number)
            if ACTIVITY.match(span["name"]):
                self._activity(number, "" if has_ended else NOISE.sub("", span["name"]))
        waiting, self._waiting = self._waiting, []
        self._records(waiting)

    def _activity(self, number: str, what: str) -> None:
        source = self._source(number)
        if source and (what or self._active.get(source[0] + source[1]) == number):
            self._active[source[0] + source[1]] = number
            self.emit(ActivityChanged(stage=source[0], service=source[1], what=what))

    def _records(self, records: Iterable[dict[str, Any]]) -> None:
        told: dict[tuple[str, str], str] = {}
        for record in records:
            facts = {
                a["key"]: next(iter(a["value"].values())) for a in record.get("attributes", ())
            }
            if "stdio.stream" not in facts or facts.get("dagger.io/logs.verbose"):
                continue  # a value that a function of the engine's returned
            number = _hex(record.get("spanId", ""))
            source = self._source(number)
            if source is None:
                self._waiting = [*self._waiting, record][-MOST_WAITING:]
                continue
            printer = self._printers.setdefault(
                (number, int(facts["stdio.stream"])), _Printer(self.redactor.stream())
            )
            text = record["body"].get("stringValue", "")
            text = printer.feed(text, is_last=bool(facts.get("stdio.eof")))
            told[source] = told.get(source, "") + text
        for (stage, service), text in told.items():
            self._tell(stage, service, text)

    def _tell(self, stage: str, service: str, text: str) -> None:
        if text:
            self._last[service].extend(text.splitlines() if service else ())
            self.emit(OutputWritten(stage=stage, service=service, text=text))

    def _source(self, number: str) -> tuple[str, str] | None:
        """Return whose span it is: the nearest one of ours above it."""
        seen = set()
        while number not in self._sources:
            if number not in self._parents or number in seen:
                return None
            seen.add(number)
            number = self._parents[number]
        return self._sources[number]


def trace_id(run_id: str) -> int:
    """Return the trace of a run: that of `TRACEPARENT` when it was started inside one."""
    above = os.environ.get("TRACEPARENT", "")
    found = re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", above)
    return int(found[1] if found else run_id, 16) or int(run_id, 16)


def span_id(run_id: str, name: str) -> int:
    """Return the id of the span of a stage, or of a service, in a run."""
    return int.from_bytes(hashlib.sha256(f"{run_id} {name}".encode()).digest()[:8]) or 1


async def _subscribe(path: str) -> AsyncIterator[dict[str, list[dict[str, Any]]]]:
    """Yield what the session tells under a path, until it closes."""
    import httpx

    url = f"http://127.0.0.1:{os.environ['DAGGER_SESSION_PORT']}/v1/{path}"
    key = (os.environ["DAGGER_SESSION_TOKEN"], "")
    async with (
        httpx.AsyncClient(timeout=None, trust_env=False) as client,  # noqa: S113 - it is silent for long
        client.stream("GET", url, auth=key, headers={"Accept": "text/event-stream"}) as answer,
    ):
        async for line in _lines(answer.aiter_bytes()):
            if line.startswith(b"data: {"):
                yield json.loads(line.removeprefix(b"data: "))


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield lines, but for those that are too long: who prints so fast is not followed live."""
    line = bytearray()
    is_too_long = False
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        is_too_long = is_too_long or len(line) + len(first) > LONGEST_BATCH
        if is_too_long:
            line.clear()
        else:
            line += first
        if others:
            if not is_too_long:
                yield bytes(line)
            for other in others[:-1]:
                yield other
            line[:] = others[-1]
            is_too_long = False


def _list(resource: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    for key, scopes in resource.items():
        if key.startswith(kind):
            yield from scopes


def _hex(number: str) -> str:
    return base64.b64decode(number).hex()
