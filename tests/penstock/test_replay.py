from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.events import (
    Event,
    RunFinished,
    RunStarted,
    RunStopped,
    StageFinished,
    StageRetried,
    StagesAdded,
    StageStarted,
    Warned,
    from_dict,
    to_dict,
)
from penstock.model import Artifact, Attempt, Outcome, Result, Skip, Stage
from penstock.replay import read, replay
from penstock.runner import Runner, verdict
from tests.penstock.test_runner import ENDLESS, Case, Play, cases, parse

if TYPE_CHECKING:
    from pathlib import Path


def timeless(events: list[Event]) -> list[Event]:
    """Return what the scheduler decided: its events without times."""
    kept: list[Event] = []
    for event in events:
        match event:
            case StageFinished():
                tries = tuple(replace(tried, duration_s=0.0) for tried in event.outcome.attempts)
                ended = replace(event.outcome, duration_s=0.0, attempts=tries)
                kept.append(replace(event, outcome=ended, at_s=0.0))
            case StageRetried():
                tried = replace(event.attempt, duration_s=0.0)
                kept.append(replace(event, attempt=tried, delay_s=0.0, at_s=0.0))
            case StageStarted() | StagesAdded() | RunStopped():
                kept.append(replace(event, at_s=0.0))
    return kept


def record(play: Play, *, jobs: int | None = None, keep_going: bool = False) -> list[Event]:
    """Return the events of a run as they come back from a file."""
    anyio.run(lambda: play.run(jobs=jobs, keep_going=keep_going))
    stages = tuple(play.stages.values())
    started = RunStarted(
        pipeline="p",
        run_id="1",
        commit="c",
        started_at="t",
        stages=stages,
        reproduce="r",
        jobs=jobs,
        keep_going=keep_going,
    )
    return [from_dict(json.loads(json.dumps(to_dict(event)))) for event in (started, *play.log)]


@settings(max_examples=150, deadline=None)
@given(
    case=cases(),
    jobs=st.none() | st.integers(1, 3),
    keep_going=st.booleans(),
    at=st.none() | st.integers(1, 20),
    how=st.sampled_from([(Result.CANCELLATION, 130), (Result.ERROR, 4), (Result.TIMEOUT, 124)]),
)
def test_replay_decides_as_the_run_did(
    case: Case, jobs: int | None, keep_going: bool, at: int | None, how: tuple[Result, int]
) -> None:
    """The same events in the same order, and the same verdict, whatever stopped the run."""

    async def interrupting(play: Play) -> None:
        for _ in range(at or 0):
            await anyio.lowlevel.checkpoint()
        play.runner.stop(
            RunStopped(
                result=how[0],
                reason="stopped",
                exit_code=how[1],
                teardown_s=0.0 if at == 1 else 5.0,
            )
        )

    class Interrupted(Play):
        async def run(self, **options: Any) -> dict[str, Outcome]:  # noqa: ANN401 - of the runner
            async with anyio.create_task_group() as tasks:
                if at is not None:
                    tasks.start_soon(interrupting, self)
                await super().run(**options)
            return self.runner.outcomes

    play = Interrupted(*case)
    events = record(play, jobs=jobs, keep_going=keep_going)
    again = replay(events)
    assert timeless(again) == timeless(events)
    ended = verdict(play.runner.stages, play.runner.outcomes, play.runner.stops)
    last = again[-1]
    assert isinstance(last, RunFinished)
    assert (last.result, last.root, last.exit_code) == (ended.result, ended.root, ended.exit_code)


def test_found_out_stages_are_played_too() -> None:
    """What a stage found out stands in its recorded outcome."""
    found = (Stage(name="a[x]", family="a", needs=("a",)),)
    events: list[Event] = [
        RunStarted(
            pipeline="p",
            run_id="1",
            commit="c",
            started_at="t",
            stages=tuple(parse("a; b: a").values()),
            reproduce="r",
        ),
        StageStarted(stage="a"),
        StageFinished(stage="a", outcome=Outcome(result=Result.SUCCESS, spawned=found)),
        StagesAdded(stages=found),
        StageStarted(stage="a[x]"),
        StageFinished(stage="a[x]", outcome=Outcome(result=Result.SUCCESS)),
        StageStarted(stage="b"),
        StageFinished(stage="b", outcome=Outcome(result=Result.SUCCESS)),
    ]
    assert timeless(replay(events)) == timeless(events)


