"""The one stream of typed events from which everything visible is made.

The runner, the services and the session only emit; console, record and reports only listen.
Every string passes the redactor here, so that no listener ever holds a secret.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from penstock.model import Artifact, Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.redact import Redactor

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened.

    Args:
        at_s: Seconds since the run began, from the monotonic clock; set by the stream.
    """

    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a listener needs to know of a stage before it starts."""

    name: str
    title: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The plan stands; nothing runs yet."""

    pipeline: str
    run_id: str
    commit: str
    started_at: str
    stages: tuple[StagePlan, ...]
    reproduce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConnected(Event):
    """The engine answers."""

    version: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePrepared(Event):
    """What a service needs before it can start is there: its image, its schema."""

    service: str
    what: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStarted(Event):
    """A service is healthy."""

    service: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFailed(Event):
    """A service could not be made, died or never became healthy."""

    service: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStopped(Event):
    """Nothing of a service is left."""

    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    """All that a stage needs has passed, and it runs."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished(Event):
    """A stage came to its one result."""

    stage: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something that the user should know and that stops nothing."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The verdict."""

    result: Result
    reason: str
    exit_code: int
    duration_s: float


class Listener(Protocol):
    """Anything that makes something visible from events."""

    def __call__(self, event: Event, /) -> None:
        """Take one event; an exception silences this listener and harms nothing else."""


class EventStream:
    """Stamps, redacts and hands each event to every listener, in order.

    Args:
        redactor: Masks every string of every event.
        listeners: Called one after the other.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        redactor: Redactor,
        listeners: Sequence[Listener],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redactor = redactor
        self._listeners = list(listeners)
        self._clock = clock
        self._zero = clock()

    def listen(self, listener: Listener) -> None:
        """Add a listener, behind those that are there."""
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        """Send an event to every listener."""
        stamped = dataclasses.replace(event, at_s=round(self._clock() - self._zero, 6))
        clean = masked(stamped, self._redactor.mask)
        for listener in tuple(self._listeners):
            try:
                listener(clean)
            except Exception:
                # A full disk must not turn a green run red: the run goes on without this output.
                logger.exception("%s failed and is silent from here on", type(listener).__name__)
                self._listeners.remove(listener)


def masked(value: T, mask: Callable[[str], str]) -> T:
    """Return the value with every string in it masked, whatever its depth."""
    return _masked(value, mask)  # type: ignore[no-any-return]  # the shape is kept by construction


def _masked(value: Any, mask: Callable[[str], str]) -> Any:  # noqa: ANN401 - any value
    match value:
        case Result():
            return value
        case str():
            return mask(value)
        case tuple():
            return tuple(_masked(item, mask) for item in value)
        case Outcome() | Artifact() | StagePlan() | Event():
            changes = {
                field.name: _masked(getattr(value, field.name), mask)
                for field in dataclasses.fields(value)
                if field.name != "value"
            }
            return dataclasses.replace(value, **changes)
    return value
