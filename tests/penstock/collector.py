"""A receiver of OTLP over HTTP that decodes by the official protobufs."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What was received, and how the next request is answered.

    Args:
        status: Of each answer.
        hangs: Whether no request is answered until the test ends.
    """

    status: int = 200
    hangs: bool = False
    url: str = ""
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def spans(self) -> dict[str, Span]:
        """The spans by their names."""
        scopes = [
            s for request in self.traces for r in request.resource_spans for s in r.scope_spans
        ]
        return {span.name: span for scope in scopes for span in scope.spans}

    @property
    def resource(self) -> dict[str, Any]:
        """The attributes of the first resource."""
        return attributes(self.traces[0].resource_spans[0].resource.attributes)

    def points(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """Return attributes and values, or sums, of a metric, in the order they were received."""
        found = []
        for request in self.metrics:
            for metric in request.resource_metrics[0].scope_metrics[0].metrics:
                if metric.name == name:
                    points = metric.sum.data_points or metric.histogram.data_points
                    found += [
                        (attributes(p.attributes), getattr(p, "as_int", 0) or getattr(p, "sum", 0))
                        for p in points
                    ]
        return found

    def take(self, path: str, body: bytes) -> None:
        """Decode a request."""
        self.paths.append(path)
        self.bodies.append((path, body))
        if path.endswith("/v1/traces"):
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        elif path.endswith("/v1/metrics"):
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))


def attributes(pairs: Any) -> dict[str, Any]:  # noqa: ANN401 - a repeated field
    """Return attributes as a dict."""

    def value(pair: KeyValue) -> object:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    return {pair.key: value(pair) for pair in pairs}


@contextmanager
def collecting(collector: Collector) -> Iterator[Collector]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if collector.hangs:
                collector.ended.wait()
                return
            if collector.status == 200:
                collector.take(self.path, body)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield collector
        finally:
            collector.ended.set()
            server.shutdown()
            thread.join()
