from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.events import Event, StageFinished, StageStarted
from penstock.graph import Graph
from penstock.model import Outcome, Result, Stage
from penstock.runner import Runner, verdict

if TYPE_CHECKING:
    from penstock.graph import Graph as GraphType

OK = Outcome(result=Result.SUCCESS)
RED = Outcome(result=Result.FAILURE, reason="exit code 1")
Work = Callable[[Stage, Mapping[str, Outcome]], Awaitable[Outcome]]


def nothing() -> None: ...


def stages(graph: GraphType, deadline_s: float = 600) -> dict[str, Stage]:
    return {
        name: Stage(name=name, function=nothing, needs=tuple(needs), deadline_s=deadline_s)
        for name, needs in graph.needs.items()
    }


class Recorder:
    """Keeps events, and the most stages that ever ran at once."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.running = 0
        self.most = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self.running += 1
            self.most = max(self.most, self.running)
            self.log.append(f"+{event.stage}")
        elif isinstance(event, StageFinished):
            if f"+{event.stage}" in self.log:
                self.running -= 1
            self.log.append(f"-{event.stage}")


def scripted(results: Mapping[str, Outcome], steps: Mapping[str, int] | None = None) -> Work:
    """Return work that ends as scripted after a number of turns of the event loop."""

    async def execute(stage: Stage, _needed: Mapping[str, Outcome]) -> Outcome:
        for _ in range((steps or {}).get(stage.name, 1)):
            await anyio.lowlevel.checkpoint()
        return results.get(stage.name, OK)

    return execute


async def play(
    needs: Mapping[str, tuple[str, ...]],
    execute: Work,
    recorder: Recorder | None = None,
    *,
    jobs: int | None = None,
    keep_going: bool = False,
) -> dict[str, Outcome]:
    graph = Graph(needs)
    runner = Runner(
        graph,
        stages(graph),
        execute,
        emit=recorder or Recorder(),
        jobs=jobs,
        keep_going=keep_going,
    )
    return await runner.run()


CHAIN: dict[str, tuple[str, ...]] = {"a": (), "b": ("a",), "c": ("b",), "d": ("c",)}
DIAMOND: dict[str, tuple[str, ...]] = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
S, F, E, T, X, K = (
    Result.SUCCESS,
    Result.FAILURE,
    Result.ERROR,
    Result.TIMEOUT,
    Result.CANCELLATION,
    Result.SKIP,
)


@pytest.mark.parametrize(
    ("needs", "results", "keep_going", "expected"),
    [
        (CHAIN, {}, False, {"a": S, "b": S, "c": S, "d": S}),
        (CHAIN, {"a": RED}, False, {"a": F, "b": K, "c": K, "d": K}),
        (CHAIN, {"c": RED}, False, {"a": S, "b": S, "c": F, "d": K}),
        (DIAMOND, {}, False, {"a": S, "b": S, "c": S, "d": S}),
        (DIAMOND, {"b": RED}, False, {"a": S, "b": F, "c": X, "d": K}),
        (DIAMOND, {"b": RED}, True, {"a": S, "b": F, "c": S, "d": K}),
        ({"a": (), "b": ()}, {"a": RED}, False, {"a": F, "b": X}),
        ({"a": (), "b": ()}, {"a": RED}, True, {"a": F, "b": S}),
        ({"a": ()}, {"a": Outcome(result=E)}, False, {"a": E}),
        ({"a": (), "b": ("a",)}, {"a": Outcome(result=T)}, True, {"a": T, "b": K}),
    ],
)
async def test_results_follow_from_the_graph(
    needs: Mapping[str, tuple[str, ...]],
    results: Mapping[str, Outcome],
    keep_going: bool,
    expected: Mapping[str, Result],
) -> None:
    """Each graph with its faults leads to exactly these results."""
    outcomes = await play(needs, scripted(results, {"b": 2, "c": 9}), keep_going=keep_going)
    assert {name: outcome.result for name, outcome in outcomes.items()} == expected


async def test_skip_and_cancel_name_the_root_cause() -> None:
    """Three levels below, and beside it, people read which stage is at fault."""
    needs = {**CHAIN, "beside": ()}
    outcomes = await play(needs, scripted({"a": RED}, {"beside": 99}))
    assert {outcomes[name].reason for name in ("b", "c", "d", "beside")} == {"because a failed"}
    assert {outcomes[name].root for name in ("b", "c", "d", "beside")} == {"a"}


async def test_dependants_are_given_what_their_needs_handed_on() -> None:
    """A stage sees the outcomes of its needs and of nothing else."""
    seen: dict[str, list[str]] = {}

    async def execute(stage: Stage, needed: Mapping[str, Outcome]) -> Outcome:
        seen[stage.name] = [f"{name}={outcome.value}" for name, outcome in needed.items()]
        return Outcome(result=Result.SUCCESS, value=stage.name.upper())

    await play(DIAMOND, execute)
    assert seen["d"] == ["b=B", "c=C"]


async def test_stages_without_common_needs_run_side_by_side() -> None:
    """Two stages that wait for each other both end: neither waits for a whole wave."""
    met = {"b": anyio.Event(), "c": anyio.Event()}

    async def execute(stage: Stage, _needed: Mapping[str, Outcome]) -> Outcome:
        if stage.name in met:
            met[stage.name].set()
            await met["c" if stage.name == "b" else "b"].wait()
        return OK

    with anyio.fail_after(5):
        outcomes = await play(DIAMOND, execute)
    assert outcomes["d"].result is Result.SUCCESS


async def test_stop_before_the_run_starts_nothing() -> None:
    """An interrupt that comes first cancels every stage and starts none."""
    recorder = Recorder()
    graph = Graph(DIAMOND)
    runner = Runner(graph, stages(graph), scripted({}), emit=recorder)
    runner.stop(Result.CANCELLATION, "interrupted by SIGINT")
    outcomes = await runner.run()
    assert {outcome.result for outcome in outcomes.values()} == {Result.CANCELLATION}
    assert not [entry for entry in recorder.log if entry.startswith("+")]


async def test_lost_engine_is_an_error_of_what_ran_and_skips_the_rest() -> None:
    """What ran when the engine died is no failure of the author's."""
    graph = Graph(CHAIN)

    async def execute(_stage: Stage, _needed: Mapping[str, Outcome]) -> Outcome:
        runner.stop(Result.ERROR, "the engine stopped answering")
        await anyio.sleep_forever()
        raise AssertionError

    runner = Runner(graph, stages(graph), execute, emit=Recorder())
    outcomes = await runner.run()
    assert [o.result for o in outcomes.values()] == [K, K, K, E]
    assert outcomes["d"].reason == "the engine stopped answering"


