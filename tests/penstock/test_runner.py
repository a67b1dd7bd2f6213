from __future__ import annotations

import dataclasses
import itertools
import random
import re
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.events import (
    Event,
    EventStream,
    RunStopped,
    StageFinished,
    StageRetried,
    StagesAdded,
    StageStarted,
)
from penstock.model import Attempt, Outcome, Result, Skip, Stage
from penstock.redact import Redactor
from penstock.runner import Runner, Verdict, backoff_s, verdict, warnings
from penstock.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.model import Fault
    from penstock.runner import Tried

WORDS = {
    "pass": Result.SUCCESS,
    "fail": Result.FAILURE,
    "error": Result.ERROR,
    "timeout": Result.TIMEOUT,
    "cancel": Result.CANCELLATION,
    "skip": Result.SKIP,
}
LETTERS = {result: word for word, result in WORDS.items()}
SLOW = 40  # turns of the event loop that a slow stage takes
ENDLESS = -1
OPTIONS: dict[str, dict[str, Any]] = {
    "gate": {"gate": True},
    "maybe": {"allow_failure": True},
    "always": {"always": True},
    "off": {"skip": Skip(reason="not on branch main")},
    "idle": {"skip": Skip(reason="nothing changed in a/**", holds=False)},
    "retry": {"retries": 2},
    "retry75": {"retries": 2, "retry_on": (75,)},
    "lock": {"uses": ("registry",)},
    "short": {"deadline_s": 0.02},
}


def parse(text: str) -> dict[str, Stage]:
    """Read stages written as `c(maybe): a b*`: c may fail, needs a and b, and takes b's result."""
    stages = []
    for line in text.split(";"):
        head, _, needs = line.partition(":")
        name, *options = re.findall(r"\w+", head)
        words = needs.split()
        given: dict[str, Any] = {}
        for option in options:
            given |= OPTIONS[option]
        names = tuple(word.rstrip("*") for word in words)
        takes = tuple(word.rstrip("*") for word in words if word.endswith("*"))
        stages.append(Stage(name=name, family=name, needs=names, takes=takes, **given))
    return {stage.name: stage for stage in stages}


def outcome(word: str) -> Outcome:
    """Return an outcome: `fail`, `fail75` (an exit code) or `error-service` (a fault)."""
    kind, _, last = word.partition("-")
    faults: dict[str, Fault] = {"engine": "engine", "registry": "registry", "service": "service"}
    code = kind.lstrip("abcdefghijklmnopqrstuvwxyz")
    return Outcome(
        result=WORDS[kind.removesuffix(code)],
        reason=word,
        exit_code=int(code) if code else None,
        fault=faults.get(last),
    )


@dataclass
class Play:
    """Plays stages whose work ends as scripted, and keeps what happened.

    Args:
        stages: As `parse` reads them.
        script: For a stage how its attempts end, `fail pass`; by default it passes.
        turns: How many turns of the event loop its work takes; by default one.
    """

    stages: Mapping[str, Stage]
    script: Mapping[str, str] = field(default_factory=dict)
    turns: Mapping[str, int] = field(default_factory=dict)
    on: Callable[[Runner, Event], None] = lambda _runner, _event: None
    log: list[Event] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    most: int = 0

    def __post_init__(self) -> None:
        self.runner: Runner

    def __call__(self, event: Event) -> None:
        self.log.append(event)
        if isinstance(event, StageStarted):
            self.running.add(event.stage)
            self.most = max(self.most, len(self.running))
        elif isinstance(event, StageFinished):
            self.running.discard(event.stage)
        self.on(self.runner, event)

    async def execute(
        self,
        stage: Stage,
        needed: Mapping[str, Outcome],
        *,
        attempt: int,
        deadline_s: float,
        tried: Tried,
    ) -> Outcome:
        assert deadline_s >= 0
        assert set(needed) == set(self.runner.stages[stage.name].needs)
        turns = self.turns.get(stage.name, 1)
        if turns == ENDLESS:
            await anyio.sleep_forever()
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        words = self.script.get(stage.name, "pass").split()
        word = words[min(attempt, len(words)) - 1]
        for _ in range(word.count("+")):
            tried(Attempt(result=Result.ERROR, reason="asked again", fault="registry"), 0.0)
        return outcome(word.rstrip("+"))

    async def run(self, **options: Any) -> dict[str, Outcome]:  # noqa: ANN401 - of the runner
        stages = self.stages.values()
        options = {"delay_s": lambda _before: 0.0} | options
        self.runner = Runner(stages, self.execute, emit=self, **options)
        with anyio.fail_after(10):
            return await self.runner.run()

    def started(self) -> list[str]:
        return [event.stage for event in self.log if isinstance(event, StageStarted)]


