"""Which stages are begun early, and what becomes of that, without an engine."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Pipeline, Secret
from penstock.events import EarlyBegun, EarlyDropped, Event, StageFinished, StageStarted
from penstock.model import Outcome, Result, Skip, Stage
from penstock.purity import Conditions, begins_early, is_pure, reaches_out
from penstock.runner import Runner
from penstock.speculation import Early, Speculation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagger import Container


def named(name: str, takes: list[str], *, returns: str = "", is_async: bool = False) -> Any:  # noqa: ANN401 - a function
    said = f" -> {returns!r}" if returns else ""
    scope: dict[str, Any] = {}
    exec(f"{'async ' * is_async}def {name}({', '.join(takes)}){said}: ...", scope)  # noqa: S102 - chosen by a property
    return scope[name]


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[Pipeline, dict[str, set[str]]]:
    """Draw a pipeline, and what each of its functions takes by itself that reaches out."""
    pipeline = Pipeline("drawn")
    reaches: dict[str, set[str]] = {}
    functions: dict[str, Any] = {}
    made: list[str] = []
    for number in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["container", "service", "stage", "stage"]))
        name = f"{kind}{number}"
        takes = draw(st.lists(st.sampled_from([*made, "registry", "run"]), unique=True, max_size=3))
        is_async = draw(st.booleans()) and draw(st.booleans())
        has_secret = kind == "stage" and draw(st.booleans()) and draw(st.booleans())
        reaches[name] = {t for t in takes if t == "registry"}
        reaches[name] |= {"secret"} if has_secret else set()
        reaches[name] |= {"service"} if kind == "service" else set()
        reaches[name] |= {"async"} if is_async else set()
        for taken in takes:
            reaches[name] |= reaches.get(taken, set())
        returns = draw(st.sampled_from(["Container", "dagger.Container"]))
        function = named(
            name, [*takes, *["token"] * has_secret], returns=returns, is_async=is_async
        )
        functions[name] = function
        made.append(name)
        if kind != "stage":
            getattr(pipeline, kind)(function)
            continue
        # All stages there are, so that what is taken through containers is needed too.
        needs = [f for n, f in functions.items() if n.startswith("stage") and n != name]
        secrets = {"token": Secret.env("T")} if has_secret else {}
        pipeline.stage(needs=needs, secrets=secrets)(function)
    return pipeline, reaches


@given(pipelines())
def test_what_reaches_out_is_never_begun_early(
    drawn: tuple[Pipeline, dict[str, set[str]]],
) -> None:
    """Nor what is made from it, at any depth; all else is, if a stage before it can be its gate."""
    pipeline, reaches = drawn
    stages = pipeline.check()
    early = begins_early(pipeline, stages)
    for name, stage in stages.items():
        assert is_pure(pipeline, stage) == (not reaches[name])
        if reaches[name]:
            assert name not in early
        if name in early:
            assert set(stage.takes) <= early[name].waits_for
            assert early[name].gates <= set(stage.needs) - early[name].waits_for


def test_early_work_waits_for_what_it_takes_and_for_what_acts_outside() -> None:
    """What a stage before it pushed or wrote elsewhere, it may be going to pull."""
    shop = Pipeline("shop")

    @shop.stage
    async def publish(registry: object) -> None: ...

    @shop.stage(secrets={"token": Secret.env("T")})
    def migrate(token: str) -> None: ...

    @shop.stage(needs=[publish, migrate])
    def test() -> None: ...

    @shop.stage
    def base() -> Container: ...  # type: ignore[empty-body]  # never called

    @shop.stage(needs=[test, base])
    def build(base: Container) -> Container: ...  # type: ignore[empty-body]  # never called

    @shop.stage(needs=[publish, base])
    def nothing_to_gain(base: Container) -> Container: ...  # type: ignore[empty-body]  # never called

    waits_for = frozenset({"publish", "migrate", "base"})
    early = begins_early(shop, shop.check())
    assert early == {"build": Conditions(frozenset({"test"}), waits_for)}


def test_gate_is_what_nothing_else_that_it_needs_has_waited_for() -> None:
    """Beside the first of a chain, or the only ones before its takes, there is nothing to gain."""
    shop = Pipeline("shop")

    @shop.stage
    def lint() -> None: ...

    @shop.stage(needs=[lint])
    def test() -> None: ...

    @shop.stage(needs=[lint])
    def base() -> Container: ...  # type: ignore[empty-body]  # never called

    @shop.stage(needs=[lint, test])
    def build() -> Container: ...  # type: ignore[empty-body]  # never called

    @shop.stage(needs=[lint, base])
    def image(base: Container) -> Container: ...  # type: ignore[empty-body]  # never called

    early = begins_early(shop, shop.check())
    assert {n: given.gates for n, given in early.items()} == {"base": {"lint"}, "build": {"test"}}


@pytest.mark.parametrize(
    ("returns", "is_early"),
    [
        ("Container", True),
        ("dagger.Container", True),
        ("'Container'", True),
        ("Command", False),
        ("Container | None", False),
        ("MyContainer", False),
        ("", False),
    ],
)
def test_its_author_says_that_it_only_makes_a_container(*, returns: str, is_early: bool) -> None:
    shop = Pipeline("shop")
    shop.stage(named("build", [], returns=returns))
    assert is_pure(shop, shop.check()["build"]) is is_early


def test_annotation_may_be_the_class_itself() -> None:
    """As it is without postponed annotations."""
    shop = Pipeline("shop")
    function = named("build", [])
    function.__annotations__["return"] = type("Container", (), {})
    shop.stage(function)
    assert is_pure(shop, shop.check()["build"])


@pytest.mark.parametrize(
    "changes", [{"skip": Skip(reason="not on main")}, {"always": True}, {"uses": ("disk",)}]
)
def test_skipped_teardown_and_locked_stages_are_never_begun_early(changes: dict[str, Any]) -> None:
    shop = Pipeline("shop")
    shop.stage(named("build", [], returns="Container"))
    stage = shop.check()["build"]
    assert is_pure(shop, stage)
    assert not is_pure(shop, replace(stage, **changes))


@pytest.mark.parametrize(
    ("step", "args", "is_out"),
    [
        ("withExec", {"args": ["true"]}, False),
        ("withMountedCache", {"path": "/c"}, False),
        ("withMountedCache", {"path": "/c", "sharing": "LOCKED"}, True),
        ("withServiceBinding", {"alias": "db"}, True),
        ("withSecretVariable", {"name": "S"}, True),
        ("withUnixSocket", {"path": "/s"}, True),
        ("withRegistryAuth", {"address": "host"}, True),
        ("from", {"address": "image", "registryService": "id"}, True),
        ("withExec", {"args": ["true"], "experimentalPrivilegedNesting": True}, True),
    ],
)
def test_container_shows_by_its_steps_what_it_reaches(
    *, step: str, args: dict[str, Any], is_out: bool
) -> None:
    """Its own steps, and those of what it is given."""
    own = of(step, args)
    assert reaches_out(own) is is_out
    assert reaches_out(of("withDirectory", {"source": own})) is is_out
    assert reaches_out(of("withDirectories", {"sources": [own]})) is is_out


def of(name: str, args: dict[str, Any]) -> object:
    """Return what has a query as the SDK's objects have one."""
    step = SimpleNamespace(name=name, args=args)
    return SimpleNamespace(_ctx=SimpleNamespace(selections=[step]))