async def test_first_reason_to_stop_wins() -> None:
    """A second reason does not replace what people are told."""
    graph = Graph({"a": ()})
    runner = Runner(graph, stages(graph), scripted({}), emit=Recorder())
    runner.stop(Result.CANCELLATION, "first")
    runner.stop(Result.ERROR, "second")
    assert (await runner.run())["a"].reason == "first"


async def test_result_reached_before_a_cancel_stands() -> None:
    """A stage that ends although it was cancelled keeps the result it came to."""
    graph = Graph({"a": ()})

    async def execute(_stage: Stage, _needed: Mapping[str, Outcome]) -> Outcome:
        runner.stop(Result.CANCELLATION, "interrupted")
        return OK

    runner = Runner(graph, stages(graph), execute, emit=Recorder())
    assert (await runner.run())["a"].result is Result.SUCCESS


async def test_deadline_ends_a_stage_that_does_not_end_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Past its deadline, and the grace for reports, a stage is a timeout."""
    monkeypatch.setattr("penstock.runner.GRACE_S", 0.01)
    graph = Graph({"a": ()})

    async def execute(_stage: Stage, _needed: Mapping[str, Outcome]) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError

    runner = Runner(graph, stages(graph, deadline_s=0.01), execute, emit=Recorder())
    outcome = (await runner.run())["a"]
    assert (outcome.result, outcome.reason) == (
        Result.TIMEOUT,
        "ran longer than its deadline of 0.01 s",
    )


async def test_exception_in_the_machinery_is_a_bug_of_ours() -> None:
    """Whatever escapes the execution is an error with a traceback, and never a hang."""

    async def execute(_stage: Stage, _needed: Mapping[str, Outcome]) -> Outcome:
        message = "oops"
        raise ZeroDivisionError(message)

    outcome = (await play({"a": ()}, execute))["a"]
    assert outcome.result is Result.ERROR
    assert outcome.is_bug
    assert "ZeroDivisionError: oops" in outcome.output


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, tuple[str, ...]], dict[str, Outcome], dict[str, int]]:
    names = [f"s{index}" for index in range(draw(st.integers(1, 10)))]
    needs = {
        name: tuple(n for n in names[:index] if draw(st.booleans()) and draw(st.booleans()))
        for index, name in enumerate(names)
    }
    results = {name: draw(st.sampled_from([OK, OK, OK, RED, Outcome(result=E)])) for name in names}
    steps = {name: draw(st.integers(0, 5)) for name in names}
    return needs, results, steps


@settings(max_examples=150, deadline=None)
@given(case=runs(), jobs=st.none() | st.integers(1, 3), keep_going=st.booleans())
def test_rules_hold_on_every_graph(
    case: tuple[dict[str, tuple[str, ...]], dict[str, Outcome], dict[str, int]],
    jobs: int | None,
    keep_going: bool,
) -> None:
    """One result each, nothing before its needs, never more than `-j`, skips name a culprit."""
    needs, results, steps = case
    recorder = Recorder()

    async def main() -> dict[str, Outcome]:
        work = scripted(results, steps)
        return await play(needs, work, recorder, jobs=jobs, keep_going=keep_going)

    outcomes = anyio.run(main)
    assert sorted(entry for entry in recorder.log if entry[0] == "-") == [
        f"-{n}" for n in sorted(needs)
    ]
    assert set(outcomes) == set(needs)
    assert recorder.most <= (jobs or len(needs))
    for name, outcome in outcomes.items():
        if f"+{name}" in recorder.log:
            started = recorder.log.index(f"+{name}")
            assert all(recorder.log.index(f"-{need}") < started for need in needs[name])
            assert all(outcomes[need].passed for need in needs[name])
        if outcome.result in {K, X}:
            assert outcomes[outcome.root].result in {F, E}
    if keep_going:
        assert X not in {outcome.result for outcome in outcomes.values()}


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({"a": OK}, (S, "", 0)),
        ({"a": OK, "b": RED, "c": Outcome(result=K)}, (F, "b", 1)),
        ({"a": RED, "b": Outcome(result=E)}, (E, "b", 4)),
        ({"a": RED, "b": Outcome(result=E), "c": Outcome(result=E, is_bug=True)}, (E, "c", 3)),
        ({"a": Outcome(result=T)}, (T, "a", 1)),
        ({"a": Outcome(result=K)}, (K, "", 5)),
        ({}, (K, "", 5)),
    ],
)
def test_verdict_ranks_our_bugs_over_lost_engines_over_red_gates(
    outcomes: Mapping[str, Outcome], expected: tuple[Result, str, int]
) -> None:
    """The exit code says whose fault it is; a run in which nothing ran is never green."""
    assert verdict(outcomes) == expected