def test_record_that_a_crash_cut_short_is_played_as_far_as_it_goes(tmp_path: Path) -> None:
    """The last line is half, and the stage that ran has no end."""
    events = record(Play(parse("a; b: a")))
    lines = [json.dumps(to_dict(event)) for event in events[:4]]
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, '{"schema": "pen']))
    events = list(read(tmp_path / "events.jsonl"))
    again = replay(events)
    assert timeless(again) == timeless(events)
    assert isinstance(again[-1], RunFinished)
    assert timeless(replay(events[:1])) == []


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"schema": "penstock.events/99"}'])
def test_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    """A damaged record is no silent half of one."""
    good = json.dumps(to_dict(Warned(message="m")))
    (tmp_path / "events.jsonl").write_text(f"{good}\n{line}\n{good}")
    with pytest.raises(ValueError, match=r"events\.jsonl:2: "):
        list(read(tmp_path / "events.jsonl"))


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "does not say which stages there are"),
        ([StageFinished(stage="a", outcome=Outcome(result=Result.SUCCESS))], "which stages"),
    ],
)
def test_record_without_a_beginning_is_refused(events: list[Event], message: str) -> None:
    """Nothing can be played of it."""
    with pytest.raises(ValueError, match=message):
        replay(events)


def test_run_that_was_stopped_before_it_began_is_played_so() -> None:
    """Nothing starts in the replay either."""
    started = record(Play(parse("a; z(always): a")))[0]
    stop = RunStopped(result=Result.CANCELLATION, reason="interrupted", teardown_s=5.0)
    kinds = [type(event) for event in replay([started, stop])]
    assert kinds == [RunStopped, StageFinished, StageFinished, RunFinished]


def test_time_of_teardown_is_that_of_the_record() -> None:
    """What began too late for the run to start more is too late in the replay."""
    started = record(Play(parse("a; y(always): a; z(always): y")))[0]
    passed, cut = Outcome(result=Result.SUCCESS), Outcome(result=Result.CANCELLATION)
    stop = RunStopped(result=Result.CANCELLATION, reason="interrupted", teardown_s=5.0, at_s=1.0)
    events = [
        StageStarted(stage="a"),
        stop,
        StageFinished(stage="a", outcome=cut, at_s=2.0),
        StageStarted(stage="y", at_s=2.0),
        StageFinished(stage="y", outcome=passed, at_s=6.0),
    ]
    again = replay([started, *events])
    assert [event.stage for event in again if isinstance(event, StageStarted)] == ["a", "y"]


def test_record_that_cannot_be_is_refused() -> None:
    """A stage that ended before it could begin is a record that somebody changed."""
    events = record(Play(parse("a; b: a")))
    with pytest.raises(ValueError, match="'b' ended, and it cannot have begun by then"):
        replay([events[0], *events[3:]])


def test_every_field_survives_the_file() -> None:
    """What is written comes back as it was, values that only live in memory apart."""
    outcome = Outcome(
        result=Result.ERROR,
        reason="service 'db' died",
        fault="service",
        exit_code=9,
        duration_s=1.5,
        attempts=(Attempt(result=Result.ERROR, reason="r", fault="service", duration_s=0.5),),
        artifacts=(Artifact("a.xml", 3),),
        spawned=(Stage(name="x", skip=Skip(reason="s"), retry_on=("engine", 75)),),
        value=object(),
    )
    event = StageFinished(stage="a", outcome=outcome, at_s=2.0)
    assert from_dict(json.loads(json.dumps(to_dict(event)))) == event


def test_endless_stage_is_cut_in_the_replay_as_in_the_run() -> None:
    """A deadline or an interrupt that ended a stage ends it again."""

    def interrupt(runner: Runner, event: Event) -> None:
        if isinstance(event, StageStarted):
            runner.stop(RunStopped(result=Result.CANCELLATION, reason="interrupted", exit_code=130))

    play = Play(parse("a; b: a"), turns={"a": ENDLESS}, on=interrupt)
    events = record(play)
    assert timeless(replay(events)) == timeless(events)