class Works:
    """Ends stages as it was told, after as many steps; so does what is begun early."""

    def __init__(
        self, fails: set[str], steps: Mapping[str, int], emit: Callable[[Event], None]
    ) -> None:
        self.early: dict[str, Early] = {}
        self.begun: list[str] = []
        self._fails, self._steps, self._emit = fails, steps, emit

    async def begin(self, stage: Stage, needed: Mapping[str, Outcome], early: Early) -> None:
        assert set(needed) == set(stage.takes)
        self.begun.append(stage.name)
        if not early.is_late:
            early.is_told = True
            self._emit(EarlyBegun(stage=stage.name))
            await self._work(stage)
            early.container = stage.name

    async def __call__(
        self, stage: Stage, needed: Mapping[str, Outcome], **_options: object
    ) -> Outcome:
        assert set(needed) == set(stage.needs)
        early = self.early.pop(stage.name, None) or Early.none()
        await early.taken_over()
        if not early.container:
            await self._work(stage)
        failed = stage.name in self._fails
        return Outcome(result=Result.FAILURE if failed else Result.SUCCESS)

    async def _work(self, stage: Stage) -> None:
        for _ in range(self._steps[stage.name]):
            await anyio.lowlevel.checkpoint()


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Stage], dict[str, Conditions], dict[str, Any]]:
    names = [f"s{number}" for number in range(draw(st.integers(1, 7)))]
    stages = []
    for place, name in enumerate(names):
        some = st.lists(st.sampled_from(names[:place] or [""]), unique=True, max_size=3)
        needs = tuple(need for need in draw(some) if need)
        takes = tuple(need for need in needs if draw(st.booleans()))
        stages.append(Stage(name=name, needs=needs, takes=takes))
    early = {
        s.name: Conditions(frozenset(s.needs) - {*s.takes}, frozenset(s.takes))
        for s in stages
        if set(s.needs) != set(s.takes)
    }
    return (
        stages,
        early,
        {
            "fails": {name for name in names if draw(st.integers(0, 5)) == 0},
            "steps": {name: draw(st.integers(0, 6)) for name in names},
            "jobs": draw(st.sampled_from([None, 1, 2, 3])),
            "keep_going": draw(st.booleans()),
        },
    )