def results(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    return {
        name: "allowed" if o.allowed else LETTERS[o.result] for name, o in sorted(outcomes.items())
    }


def expected(text: str) -> dict[str, str]:
    """Read `a=pass b=skip`."""
    return dict(sorted((word.split("=")[0], word.split("=")[1]) for word in text.split()))


CHAIN = "a; b: a; c: b; d: c"
DIAMOND = "a; b: a; c: a; d: b c"
PAIR = "a; b"

# Stages, how they end (slow: takes long), options of the run, what becomes of them, exit code.
TABLE = [
    # Chains and diamonds.
    (CHAIN, "", "", "a=pass b=pass c=pass d=pass", 0),
    (CHAIN, "a=fail", "", "a=fail b=skip c=skip d=skip", 1),
    (CHAIN, "b=fail", "", "a=pass b=fail c=skip d=skip", 1),
    (CHAIN, "d=fail", "", "a=pass b=pass c=pass d=fail", 1),
    (CHAIN, "b=error", "", "a=pass b=error c=skip d=skip", 4),
    (CHAIN, "b=timeout", "", "a=pass b=timeout c=skip d=skip", 1),
    (DIAMOND, "", "", "a=pass b=pass c=pass d=pass", 0),
    (DIAMOND, "", "-j1", "a=pass b=pass c=pass d=pass", 0),
    (DIAMOND, "b=fail c=slow", "", "a=pass b=fail c=cancel d=skip", 1),
    (DIAMOND, "b=fail c=slow", "keep", "a=pass b=fail c=pass d=skip", 1),
    (DIAMOND, "b=fail", "-j1", "a=pass b=fail c=skip d=skip", 1),
    (DIAMOND, "b=fail", "keep -j1", "a=pass b=fail c=pass d=skip", 1),
    # What stands beside a failure.
    (PAIR, "a=fail b=slow", "", "a=fail b=cancel", 1),
    (PAIR, "a=fail b=slow", "keep", "a=fail b=pass", 1),
    (PAIR, "a=fail b=error", "keep", "a=fail b=error", 4),
    (PAIR, "a=timeout b=slow", "", "a=timeout b=cancel", 1),
    ("a; b; c: b", "a=fail b=slow", "", "a=fail b=cancel c=skip", 1),
    # Allowed failures.
    ("a(maybe); b: a", "a=fail", "", "a=allowed b=pass", 0),
    ("a(maybe); b: a*", "a=fail", "", "a=allowed b=skip", 5),
    ("a(maybe); b", "a=fail b=slow", "", "a=allowed b=pass", 0),
    ("a(maybe); b", "a=error", "", "a=allowed b=pass", 0),
    ("a(maybe); b", "a=timeout", "", "a=allowed b=pass", 0),
    ("a(maybe)", "a=fail", "", "a=allowed", 5),
    ("a(maybe)", "", "", "a=pass", 5),
    ("a(maybe); b: a", "a=fail b=fail", "", "a=allowed b=fail", 1),
    # Skipped by decision: what may not run holds back, what has nothing to do does not.
    ("a(off); b: a; c", "", "", "a=skip b=skip c=pass", 0),
    ("a(idle); b: a", "", "", "a=skip b=pass", 0),
    ("a(idle); b: a*; c: b", "", "", "a=skip b=skip c=skip", 5),
    ("a(idle gate); b: a; c", "", "", "a=skip b=skip c=pass", 0),
    ("a(off); b: a; c: b; d", "", "", "a=skip b=skip c=skip d=pass", 0),
    ("a(off); b(off)", "", "", "a=skip b=skip", 5),
    ("a(off); b(idle): a; c: b; d", "", "", "a=skip b=skip c=skip d=pass", 0),
    # Teardown stages.
    ("a; z(always): a", "", "", "a=pass z=pass", 0),
    ("a; z(always): a", "a=fail", "", "a=fail z=pass", 1),
    ("a; z(always): a", "z=fail", "", "a=pass z=fail", 1),
    ("a; z(always): a", "a=fail z=error", "", "a=fail z=error", 1),
    ("a; b: a; z(always): b", "a=fail", "", "a=fail b=skip z=pass", 1),
    ("a; z(always): a*", "a=fail", "", "a=fail z=skip", 1),
    ("a; b: a; z(always): a*", "a=fail", "", "a=fail b=skip z=skip", 1),
    ("a; b; z(always): a* b", "a=fail b=slow", "", "a=fail b=cancel z=skip", 1),
    ("a; b; z(always): a* b", "a=fail", "-j1", "a=fail b=skip z=skip", 1),
    ("a; b; z(always): b", "a=fail b=slow", "", "a=fail b=cancel z=pass", 1),
    ("a; y(always): a; z(always): y", "a=fail y=fail", "", "a=fail y=fail z=pass", 1),
    ("a; b; c; d; z(always)", "a=fail", "-j1", "a=fail b=skip c=skip d=skip z=pass", 1),
    ("a(off); z(always): a", "", "", "a=skip z=pass", 5),
    ("a; z(always maybe): a", "z=fail", "", "a=pass z=allowed", 0),
    # Retries, by class only.
    ("a(retry); b: a", "a=error-service,pass", "", "a=pass b=pass", 0),
    ("a(retry)", "a=error-engine,error-registry,pass", "", "a=pass", 0),
    ("a(retry)", "a=error-service", "", "a=error", 4),
    ("a(retry)", "a=fail1,pass", "", "a=fail", 1),
    ("a(retry)", "a=timeout,pass", "", "a=timeout", 1),
    ("a(retry75)", "a=fail75,pass", "", "a=pass", 0),
    ("a(retry75)", "a=fail75", "", "a=fail", 1),
    ("a(retry75)", "a=error-service,pass", "", "a=error", 4),
    ("a(retry maybe); b", "a=error-service", "", "a=allowed b=pass", 0),
    # Locks.
    ("a(lock); b(lock); c: a b", "", "", "a=pass b=pass c=pass", 0),
    ("a(lock); b(lock)", "a=fail", "keep", "a=fail b=pass", 1),
]


@pytest.mark.parametrize(("text", "script", "options", "ends", "exit_code"), TABLE)
async def test_results_follow_from_the_graph(
    text: str, script: str, options: str, ends: str, exit_code: int
) -> None:
    """Each graph with its faults leads to exactly these results and this exit code."""
    ways = dict(word.split("=") for word in script.split())
    play = Play(
        parse(text),
        {n: w.replace(",", " ") for n, w in ways.items() if w != "slow"},
        {n: SLOW for n, w in ways.items() if w == "slow"},
    )
    jobs = 1 if "-j1" in options else None
    outcomes = await play.run(jobs=jobs, keep_going="keep" in options)
    assert results(outcomes) == expected(ends)
    assert {"skip"}.isdisjoint(expected(ends)[name] for name in play.started())
    assert verdict(play.stages, outcomes, play.runner.stops).exit_code == exit_code


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    ("moment", "ends"),
    [
        (("started", "a"), "a=cancel b=cancel c=cancel y=pass z=pass"),
        (("finished", "a"), "a=pass b=cancel c=cancel y=pass z=pass"),
        (("started", "b"), "a=pass b=cancel c=cancel y=pass z=pass"),
        (("finished", "b"), "a=pass b=pass c=cancel y=pass z=pass"),
        (("started", "c"), "a=pass b=pass c=cancel y=pass z=pass"),
        (("started", "y"), "a=pass b=pass c=cancel y=pass z=pass"),
        (("finished", "y"), "a=pass b=pass c=cancel y=pass z=pass"),
        (("finished", "c"), "a=pass b=pass c=pass y=pass z=pass"),
        (("started", "z"), "a=pass b=pass c=pass y=pass z=pass"),
        (("finished", "z"), "a=pass b=pass c=pass y=pass z=pass"),
    ],
)
async def test_interrupt_at_each_moment(moment: tuple[str, str], ends: str) -> None:
    """What had ended stands, what runs is cancelled, nothing starts but teardown, exit 130."""
    kinds = {"started": StageStarted, "finished": StageFinished}

    def interrupt(runner: Runner, event: Event) -> None:
        if type(event) is kinds[moment[0]] and getattr(event, "stage", "") == moment[1]:
            runner.stop(
                RunStopped(
                    result=Result.CANCELLATION,
                    reason="interrupted by SIGINT",
                    exit_code=130,
                    teardown_s=5,
                )
            )

    play = Play(
        parse("a; b: a; c: b; y(always): b; z(always): c y"),
        turns={"a": 5, "b": 5, "c": SLOW, "y": 5, "z": 5},
        on=interrupt,
    )
    outcomes = await play.run()
    assert results(outcomes) == expected(ends)
    ended = verdict(play.stages, outcomes, play.runner.stops)
    assert (ended.result, ended.exit_code) == (Result.CANCELLATION, 130)


