"""The one stream of typed events from which everything visible is made.

The runner, the services and the session only emit; console, record and reports only listen.
Every string passes the redactor here, so that no listener ever holds a secret.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from penstock.evidence import FileCoverage, TestCase
from penstock.model import Attempt, Outcome, Result, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cattrs import Converter

    from penstock.redact import Redactor

logger = logging.getLogger(__name__)
T = TypeVar("T")

SCHEMA = "penstock.events/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened.

    Args:
        at_s: Seconds since the run began, from the monotonic clock; set by the stream.
    """

    at_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """An earlier run of the same pipeline in this checkout.

    Args:
        started_at: When, in ISO 8601.
        result: How it ended.
        duration_s: Wall time.
        commit: What was under test.
    """

    started_at: str
    result: Result
    duration_s: float
    commit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The plan stands; nothing runs yet.

    `environment` are pairs of names and values for people; `history` is oldest first.
    """

    pipeline: str
    run_id: str
    commit: str
    started_at: str
    stages: tuple[Stage, ...]
    reproduce: str
    jobs: int | None = None
    keep_going: bool = False
    branch: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    history: tuple[PastRun, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopped(Event):
    """Nothing more starts but teardown stages, and what runs is cut short.

    Args:
        result: `failure`, `error`, `timeout` or `cancellation`.
        reason: In words.
        root: The stage at fault.
        exit_code: Of the run, where it does not follow from the results of stages.
        grace_s: How long what runs may still take.
        teardown_s: What teardown stages get, all together; `None` leaves them what they had.
    """

    result: Result
    reason: str
    root: str = ""
    exit_code: int = 0
    grace_s: float = 0.0
    teardown_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConnected(Event):
    """The engine answers."""

    version: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePrepared(Event):
    """A prepared container is there: pulled from the team's cache, or made for it."""

    base: str
    is_pulled: bool
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
class EarlyBegun(Event):
    """The work of a stage is begun before all that it needs has passed: `--speculate`."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyDropped(Event):
    """What was begun early of a stage is thrown away.

    Args:
        stage: Of which.
        reason: In words: `test failed`.
    """

    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    """All that a stage needs has passed, and it runs."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputWritten(Event):
    """A stage or a service printed something.

    Args:
        stage: Whose, unless it is a service's.
        service: Whose, unless it is a stage's.
        text: Whole lines, but for the last one of a program that ended without a line feed.
    """

    stage: str = ""
    service: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityChanged(Event):
    """The engine does something for a stage or a service that prints nothing, like a pull.

    Args:
        stage: For which stage, or
        service: for which service.
        what: In words: `pulling postgres:15-alpine`; empty when it is over.
    """

    stage: str = ""
    service: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestsRead(Event):
    """Tests of a stage, from its JUnit report; many come in several events."""

    __test__ = False

    stage: str
    cases: tuple[TestCase, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRead(Event):
    """What a stage's coverage report says; many files come in several events.

    Args:
        stage: Whose.
        percent: Of everything.
        threshold: Least percent that was asked for, if any was.
        files: Each file.
    """

    stage: str
    percent: float
    threshold: float | None = None
    files: tuple[FileCoverage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRetried(Event):
    """An attempt failed, and another one follows after a while."""

    stage: str
    attempt: Attempt
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesAdded(Event):
    """A stage found out what else there is to do."""

    stages: tuple[Stage, ...]


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
    """The verdict; `warnings` are the stages whose failure is allowed."""

    result: Result
    reason: str
    exit_code: int
    duration_s: float
    root: str = ""
    warnings: tuple[str, ...] = ()


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
    return _mapped(value, mask)  # type: ignore[no-any-return]  # the shape is kept by construction


def _mapped(value: Any, mask: Callable[[str], str]) -> Any:  # noqa: ANN401 - any value
    match value:
        case Enum():
            return value
        case str():
            return mask(value)
        case tuple():
            return tuple(_mapped(item, mask) for item in value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes = {name: _mapped(getattr(value, name), mask) for name in _recorded(type(value))}
            return dataclasses.replace(value, **changes)
    return value


def to_dict(event: Event) -> dict[str, Any]:
    """Return the JSON form of an event."""
    content: dict[str, Any] = plain(event)
    return {"schema": SCHEMA, "event": _NAMES[type(event)], **content}


def from_dict(content: Mapping[str, Any]) -> Event:
    """Return the event of a JSON form; fields that are not known here are left out.

    Raises:
        ValueError: When it is no event of this schema.
    """
    from cattrs import BaseValidationError

    kinds = {name: kind for kind, name in _NAMES.items()}
    try:
        if content["schema"] == SCHEMA:
            return _converter().structure(content, kinds[content["event"]])
    except (BaseValidationError, KeyError, TypeError) as error:
        message = f"no event of {SCHEMA}: {error}"
        raise ValueError(message) from error
    message = f"schema {content['schema']} is not {SCHEMA}"
    raise ValueError(message)


@functools.cache
def _converter() -> Converter:
    from cattrs import Converter
    from cattrs.strategies import configure_union_passthrough

    converter = Converter()
    configure_union_passthrough(str | int | None, converter)
    return converter


def plain(value: Any) -> Any:  # noqa: ANN401 - any value
    """Return what JSON knows of a value: dataclasses as objects, times to the microsecond."""
    match value:
        case tuple():
            return [plain(item) for item in value]
        case float():
            return round(value, 6)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {name: plain(getattr(value, name)) for name in _recorded(type(value))}
    return value


@functools.cache
def _recorded(kind: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind) if f.metadata.get("recorded", True))


_NAMES: dict[type[Event], str] = {
    kind: re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in Event.__subclasses__()
}
