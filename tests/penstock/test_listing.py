from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import Pipeline, Secret
from penstock.config import RunInfo
from penstock.errors import UsageError
from penstock.events import Event, StageStarted
from penstock.model import Outcome, Result, Skip, Stage
from penstock.plan import Plan
from penstock.reports import listing
from penstock.runner import Runner
from penstock.select import Selection
from penstock.state import State
from penstock.when import changed, on_branch, on_tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagger import Container

    from penstock.when import Condition

NOWHERE = Path("/nowhere")
RUN = RunInfo(id="", root=NOWHERE, commit="0123456789abcdef", branch="topic")


class Unchanged(RunInfo):
    """A run in which no file changed."""

    def has_changed(self, _patterns: object) -> bool:
        return False


def pipeline() -> Pipeline:
    pipeline = Pipeline("shop")

    @pipeline.stage
    def lint() -> None:
        """Lint with ruff."""

    @pipeline.stage(needs=[lint], matrix={"python": ["3.11", "3.12"]}, tags=["slow"])
    def test() -> None:
        """Run the tests."""

    @pipeline.stage(needs=[test], when=on_branch("main"), secrets={"key": Secret.env("KEY")})
    def push(key: str) -> None: ...

    @pipeline.stage(needs=[push], secrets={"token": Secret.file("t")}, when=on_tag())
    def release(token: str) -> None: ...

    @pipeline.stage(needs=[push], secrets={"token": Secret.file("t")})
    def announce(token: str) -> None: ...

    return pipeline


def plan(
    state: State | None = None, run: RunInfo = RUN, selection: Selection | None = None
) -> Plan:
    shop = pipeline()
    chosen = (selection or Selection()).apply(shop.check())
    return Plan.make(shop, chosen, run, state or State(NOWHERE), jobs=2)


def of_stages(stages: Mapping[str, Stage], jobs: int | None = None) -> Plan:
    state = State(NOWHERE)
    return Plan(pipeline=Pipeline("p"), stages=stages, run=RUN, state=state, jobs=jobs)


KNOWN = State(
    NOWHERE,
    durations_s={"lint": 0.5, "test[python=3.11]": 2.0, "push": 4.0},
    images={"lint": ["python:3.12-slim"], "test": ["postgres:15", "python:3.12-slim"], "push": []},
)


def test_list_shows_names_titles_and_needs() -> None:
    """A line for each stage, in order."""
    assert listing.stages(plan(), as_json=False).splitlines() == [
        "lint               Lint with ruff",
        "test[python=3.11]  Run the tests [python=3.11]  (after lint)",
        "test[python=3.12]  Run the tests [python=3.12]  (after lint)",
        "push               push  (after test[python=3.11], test[python=3.12])",
        "release            release  (after push)",
        "announce           announce  (after push)",
    ]


def test_list_gives_machines_the_same_and_tags() -> None:
    """Objects with names, titles, needs and tags."""
    listed = json.loads(listing.stages(plan(), as_json=True))
    assert listed[1] == {
        "name": "test[python=3.11]",
        "title": "Run the tests [python=3.11]",
        "needs": ["lint"],
        "tags": ["slow"],
    }


def test_dry_run_before_any_run_says_what_is_not_known() -> None:
    """Images and times come from history; skips carry reasons, also those that follow from one."""
    assert listing.dry_run(plan(), as_json=False).splitlines() == [
        "shop at 0123456789ab: 3 of 6 stages",
        "   1  lint               Lint with ruff                 images known after the first run",
        "   2  test[python=3.11]  Run the tests [python=3.11]    images known after the first run",
        "   3  test[python=3.12]  Run the tests [python=3.12]    images known after the first run",
        "push: SKIPPED (not on branch main)",
        "release: SKIPPED (because push was skipped)",
        "announce: SKIPPED (because push was skipped)",
        "expected time: known after the first run",
    ]


def test_dry_run_shows_images_secrets_and_times_from_history() -> None:
    """What an earlier run left is used; where it left nothing, that is said."""
    shown = plan(KNOWN, replace(RUN, branch="main"))
    lines = listing.dry_run(shown, as_json=False).splitlines()
    assert [re.sub("  +", "  ", line).strip() for line in lines] == [
        "shop at 0123456789ab: 5 of 6 stages",
        "1  lint  Lint with ruff  0.5 s  python:3.12-slim",
        "2  test[python=3.11]  Run the tests [python=3.11]  2.0 s  postgres:15, python:3.12-slim",
        "3  test[python=3.12]  Run the tests [python=3.12]  postgres:15, python:3.12-slim",
        "4  push  push  4.0 s  secret key (env KEY)",
        "5  announce  announce  images known after the first run, secret token (file t)",
        "release: SKIPPED (not on a tag)",
        "expected time: 6.5 s when nothing is cached, and 2 stages never timed",
    ]


