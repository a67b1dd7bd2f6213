"""Traces and metrics by OpenTelemetry, for who asks for them in the environment."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from penstock.config import is_set
from penstock.events import Event, RunFinished, RunStarted, StageFinished, StageRetried
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.reports.otlp import Telemetry

logger = logging.getLogger(__name__)

# At the end of a run, for what is not delivered yet; with what the engine's CLI gets for its own,
# and on a busy machine, less than two are lost. The second where something went wrong before.
PATIENCE_S, DOUBTFUL_S = 0.5, 0.2
SIGNALS = ("TRACES", "METRICS")


class TelemetryReport:
    """Sends a span for the run, each stage and its tests, and metrics of the run, by OTLP over HTTP.

    Only where the standard variables name an endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`, or those of one
    signal), and neither `OTEL_SDK_DISABLED` nor `DO_NOT_TRACK` forbids it; the SDK is imported only
    then. What cannot be delivered is warned of once and harms nothing.

    Args:
        trace_id: Of the run's trace, where `TRACEPARENT` does not say which one it belongs to.
        span_ids: Gives the id of a stage's span by the stage's name, so that spans of others,
            like the engine's, can be below it.
        repository: URL of the git remote, where the CI host's variables do not tell.
        environ: The environment.
    """

    def __init__(
        self,
        *,
        trace_id: int,
        span_ids: Callable[[str], int],
        repository: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        # Taken now: Dagger's own switches are set in the environment later.
        self._environ = dict(os.environ if environ is None else environ)
        self._signals = signals(self._environ)
        self._trace_id = trace_id
        self._span_ids = span_ids
        self._repository = repository
        self._view = RunView()
        self._telemetry: Telemetry | None = None
        self._problems = _Problems(logging.WARNING)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if not self._signals:
            return
        self._view(event)
        match event:
            case RunStarted():
                self._open(event)
            case StageRetried() if self._telemetry:
                self._telemetry.retry(event)
            case StageFinished() if self._telemetry and event.stage in self._view.stages:
                self._telemetry.stage(self._view.stages[event.stage])
            case RunFinished() if self._telemetry:
                self._telemetry.finish(event, self._view)
                self._close(self._telemetry)

    def _open(self, started: RunStarted) -> None:
        # The SDK tells each failed try; here it is told once, at the end.
        sdk = logging.getLogger("opentelemetry")
        sdk.addHandler(self._problems)
        sdk.propagate = False
        try:
            from penstock.reports.otlp import Telemetry

            self._telemetry = Telemetry(
                started,
                self._signals,
                trace_id=self._trace_id,
                span_ids=self._span_ids,
                repository=self._repository,
                environ=self._environ,
            )
        except Exception as error:  # noqa: BLE001 - its settings are the environment's
            message = "WARNING: no telemetry is sent (%s: %s); see to the OTEL_ variables"
            logger.warning(message, type(error).__name__, error)

    def _close(self, telemetry: Telemetry) -> None:
        """Deliver the rest, in threads that end with the process if they are not done by then."""
        threads = [threading.Thread(target=end, daemon=True) for end in telemetry.ends]
        deadline = time.monotonic() + (DOUBTFUL_S if self._problems.seen else PATIENCE_S)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._problems.seen or any(thread.is_alive() for thread in threads):
            logger.warning(
                "WARNING: not all telemetry could be delivered, which changes nothing else; see to "
                "the OTEL_EXPORTER_OTLP_ variables and to what listens there"
            )


def signals(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return which of `TRACES` and `METRICS` are to be sent.

    Source: OpenTelemetry's environment variable specification.
    """
    if any(is_set(environ.get(name, "")) for name in ("OTEL_SDK_DISABLED", "DO_NOT_TRACK")):
        return ()
    wanted = []
    for signal in SIGNALS:
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        if not (own or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
            continue
        names = (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        protocol = next(filter(None, map(environ.get, names)), "http/protobuf")
        if protocol != "http/protobuf":
            message = "WARNING: %s are not sent: penstock speaks http/protobuf, not '%s'"
            logger.warning(message, signal.lower(), protocol)
        elif "otlp" in environ.get(f"OTEL_{signal}_EXPORTER", "otlp").split(","):
            wanted.append(signal)
    return tuple(wanted)


class _Problems(logging.Handler):
    """Remembers that something was logged, instead of showing it."""

    seen = False

    def emit(self, _record: logging.LogRecord) -> None:
        self.seen = True