async def test_skip_and_cancel_name_the_root_cause() -> None:
    """Three levels below, and beside it, people read which stage is at fault."""
    play = Play(parse(f"{CHAIN}; beside"), {"a": "fail"}, {"beside": ENDLESS})
    outcomes = await play.run()
    assert {outcomes[name].reason for name in ("b", "c", "d", "beside")} == {"because a failed"}
    assert {outcomes[name].root for name in ("b", "c", "d", "beside")} == {"a"}


async def test_failure_stops_the_run_once() -> None:
    """The record has one stop, which names the first failure and sets no exit code of its own."""
    play = Play(parse(f"{PAIR}; z(always): a"), {"a": "fail", "b": "fail", "z": "fail"})
    await play.run()
    stops = [event for event in play.log if isinstance(event, RunStopped)]
    assert stops == [RunStopped(result=Result.FAILURE, reason="because a failed", root="a")]


@pytest.mark.fault(19)
async def test_teardown_that_lacks_what_it_takes_is_never_started() -> None:
    """Also when the last of its other needs is only skipped by the stop."""
    play = Play(parse("a; b; z(always): a* b"), {"a": "fail"})
    assert (await play.run(jobs=1))["z"].reason == (
        "because it takes the result of a, which failed"
    )
    assert play.started() == ["a"]


@pytest.mark.fault(19)
async def test_missing_result_is_named_with_its_root() -> None:
    """Who would run otherwise reads which result is missing, and why that one is."""
    play = Play(parse("a; b: a; z(always): b*; y(always): b"), {"a": "fail"})
    outcomes = await play.run()
    assert outcomes["z"].reason == "because it takes the result of b, and a failed"
    assert (outcomes["z"].root, outcomes["y"].passed) == ("a", True)


async def test_skip_behind_a_skipped_stage_says_so() -> None:
    """The reason stands once, at the stage that has it; what is behind names that stage."""
    outcomes = await Play(parse("a(off); b: a; c: b")).run()
    reasons = [outcomes[name].reason for name in ("a", "b", "c")]
    assert reasons == ["not on branch main", "because a was skipped", "because a was skipped"]


async def test_dependants_are_given_what_their_needs_handed_on() -> None:
    """A stage sees the outcomes of its needs and of nothing else."""
    seen: dict[str, list[str]] = {}

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        seen[stage.name] = [f"{name}={outcome.value}" for name, outcome in needed.items()]
        return Outcome(result=Result.SUCCESS, value=stage.name.upper())

    await Runner(parse(DIAMOND).values(), execute, emit=lambda _: None).run()
    assert seen["d"] == ["b=B", "c=C"]


async def test_stages_without_common_needs_run_side_by_side() -> None:
    """Two stages that wait for each other both end: neither waits for a whole wave."""
    met = {"b": anyio.Event(), "c": anyio.Event()}

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        del needed
        if stage.name in met:
            met[stage.name].set()
            await met["c" if stage.name == "b" else "b"].wait()
        return Outcome(result=Result.SUCCESS)

    with anyio.fail_after(5):
        runner = Runner(parse(DIAMOND).values(), execute, emit=lambda _: None)
        assert (await runner.run())["d"].passed


async def test_longest_way_goes_first() -> None:
    """With one place, what has the most known time behind it starts; then the author's order."""
    stages = parse("a; b; c; d: b; e: d")
    stages |= {
        name: dataclasses.replace(stages[name], expected_s=took)
        for name, took in {"a": 3.0, "b": 1.0, "d": 1.0, "e": 1.5}.items()
    }
    play = Play(stages)
    await play.run(jobs=1)
    assert play.started() == ["b", "a", "d", "e", "c"]
    unknown = Play(parse("c; b; a"))
    await unknown.run(jobs=1)
    assert unknown.started() == ["c", "b", "a"]