def test_dry_run_gives_machines_the_same() -> None:
    """One object: the stages in order, the reasons of the others, the time."""
    shown = json.loads(listing.dry_run(plan(KNOWN), as_json=True))
    assert (shown["expected_s"], list(shown["skipped"])) == (2.5, ["push", "release", "announce"])
    assert shown["stages"][1] == {
        "name": "test[python=3.11]",
        "title": "Run the tests [python=3.11]",
        "needs": ["lint"],
        "images": ["postgres:15", "python:3.12-slim"],
        "secrets": {},
        "expected_s": 2.0,
        "begins_early": False,
    }


def test_dry_run_shows_what_begins_early() -> None:
    """For people and for machines; without `--speculate` nothing does."""
    shop = Pipeline("shop")

    @shop.stage
    def lint() -> None: ...

    @shop.stage(needs=[lint])
    def build() -> Container: ...  # type: ignore[empty-body]  # never called

    state = State(NOWHERE, images={"lint": [], "build": ["redis:7"]})
    for speculate, facts in ((True, "redis:7, begins early"), (False, "redis:7")):
        made = Plan.make(shop, shop.check(), RUN, state, speculate=speculate)
        row = listing.dry_run(made, as_json=False).splitlines()[2]
        assert " ".join(row.split()) == f"2 build build {facts}"
        content = json.loads(listing.dry_run(made, as_json=True))
        assert [s["begins_early"] for s in content["stages"]] == [False, speculate]


def test_dry_run_of_nothing_but_skips_has_no_time() -> None:
    """Where nothing runs nothing is expected."""
    shown = plan(selection=Selection(only=["lint"], skip=["lint"]))
    lines = ["shop at 0123456789ab: 0 of 1 stages", "lint: SKIPPED (by --skip)"]
    assert listing.dry_run(shown, as_json=False).splitlines() == lines
    assert shown.expected_s == 0.0


def test_only_functions_that_can_run_want_their_secrets() -> None:
    """What is skipped, for itself or because of another, must not stop a run by a missing secret."""
    assert plan().families == ["lint", "test"]
    assert plan(run=replace(RUN, branch="main")).families == ["lint", "test", "push", "announce"]


def test_conditions_of_stages_that_were_not_selected_are_not_asked() -> None:
    """They may ask git, which costs time."""
    pipeline = Pipeline("p")

    @pipeline.stage(when=changed("app/**"))
    def lint() -> None: ...

    @pipeline.stage(when=changed("lib/**"))
    def test() -> None: ...

    asked: list[object] = []

    class Asked(Unchanged):
        def has_changed(self, patterns: object) -> bool:
            asked.append(patterns)
            return super().has_changed(patterns)

    chosen = Selection(only=["lint"]).apply(pipeline.check())
    run = Asked(id="", root=NOWHERE, commit="", branch="")
    shown = Plan.make(pipeline, chosen, run, State(NOWHERE))
    assert (shown.skipped, asked) == ({"lint": "nothing changed in app/**"}, [("app/**",)])
    assert plan(selection=Selection(only=["lint"])).skipped == {}


@pytest.mark.parametrize(
    ("condition", "gate", "skipped"),
    [
        (changed("app/**"), False, {"test", "coverage", "browse"}),
        (changed("app/**"), True, {"test", "build", "coverage", "browse"}),
        (on_branch("main"), False, {"test", "build", "coverage", "browse"}),
        (on_branch("topic"), True, set()),
    ],
)
def test_what_is_skipped_decides_who_follows(
    condition: Condition, *, gate: bool, skipped: set[str]
) -> None:
    """No change lets by who takes no result, unless it is a gate; the wrong branch lets nobody by."""
    pipeline = Pipeline("p")

    @pipeline.stage(when=condition, gate=gate)
    def test() -> None: ...

    @pipeline.stage(needs=[test])
    def coverage(test: object) -> None: ...

    @pipeline.stage(needs=[coverage])
    def browse() -> None: ...

    @pipeline.stage(needs=[test])
    def build() -> None: ...

    @pipeline.stage(needs=[test, build], always=True)
    def clean() -> None: ...

    run = Unchanged(id="", root=NOWHERE, commit="", branch="topic")
    made = Plan.make(pipeline, pipeline.check(), run, State(NOWHERE))
    assert set(made.skipped) == skipped


