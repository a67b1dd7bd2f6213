"""What is asked again unasked, and what never is; the engine's answers are made up here."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import dagger
import pytest
from dagger._exceptions import QueryErrorValue

from penstock import Pipeline
from penstock.again import MOST, patience, patiently
from penstock.config import RunInfo
from penstock.errors import RegistryError
from penstock.events import StageRetried
from penstock.execute import Executor
from penstock.live import Live
from penstock.redact import Redactor
from penstock.runner import Runner
from penstock.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.events import Event
    from penstock.model import Attempt

DOWN = (
    'failed to resolve image "h:1/x:1": failed to do request: Head "http://h:1/v2/x/manifests/1": '
    "dial tcp: connect: connection refused"
)


@dataclass
class Asked:
    """A request that is answered by each of some errors, then by a word."""

    errors: list[Exception]
    times: int = 0
    tried: list[Attempt] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    async def __call__(self) -> str:
        self.times += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def tell(self, attempt: Attempt, delay_s: float) -> None:
        self.tried.append(attempt)
        self.waits_s.append(delay_s)


def refused(words: str = DOWN, **extensions: Any) -> dagger.QueryError:  # noqa: ANN401 - JSON
    request: Any = SimpleNamespace(document=None)
    return dagger.QueryError([QueryErrorValue(words, extensions=extensions)], request)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which take no time here."""
    waits_s: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits_s.append(delay_s)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return waits_s


async def test_registry_is_asked_again_and_every_try_is_told(slept: list[float]) -> None:
    """With a growing wait, of less than eight seconds in all, and the reason in words."""
    asked = Asked([refused(), RegistryError("it answers 503"), refused(), refused()])
    with patience(asked.tell):
        assert await patiently(asked) == "answer"
    assert [attempt.fault for attempt in asked.tried] == ["registry"] * MOST
    assert asked.tried[0].reason.startswith("cannot pull h:1/x:1: registry h:1: nobody listens")
    assert asked.tried[1].reason == "it answers 503"
    assert slept == asked.waits_s == sorted(slept)
    assert sum(slept) < 8


async def test_tries_are_counted_for_the_whole_of_a_stage(slept: list[float]) -> None:
    """Ten images that cannot be pulled take no longer than one."""
    first, second = Asked([refused()] * 3), Asked([refused()] * 3)
    with patience(first.tell):
        await patiently(first)
        with pytest.raises(dagger.QueryError):
            await patiently(second)
    assert (first.times, second.times, len(slept)) == (4, 2, MOST)


@pytest.mark.parametrize(
    "error",
    [
        refused(DOWN, _type="EXEC_ERROR", cmd=["x"], exitCode=1, stdout="", stderr=""),
        refused(f"{DOWN}: no such host".replace("connection refused", "")),
        refused("stat: engine is tired"),
        RegistryError("it says no", None),
    ],
    ids=["command", "in vain", "engine", "no"],
)
async def test_what_is_no_fault_of_a_registry_is_asked_once(
    error: Exception, slept: list[float]
) -> None:
    """A command that failed first of all, whatever it printed."""
    asked = Asked([error])
    with patience(asked.tell), pytest.raises(type(error)):
        await patiently(asked)
    assert (asked.times, asked.tried, slept) == (1, [], [])


async def test_outside_of_a_stage_nothing_is_asked_again(slept: list[float]) -> None:
    """Nobody would be told."""
    asked = Asked([refused()])
    with pytest.raises(dagger.QueryError):
        await patiently(asked)
    assert (asked.times, slept) == (1, [])


@pytest.mark.parametrize(
    ("options", "is_patient", "times", "tried"),
    [({}, True, 2, 1), ({}, False, 1, 0), ({"retries": 0}, True, 1, 0)],
)
async def test_code_of_a_stage_runs_once_whatever_a_registry_does(
    tmp_path: Path,
    slept: list[float],
    options: Any,  # noqa: ANN401 - of a stage
    *,
    is_patient: bool,
    times: int,
    tried: int,
) -> None:
    """Only what is ours in it is asked again, and where `retries` is given not even that."""
    pipeline, asked, notified = Pipeline("demo", root=tmp_path), Asked([refused()]), []

    @pipeline.stage(**options)
    async def release() -> str:
        notified.append("a mail")
        return await (patiently(asked) if is_patient else asked())

    run = RunInfo(id="0f", root=tmp_path, commit="", branch="")
    redactor = Redactor()
    live = Live(run.id, lambda _: None, redactor)
    nothing: Any = None  # of the engine is asked
    stages = pipeline.check()
    execute = Executor(pipeline, stages, run, nothing, State(tmp_path), redactor, live, {})
    retried: list[Event] = []
    outcomes = await Runner(stages.values(), execute, emit=retried.append).run()
    ended = outcomes["release"]
    assert (notified, asked.times, len(ended.attempts)) == (["a mail"], times, tried)
    assert ended.passed is (times == 2)
    assert sum(isinstance(event, StageRetried) for event in retried) == tried == len(slept)