async def test_locks_keep_their_holders_apart_and_nobody_else() -> None:
    """Two that use the registry never run at once; a third beside them does."""
    together: list[set[str]] = []
    play = Play(parse("a(lock); b(lock); c"), turns={"a": 5, "b": 5, "c": SLOW})
    play.on = lambda _runner, _event: together.append(set(play.running))
    await play.run()
    assert {"a", "b"} not in [running & {"a", "b"} for running in together]
    assert any({"b", "c"} <= running for running in together)
    assert play.started() == ["a", "c", "b"]


@pytest.mark.fault(21)
async def test_every_attempt_is_kept() -> None:
    """The record has the failed attempts, oldest first, and an event for each."""
    play = Play(parse("a(retry)"), {"a": "error-service error-registry pass"})
    ended = (await play.run())["a"]
    assert [attempt.fault for attempt in ended.attempts] == ["service", "registry"]
    retried = [event for event in play.log if isinstance(event, StageRetried)]
    assert [event.attempt for event in retried] == list(ended.attempts)
    assert ended.passed


async def test_what_work_tries_again_by_itself_is_no_attempt_that_counts() -> None:
    """It is kept in order with the others, and takes none of `retries` away."""
    play = Play(parse("a(retry)"), {"a": "error-service++ error-engine+ pass"})
    ended = (await play.run())["a"]
    kept = [attempt.fault for attempt in ended.attempts]
    assert kept == ["registry", "registry", "service", "registry", "engine"]
    retried = [event for event in play.log if isinstance(event, StageRetried)]
    assert [event.attempt for event in retried] == list(ended.attempts)
    assert ended.passed


async def test_attempt_keeps_what_its_class_was_read_from() -> None:
    """Result, reason and exit code of a failed try are those that it had."""
    (tried,) = (await Play(parse("a(retry75)"), {"a": "fail75 pass"}).run())["a"].attempts
    assert (tried.result, tried.reason, tried.exit_code) == (Result.FAILURE, "fail75", 75)


async def test_attempts_wait_longer_each_time() -> None:
    """The wait doubles, is bounded, and two stages do not come back at the same moment."""
    waits: list[int] = []

    def delay_s(before: int) -> float:
        waits.append(before)
        return 0.0

    await Play(parse("a(retry)"), {"a": "error-service"}).run(delay_s=delay_s)
    assert waits == [1, 2]
    assert all(0.25 <= backoff_s(1) <= 0.5 for _ in range(50))
    assert all(1.0 <= backoff_s(3) <= 2.0 for _ in range(50))
    assert all(15.0 <= backoff_s(50) <= 30.0 for _ in range(50))
    assert len({backoff_s(1) for _ in range(5)}) > 1


def test_longest_wait_is_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """It doubles from half a second up to that, and chance takes off half of it at most."""
    monkeypatch.setattr("random.uniform", lambda _low, high: high)
    assert [backoff_s(before) for before in (1, 2, 6, 7, 50)] == [0.5, 1.0, 16.0, 30.0, 30.0]
    monkeypatch.setattr("random.uniform", lambda low, _high: low)
    assert backoff_s(1) == 0.25