@pytest.mark.parametrize(
    ("durations", "jobs", "locks", "starts", "expected_s"),
    [
        ("", None, "", "a0 b0 c0 d0", 0),
        ("a1 b5 c2 d1", None, "", "a0 b1 c1 d6", 7),
        ("a1 b5 c2 d1", 1, "", "a0 b1 c6 d8", 9),
        ("a1 b2 c5 d1", 1, "", "a0 c1 b6 d8", 9),
        ("a1 b5 c2 d1", None, "bc", "a0 b1 c6 d8", 9),
    ],
)
def test_expected_time_follows_needs_jobs_and_locks(
    *, durations: str, jobs: int | None, locks: str, starts: str, expected_s: float
) -> None:
    """The longest way goes first, at most `jobs` at a time, users of a lock one after the other."""
    known = {word[0]: float(word[1:]) for word in durations.split()}
    made = of_stages(
        {
            name: Stage(
                name=name,
                needs=tuple(needs),
                uses=("lock",) if name in locks else (),
                expected_s=known.get(name, 0.0),
            )
            for name, needs in {"a": "", "b": "a", "c": "a", "d": "bc"}.items()
        },
        jobs,
    )
    assert " ".join(f"{name}{at:g}" for name, at in made.starts_s.items()) == starts
    assert made.expected_s == expected_s


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = [f"s{index}" for index in range(draw(st.integers(1, 9)))]
    skips = [Skip(reason="not here"), Skip(reason="nothing changed", holds=False)]
    stages = {}
    for index, name in enumerate(names):
        before = st.sampled_from(names[:index])
        needs = draw(st.lists(before, unique=True, max_size=3)) if index else []
        stages[name] = Stage(
            name=name,
            needs=tuple(needs),
            takes=tuple(need for need in needs if draw(st.integers(0, 3)) == 0),
            gate=draw(st.booleans()),
            always=draw(st.integers(0, 5)) == 0,
            uses=tuple(draw(st.lists(st.sampled_from("xy"), unique=True, max_size=1))),
            skip=draw(st.sampled_from([None, None, None, *skips])),
        )
    stages = {name: stages[name] for name in draw(st.permutations(names))}
    return of_stages(stages, draw(st.sampled_from([None, 1, 2, 3])))


@settings(max_examples=200, deadline=None)
@given(plans())
def test_dry_run_tells_what_the_runner_then_does(made: Plan) -> None:
    """The same stages start in the same order, the same are skipped for the same reasons."""
    started: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, StageStarted):
            started.append(event.stage)

    async def passes(*_: object, **__: object) -> Outcome:
        return Outcome(result=Result.SUCCESS)

    runner = Runner(made.stages.values(), passes, emit=note, jobs=made.jobs)
    outcomes = anyio.run(runner.run)
    assert list(made.starts_s) == started
    assert made.skipped == {n: o.reason for n, o in outcomes.items() if o.result is Result.SKIP}


@settings(max_examples=100, deadline=None)
@given(plans(), st.lists(st.integers(0, 5), min_size=9, max_size=9))
def test_expected_times_are_a_schedule_that_keeps_every_rule(
    made: Plan, seconds: list[int]
) -> None:
    """Nothing starts before its needs end, and locks and the number of jobs hold."""
    known = zip(made.stages.values(), seconds, strict=False)
    stages = {stage.name: replace(stage, expected_s=float(took)) for stage, took in known}
    made = of_stages(stages, made.jobs)
    ends: dict[str, float] = {}
    for name, start in made.starts_s.items():
        stage = stages[name]
        assert all(ends[need] <= start for need in stage.needs if need not in made.skipped)
        beside = [stages[other] for other, end in ends.items() if end > start]
        assert made.jobs is None or len(beside) < made.jobs
        assert not any(set(stage.uses) & set(other.uses) for other in beside)
        ends[name] = start + stage.expected_s
    assert ends.keys() == stages.keys() - made.skipped.keys()
    assert made.expected_s == max(ends.values(), default=0.0)


def test_explanation_gives_the_reasons_of_the_last_run(tmp_path: Path) -> None:
    """For each stage that was asked for; one that was not part of the run says so."""
    cached = {"name": "lint", "result": "success", "cached": True, "reason": "", "why": ["same"]}
    failed = {"name": "test", "result": "failure", "cached": False, "reason": "exit code 1"}
    run = {
        "started_at": "2026-11-25T01:00:00+00:00",
        "commit": "0123456789abcdef",
        "stages": [cached, failed | {"why": ["file a.py changed", "variable B is new"]}],
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert listing.explain(tmp_path / "run.json", ["lint", "test", "push"]).splitlines() == [
        "run of 2026-11-25T01:00:00+00:00, commit 0123456789ab",
        "lint: PASSED (cached)",
        "  same",
        "test: FAILED (exit code 1)",
        "  file a.py changed",
        "  variable B is new",
        "push: was not part of it",
    ]


def test_explanation_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    """A file of the checkout may have any name."""
    odd = {
        "result": "failure",
        "cached": False,
        "reason": "a\x1b[2J\nb",
        "why": ["file \x9b\x07\nx"],
    }
    run = {"started_at": "\x1b]0;t\x07", "commit": "0", "stages": [{"name": "a", **odd}]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert listing.explain(tmp_path / "run.json", ["a"]).splitlines() == [
        "run of , commit 0",
        "a: FAILED (a b)",
        "  file \\x9b\\x07 x",
    ]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"stages": [1]}'])
def test_without_a_record_there_is_nothing_to_explain(tmp_path: Path, text: str | None) -> None:
    """A missing or broken one is the same, with the next step."""
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match="run the pipeline first"):
        listing.explain(tmp_path / "run.json", ["a"])