@given(runs())
def test_early_work_changes_no_result_and_starts_no_stage_early(
    drawn: tuple[list[Stage], dict[str, Conditions], dict[str, Any]],
) -> None:
    """Each is begun once, behind what it takes, and taken over or thrown away; then none is left."""
    stages, early, how = drawn
    told: list[Event] = []

    async def go() -> None:
        def emit(event: Event) -> None:
            told.append(event)
            if begins:
                begins[0](event)

        begins: list[Speculation] = []
        works = Works(how["fails"], how["steps"], emit)
        options = {"jobs": how["jobs"], "keep_going": how["keep_going"]}
        runner = Runner(stages, works, emit=emit, **options)
        async with anyio.create_task_group() as tasks:
            begins.append(
                Speculation(early, runner, works, emit=emit, tasks=tasks, jobs=how["jobs"])
            )
            await runner.run()
            tasks.cancel_scope.cancel()
        assert works.early == {}
        assert len(works.begun) == len(set(works.begun))

    anyio.run(go)
    running: set[str] = set()
    passed: set[str] = set()
    begun: set[str] = set()
    started: set[str] = set()
    for event in told:
        match event:
            case EarlyBegun():
                assert early[event.stage].waits_for <= passed
                assert not early[event.stage].gates.isdisjoint(started)
                assert event.stage not in begun | started
                assert how["jobs"] is None or len(running) < how["jobs"]
                begun.add(event.stage)
            case EarlyDropped():
                begun.remove(event.stage)
            case StageStarted():
                needs = next(stage.needs for stage in stages if stage.name == event.stage)
                assert passed.issuperset(needs)
                running.add(event.stage)
                started.add(event.stage)
            case StageFinished():
                running.discard(event.stage)
                passed |= {event.stage} if event.outcome.passed else set()
    assert begun <= started
    if how["keep_going"]:  # else it is a matter of time what ran when the first one failed
        assert passed == without_early(stages, how)


def without_early(stages: list[Stage], how: dict[str, Any]) -> set[str]:
    works = Works(how["fails"], how["steps"], lambda _: None)
    runner = Runner(stages, works, emit=lambda _: None, keep_going=True, jobs=how["jobs"])
    outcomes = anyio.run(runner.run)
    return {name for name, outcome in outcomes.items() if outcome.passed}