async def test_attempts_wait_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing of delays gets those that grow, and they are kept."""
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(anyio, "sleep", sleep)
    monkeypatch.setattr("penstock.runner.backoff_s", lambda before: before / 1000)
    play = Play(parse("a(retry)"), {"a": "error-service"})
    await play.run(delay_s=None)
    delays = [event.delay_s for event in play.log if isinstance(event, StageRetried)]
    assert delays == slept == [0.001, 0.002]


async def test_stage_that_was_told_to_end_is_not_tried_again() -> None:
    """What fails within the grace of a stop stays failed, whatever its class."""

    def interrupt(runner: Runner, event: Event) -> None:
        if isinstance(event, StageStarted):
            runner.stop(
                RunStopped(
                    result=Result.CANCELLATION, reason="interrupted", exit_code=130, grace_s=5.0
                )
            )

    play = Play(parse("a(retry)"), {"a": "error-service pass"}, on=interrupt)
    ended = (await play.run())["a"]
    assert (ended.result, ended.attempts) == (Result.ERROR, ())


async def test_interrupt_while_waiting_for_another_attempt_ends_it() -> None:
    """A stage that waits to be tried again is cancelled like one that runs."""

    def interrupt(runner: Runner, event: Event) -> None:
        if isinstance(event, StageRetried):
            runner.stop(RunStopped(result=Result.CANCELLATION, reason="interrupted", exit_code=130))

    play = Play(parse("a(retry)"), {"a": "error-service"}, on=interrupt)
    ended = (await play.run(delay_s=lambda _before: 60.0))["a"]
    assert (ended.result, len(ended.attempts)) == (Result.CANCELLATION, 1)


async def test_stages_found_out_run_before_what_needs_their_finder() -> None:
    """They are announced, run side by side, and hold back what needs the stage that found them."""
    found = tuple(Stage(name=f"a[{n}]", family="a", needs=("a",)) for n in ("x", "y"))
    seen: list[list[str]] = []

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        if stage.name == "b":
            seen.append(list(needed))
        if stage.name == "a[y]":
            return outcome("fail")
        return Outcome(result=Result.SUCCESS, spawned=found if stage.name == "a" else ())

    log: list[Event] = []
    runner = Runner(parse("a; b: a*; c(always): a").values(), execute, emit=log.append)
    outcomes = await runner.run()
    assert results(outcomes) == expected("a=pass a[x]=pass a[y]=fail b=skip c=pass")
    assert [event.stages for event in log if isinstance(event, StagesAdded)] == [found]
    assert outcomes["b"].reason == "because a[y] failed"
    assert runner.stages["b"].takes == ("a", "a[x]", "a[y]")
    assert seen == []


async def test_stages_found_out_hand_on_what_they_made() -> None:
    """Who needs their finder is given their outcomes behind its own."""
    found = tuple(Stage(name=f"a[{n}]", family="a", needs=("a",)) for n in ("x", "y"))
    seen: dict[str, list[str]] = {}

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        seen[stage.name] = list(needed)
        return Outcome(result=Result.SUCCESS, spawned=found if stage.name == "a" else ())

    runner = Runner(parse("a; b: a; c(off): a").values(), execute, emit=lambda _: None)
    await runner.run()
    assert seen == {"a": [], "a[x]": ["a"], "a[y]": ["a"], "b": ["a", "a[x]", "a[y]"]}
    assert runner.stages["c"].needs == ("a",)  # it had its end before they were found


@pytest.mark.fault(4)
async def test_stop_before_the_run_starts_nothing() -> None:
    """An interrupt that comes first cancels every stage, teardown included: nothing ran."""
    play = Play(parse(f"{DIAMOND}; z(always): d"))
    play.runner = Runner(play.stages.values(), play.execute, emit=play)
    play.runner.stop(
        RunStopped(
            result=Result.CANCELLATION, reason="interrupted by SIGINT", exit_code=130, teardown_s=5
        )
    )
    outcomes = await play.runner.run()
    assert {o.result for o in outcomes.values()} == {Result.CANCELLATION}
    assert play.started() == []


@pytest.mark.fault(4)
async def test_stage_that_was_stopped_before_its_first_step_does_no_work() -> None:
    """Its start was announced, and nothing is executed any more."""
    executed: list[str] = []

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        del needed
        executed.append(stage.name)
        return Outcome(result=Result.SUCCESS)

    def interrupt(event: Event) -> None:
        if isinstance(event, StageStarted):
            runner.stop(RunStopped(result=Result.CANCELLATION, reason="interrupted", exit_code=130))

    runner = Runner(parse("a").values(), execute, emit=interrupt)
    assert (results(await runner.run()), executed) == ({"a": "cancel"}, [])


async def test_teardown_does_not_wait_for_what_still_has_time() -> None:
    """What a stop set free starts at once, beside a stage that uses its grace."""
    play = Play(parse("a(lock); b(lock); z(always): b"), turns={"a": SLOW})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(play.run)
        while not play.running:
            await anyio.lowlevel.checkpoint()
        play.runner.stop(
            RunStopped(
                result=Result.CANCELLATION, reason="interrupted", grace_s=5.0, teardown_s=5.0
            )
        )
    ended = [event.stage for event in play.log if isinstance(event, StageFinished)]
    assert ended == ["b", "z", "a"]


async def test_lost_engine_is_an_error_of_what_ran_and_skips_the_rest() -> None:
    """What ran when the engine died is no failure of the author's, and no teardown can run."""

    def lose(runner: Runner, event: Event) -> None:
        if isinstance(event, StageStarted):
            runner.stop(
                RunStopped(
                    result=Result.ERROR,
                    reason="the engine stopped answering",
                    exit_code=4,
                    teardown_s=0,
                )
            )

    play = Play(parse(f"{CHAIN}; z(always): a"), turns={"a": ENDLESS}, on=lose)
    outcomes = await play.run()
    assert results(outcomes) == expected("a=error b=skip c=skip d=skip z=skip")
    assert outcomes["a"].reason == "the engine stopped answering"
    assert verdict(play.stages, outcomes, play.runner.stops).exit_code == 4


async def test_engine_lost_during_teardown_ends_the_teardown() -> None:
    """A second stop shortens what the first one left, and gives it its own reason."""

    def stop(runner: Runner, event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "z":
            runner.stop(
                RunStopped(
                    result=Result.ERROR,
                    reason="the engine stopped answering",
                    exit_code=4,
                    teardown_s=0,
                )
            )

    play = Play(parse("a; z(always): a; zz(always): z"), {"a": "fail"}, {"z": ENDLESS}, on=stop)
    outcomes = await play.run()
    assert results(outcomes) == expected("a=fail z=error zz=skip")
    assert {outcomes[name].reason for name in ("z", "zz")} == {"the engine stopped answering"}


async def test_later_stop_leaves_teardown_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first stop left does not grow by a second one."""
    monkeypatch.setattr("penstock.runner.TEARDOWN_GRACE_S", 0.01)

    def stop(runner: Runner, event: Event) -> None:
        if isinstance(event, StageStarted):
            left_s = 0.05 if event.stage == "a" else 60.0
            runner.stop(
                RunStopped(
                    result=Result.CANCELLATION,
                    reason="interrupted",
                    exit_code=130,
                    teardown_s=left_s,
                )
            )

    play = Play(parse("a; z(always): a"), turns={"z": ENDLESS}, on=stop)
    assert results(await play.run()) == expected("a=cancel z=timeout")


async def test_teardown_that_its_time_does_not_reach_is_never_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When one teardown stage has used up the time, the next one is cancelled."""
    monkeypatch.setattr("penstock.runner.TEARDOWN_GRACE_S", 0.01)

    def stop(runner: Runner, event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "a":
            runner.stop(
                RunStopped(
                    result=Result.CANCELLATION, reason="interrupted", exit_code=130, teardown_s=0.02
                )
            )

    play = Play(parse("a; y(always): a; z(always): y"), turns={"y": ENDLESS}, on=stop)
    assert results(await play.run()) == expected("a=cancel y=timeout z=cancel")
    assert play.started() == ["a", "y"]


async def test_no_time_for_teardown_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However coarse the clock is, nothing starts."""
    now = anyio.current_time()
    monkeypatch.setattr(anyio, "current_time", lambda: now)

    def lose(runner: Runner, event: Event) -> None:
        if isinstance(event, StageFinished) and event.stage == "a":
            runner.stop(
                RunStopped(
                    result=Result.ERROR,
                    reason="the engine stopped answering",
                    exit_code=4,
                    teardown_s=0,
                )
            )

    play = Play(parse("a; z(always): a"), on=lose)
    assert results(await play.run()) == expected("a=pass z=skip")


async def test_first_reason_to_stop_wins() -> None:
    """A second reason does not replace what people are told of what the first one ended."""
    play = Play(parse("a"))
    play.runner = Runner(play.stages.values(), play.execute, emit=play)
    play.runner.stop(RunStopped(result=Result.CANCELLATION, reason="first"))
    play.runner.stop(RunStopped(result=Result.ERROR, reason="second"))
    assert (await play.runner.run())["a"].reason == "first"


@pytest.mark.fault(5)
async def test_result_reached_before_a_cancel_stands() -> None:
    """A stage that ends although it was cancelled keeps the result it came to."""

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        del stage, needed
        runner.stop(RunStopped(result=Result.CANCELLATION, reason="interrupted", exit_code=130))
        return Outcome(result=Result.SUCCESS)

    runner = Runner(parse("a").values(), execute, emit=lambda _: None)
    assert (await runner.run())["a"].passed


@pytest.mark.fault(6)
async def test_cancel_that_races_with_an_end_leaves_one_result(
    measured: Callable[[str], None],
) -> None:
    """Whichever comes first: one start and one result for each stage, and both agree."""
    seen = [await _race(seed) for seed in range(200)]
    assert set().union(*seen) == {Result.SUCCESS, Result.CANCELLATION}
    assert seen.count({Result.SUCCESS, Result.CANCELLATION}) > 20  # it was close
    measured("one result for each stage in 200 races, success exactly for what came to its end")


async def _race(seed: int) -> set[Result]:
    """Cancel a run at about the end of a stage, and return how stages ended."""
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    takes_s = 0.002
    started: list[str] = []
    ended: set[str] = set()

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        del needed
        started.append(stage.name)
        await anyio.sleep(takes_s)
        for _turn in range(chance.randrange(3)):
            await anyio.lowlevel.checkpoint()
        ended.add(stage.name)
        return Outcome(result=Result.SUCCESS)

    async def interrupt() -> None:
        await anyio.sleep(takes_s * chance.choice((1, 1, 2)) + chance.uniform(-2e-4, 4e-4))
        for _turn in range(chance.randrange(6)):
            await anyio.lowlevel.checkpoint()
        runner.stop(RunStopped(result=Result.CANCELLATION, reason="interrupted", exit_code=130))

    log: list[Event] = []
    runner = Runner(parse("a; b; c: a; d: a b").values(), execute, emit=log.append)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            outcomes = await runner.run()
    told = [event.stage for event in log if isinstance(event, StageFinished)]
    assert sorted(told) == ["a", "b", "c", "d"]
    assert len(started) == len(set(started))
    assert {name for name, outcome in outcomes.items() if outcome.passed} == ended
    assert verdict(runner.stages, outcomes, runner.stops).exit_code == 130
    return {outcome.result for outcome in outcomes.values()}


async def test_deadline_ends_a_stage_that_does_not_end_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Past its deadline, and the grace for reports, a stage is a timeout."""
    monkeypatch.setattr("penstock.runner.GRACE_S", 0.01)
    play = Play(parse("a(short); b: a; z(always): b"), turns={"a": ENDLESS})
    outcomes = await play.run()
    assert results(outcomes) == expected("a=timeout b=skip z=pass")
    assert outcomes["a"].reason == "ran longer than its deadline of 0.02 s"


async def test_deadline_of_the_run_ends_what_runs_and_leaves_time_for_teardown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit 124; the rest is skipped with the reason; teardown gets its own time and no more."""
    monkeypatch.setattr("penstock.runner.GRACE_S", 0.01)
    monkeypatch.setattr("penstock.runner.TEARDOWN_GRACE_S", 0.01)
    stages = parse("a; b: a; y(always): b; z(always): b")
    play = Play(stages, turns={"a": ENDLESS, "z": ENDLESS})
    outcomes = await play.run(deadline_s=0.05, teardown_s=0.1)
    assert results(outcomes) == expected("a=timeout b=skip y=pass z=timeout")
    assert outcomes["b"].reason == "because the run's deadline of 0.05 s passed"
    assert outcomes["z"].reason == "ran longer than teardown may take"
    assert verdict(stages, outcomes, play.runner.stops).exit_code == 124


async def test_stop_does_not_lengthen_the_deadline_of_teardown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A teardown stage that runs already is still ended at its own."""
    monkeypatch.setattr("penstock.runner.GRACE_S", 0.01)
    play = Play(parse("a; z(always short)"), {"a": "fail"}, {"a": 5, "z": ENDLESS})
    assert results(await play.run()) == expected("a=fail z=timeout")


async def test_deadline_behind_a_failure_leaves_time_for_teardown_too() -> None:
    """Else teardown would have the less the later the run failed."""
    now_s = 0.0
    scheduler = Scheduler(
        parse("a; y(always): a; z(always): y").values(), emit=lambda _: None, clock=lambda: now_s
    )
    scheduler.ends_at = 10.0
    scheduler.begin()
    scheduler.end("a", Outcome(result=Result.FAILURE))
    now_s = 10.0
    scheduler.stop(RunStopped(result=Result.TIMEOUT, reason="late", teardown_s=60.0))
    scheduler.end("y", Outcome(result=Result.SUCCESS))
    assert scheduler.running == {"z"}
    assert scheduler.ends_at == 70.0


async def test_run_past_its_deadline_says_what_is_left() -> None:
    """A quarter of a minute for what runs, which may still pass, and a minute for teardown."""
    play = Play(parse("a; b: a; z(always): b"), turns={"a": SLOW})
    outcomes = await play.run(deadline_s=0.0)
    assert results(outcomes) == expected("a=pass b=skip z=pass")
    reason = "because the run's deadline of 0 s passed"
    assert play.runner.stops == [
        RunStopped(
            result=Result.TIMEOUT, reason=reason, exit_code=124, grace_s=15.0, teardown_s=60.0
        )
    ]


async def test_work_that_begins_too_late_is_told_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deadline is never negative."""
    told: list[float] = []
    now = anyio.current_time
    late_s = itertools.count(step=100.0)
    monkeypatch.setattr(anyio, "current_time", lambda: now() + next(late_s))

    async def execute(
        stage: Stage, needed: Mapping[str, Outcome], *, deadline_s: float, **_: object
    ) -> Outcome:
        del stage, needed
        told.append(deadline_s)
        return Outcome(result=Result.SUCCESS)

    await Runner(parse("a").values(), execute, emit=lambda _: None, deadline_s=50.0).run()
    assert told == [0.0]


async def test_work_knows_how_long_it_may_take() -> None:
    """It is told the nearer of its own deadline and that of the run."""
    told: dict[str, float] = {}

    async def execute(
        stage: Stage, needed: Mapping[str, Outcome], *, deadline_s: float, **_: object
    ) -> Outcome:
        del needed
        told[stage.name] = deadline_s
        return Outcome(result=Result.SUCCESS)

    stages = [Stage(name=f"{deadline_s:g}", deadline_s=deadline_s) for deadline_s in (0.5, 5, 500)]
    await Runner(stages, execute, emit=lambda _: None, deadline_s=50.0).run()
    assert (told["0.5"], told["5"]) == (0.5, 5.0)
    assert 49.0 < told["500"] <= 50.0


async def test_run_that_ends_in_time_is_not_held_by_its_deadline() -> None:
    """The clock of the run ends with it."""
    with anyio.fail_after(2):
        assert (await Play(parse("a")).run(deadline_s=3600))["a"].passed


@pytest.mark.fault(37)
async def test_exception_in_the_machinery_is_a_bug_of_ours() -> None:
    """Whatever escapes the execution is an error with a traceback, never allowed, never a hang."""

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        del stage, needed
        message = "oops"
        raise ZeroDivisionError(message)

    runner = Runner(parse("a(maybe)").values(), execute, emit=lambda _: None)
    ended = (await runner.run())["a"]
    assert (ended.result, ended.is_bug, ended.allowed) == (Result.ERROR, True, False)
    assert ended.reason == "penstock itself failed: ZeroDivisionError: oops"
    assert "ZeroDivisionError: oops" in ended.output
    assert verdict(runner.stages, runner.outcomes).exit_code == 3


async def test_durations_are_of_the_stage_itself() -> None:
    """Wall time of its last attempt, not of the run."""

    async def execute(stage: Stage, needed: Mapping[str, Outcome], **_: object) -> Outcome:
        del needed
        await anyio.sleep({"a": 0.05, "b": 0.01}[stage.name])
        return Outcome(result=Result.SUCCESS)

    outcomes = await Runner(parse("a; b: a").values(), execute, emit=lambda _: None).run()
    assert outcomes["a"].duration_s > outcomes["b"].duration_s > 0


@pytest.mark.fault(38, 50)
async def test_wall_clock_has_no_say_in_durations(
    monkeypatch: pytest.MonkeyPatch, measured: Callable[[str], None]
) -> None:
    """It jumps an hour back and a day forth while a stage runs; neither is in any duration."""
    jumps_s = itertools.cycle((-3600.0, 86_400.0))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps_s))
    log: list[Event] = []
    stream = EventStream(Redactor(), [log.append])
    play = Play(parse("a(retry); b: a"), {"a": "error-service pass"}, {"a": 5, "b": 5})
    runner = Runner(
        play.stages.values(), play.execute, emit=stream.emit, delay_s=lambda _: 0.0, deadline_s=60
    )
    play.runner = runner
    outcomes = await runner.run()
    assert all(outcome.passed for outcome in outcomes.values())
    assert all(0 < outcome.duration_s < 30 for outcome in outcomes.values())
    times_s = [event.at_s for event in log]
    assert times_s == sorted(times_s)
    assert 0 <= times_s[0] <= times_s[-1] < 30
    measured("durations and order hold while the host's clock jumps an hour back and a day forth")


async def test_each_attempt_has_its_own_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what was tried before nor the wait in between counts; the clock ticks when read."""
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr("penstock.runner.time", clock)
    ended = (await Play(parse("a(retry)"), {"a": "error-service"}).run())["a"]
    assert [*(tried.duration_s for tried in ended.attempts), ended.duration_s] == [1, 1, 1]


async def test_thousand_stages_run_through() -> None:
    """A chain as long as that neither recurses nor waits."""
    text = ";".join(f"s{n}: s{n - 1}" if n else "s0" for n in range(1000))
    assert len(await Play(parse(text), {"s0": "fail"}).run()) == 1000


FLAGS = ("maybe", "always", "off", "idle", "gate", "lock", "retry")
SCRIPTS = ("pass", "pass", "pass", "fail", "error", "timeout", "error-service pass")
Case = tuple[dict[str, Stage], dict[str, str], dict[str, int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw stages with options, how they end, and how long that takes."""
    names = [f"s{index}" for index in range(draw(st.integers(1, 9)))]
    lines = []
    for index, name in enumerate(names):
        flags = draw(st.lists(st.sampled_from(FLAGS), max_size=2, unique=True))
        # A gate that may fail is refused by `Pipeline`.
        options = [flag for flag in flags if not (flag == "maybe" and "gate" in flags)]
        needs = (
            draw(st.lists(st.sampled_from(names[:index]), max_size=3, unique=True)) if index else []
        )
        starred = [need + draw(st.sampled_from(["", "", "*"])) for need in needs]
        lines.append(f"{name}({' '.join(options)}): {' '.join(starred)}")
    script = {name: draw(st.sampled_from(SCRIPTS)) for name in names}
    turns = {name: draw(st.integers(0, 5)) for name in names}
    return parse(";".join(lines)), script, turns


def rules(play: Play, outcomes: Mapping[str, Outcome]) -> None:
    """Assert what holds for every run."""
    finished = [event.stage for event in play.log if isinstance(event, StageFinished)]
    assert sorted(finished) == sorted(play.stages)
    position = {(type(event), getattr(event, "stage", "")): n for n, event in enumerate(play.log)}
    for name, stage in play.stages.items():
        if name in play.started():
            started = position[StageStarted, name]
            assert stage.skip is None
            assert all(position[StageFinished, need] < started for need in stage.needs)
            assert all(outcomes[need].passed for need in stage.takes)
            if not stage.always:
                needed = [(play.stages[need], outcomes[need]) for need in stage.needs]
                assert all(o.passed or o.allowed or o.result is Result.SKIP for _, o in needed)
                assert all(o.passed for needed_stage, o in needed if needed_stage.gate)
        ended = outcomes[name]
        if ended.root:
            assert outcomes[ended.root].result in {*BROKEN, Result.SKIP}
        if ended.allowed:
            assert stage.allow_failure


BROKEN = {Result.FAILURE, Result.ERROR, Result.TIMEOUT}


@settings(max_examples=200, deadline=None)
@given(case=cases(), jobs=st.none() | st.integers(1, 3), keep_going=st.booleans())
def test_rules_hold_on_every_graph(case: Case, jobs: int | None, keep_going: bool) -> None:
    """One result each, nothing before its needs, never more than `-j`, skips name a culprit."""
    play = Play(*case)
    outcomes = anyio.run(lambda: play.run(jobs=jobs, keep_going=keep_going))
    rules(play, outcomes)
    assert play.most <= (jobs or len(play.stages))
    if keep_going:
        assert Result.CANCELLATION not in {outcome.result for outcome in outcomes.values()}


@settings(max_examples=100, deadline=None)
@given(case=cases(), at=st.integers(0, 30), teardown_s=st.sampled_from([0.0, 5.0]))
def test_rules_hold_when_interrupted_anywhere(case: Case, at: int, teardown_s: float) -> None:
    """After the interrupt nothing starts but teardown, and every stage still ends once."""

    def interrupt(runner: Runner, _event: Event) -> None:
        if len(play.log) == at + 1:
            runner.stop(
                RunStopped(
                    result=Result.CANCELLATION,
                    reason="interrupted",
                    exit_code=130,
                    teardown_s=teardown_s,
                )
            )

    play = Play(*case, on=interrupt)
    rules(play, anyio.run(play.run))
    stops = [n for n, event in enumerate(play.log) if is_interrupt(event)]
    if stops and teardown_s == 0:
        late = [e for e in play.log[stops[0] :] if isinstance(e, StageStarted)]
        assert late == []


def is_interrupt(event: Event) -> bool:
    return isinstance(event, RunStopped) and event.result is Result.CANCELLATION


OK, RED = outcome("pass"), outcome("fail")


@pytest.mark.parametrize(
    ("text", "ends", "stops", "expected_"),
    [
        ("a", {"a": OK}, [], (Result.SUCCESS, "", 0)),
        ("a; b; c", {"a": OK, "b": RED, "c": outcome("skip")}, [], (Result.FAILURE, "b", 1)),
        ("a; b", {"a": RED, "b": outcome("error")}, [], (Result.ERROR, "b", 4)),
        ("a", {"a": outcome("timeout")}, [], (Result.TIMEOUT, "a", 1)),
        ("a", {"a": outcome("skip")}, [], (Result.SKIP, "", 5)),
        ("a", {}, [], (Result.SKIP, "", 5)),
        ("a", {"a": RED}, [(Result.TIMEOUT, 124)], (Result.TIMEOUT, "", 124)),
        ("a", {"a": outcome("error")}, [(Result.TIMEOUT, 124)], (Result.ERROR, "a", 4)),
        ("a", {"a": RED}, [(Result.ERROR, 4)], (Result.ERROR, "", 4)),
        (
            "a",
            {"a": RED},
            [(Result.FAILURE, 0), (Result.CANCELLATION, 143)],
            (Result.CANCELLATION, "", 143),
        ),
        ("a; z(always)", {"z": RED, "a": RED}, [], (Result.FAILURE, "a", 1)),
        ("a; z(always)", {"a": OK, "z": outcome("error")}, [], (Result.ERROR, "z", 4)),
    ],
)
def test_verdict_ranks_interrupts_bugs_engines_deadlines_and_red_gates(
    text: str,
    ends: Mapping[str, Outcome],
    stops: list[tuple[Result, int]],
    expected_: tuple[Result, str, int],
) -> None:
    """The exit code says whose fault it is; a run in which nothing required ran is never green."""
    stopped = [RunStopped(result=result, reason="r", exit_code=code) for result, code in stops]
    ended = verdict(parse(text), ends, stopped)
    assert (ended.result, ended.root, ended.exit_code) == expected_


def test_verdict_repeats_the_reason() -> None:
    """That of the stage at fault, none for a green run, and its own when nothing ran."""
    ends = (OK, RED, outcome("skip"))
    assert [verdict(parse("a"), {"a": ended}) for ended in ends] == [
        Verdict(Result.SUCCESS, "", "", 0),
        Verdict(Result.FAILURE, "a", "fail", 1),
        Verdict(Result.SKIP, "", "nothing that is required ran", 5),
    ]


def test_bug_of_ours_outranks_all_but_an_interrupt() -> None:
    """Exit 3 before 4, 124 and 1."""
    bug = dataclasses.replace(outcome("error"), is_bug=True)
    stop = RunStopped(result=Result.ERROR, reason="r", exit_code=4)
    assert verdict(parse("a; b"), {"a": RED, "b": bug}, [stop]).exit_code == 3


def test_warnings_name_the_allowed_failures() -> None:
    """So that every output can say them."""
    allowed = dataclasses.replace(RED, allowed=True)
    assert warnings({"a": allowed, "b": OK}) == ("a",)
