"""Does a stage's work: takes what its function asks for, calls it, judges what it returns."""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from penstock import stuck
from penstock.again import patience, patiently
from penstock.causes import cause
from penstock.command import Commands, Try, printed, tail
from penstock.errors import EngineError, ServiceError
from penstock.events import EarlyBegun, Event, ServiceFailed, StageFinished
from penstock.evidence import Finding
from penstock.filter import script
from penstock.inputs import digest, images, inputs, why
from penstock.matrix import suffix
from penstock.model import Command, Fault, Function, Outcome, Result, Service, Stage, service_key
from penstock.pipeline import BUILT_IN
from penstock.purity import reaches_out
from penstock.query import Queries
from penstock.recipes.registry import Registry
from penstock.services import death
from penstock.speculation import Early

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable, Iterator, Mapping, Sequence

    import dagger

    from penstock.affected import HostFolder
    from penstock.config import RunInfo
    from penstock.live import Live
    from penstock.pipeline import Pipeline
    from penstock.redact import Redactor
    from penstock.runner import Tried
    from penstock.services import ServicePool
    from penstock.state import State
    from penstock.verdicts import Verdicts

SIGNAL_S = 0.1
UNHEEDED_S = 1.5  # for a coroutine of the author's to heed its cancellation
MOST_RAISED = 10  # of the exceptions in a group, told with their lines


@dataclass
class Executor:
    """Executes the stages of one run.

    Args:
        pipeline: Provides what stages take by name.
        stages: Those of the run.
        run: The surroundings.
        pool: Starts and stops services.
        state: What earlier runs left.
        redactor: Masks the logs that are written here.
        live: Knows what the engine does for a stage as that stage's.
        secrets: Values by stage and parameter, read before the run began.
        queries: What containers and commands are made from.
        verdicts: Those of other runs, where there is a place for them.
        reads: Learns the folders of this machine that each stage is made from.
    """

    pipeline: Pipeline
    stages: dict[str, Stage]
    run: RunInfo
    pool: ServicePool
    state: State
    redactor: Redactor
    live: Live
    secrets: Mapping[tuple[str, str], str] = field(repr=False)
    queries: Queries = field(default_factory=Queries)
    verdicts: Verdicts | None = None
    reads: dict[str, set[HostFolder]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find out which stages use which service."""
        self.early: dict[str, Early] = {}  # by stage, until that starts and takes it over
        self._commands = Commands(self.run, self.pool, self.state, self.redactor, self.live.emit)
        self._made: dict[Hashable, tuple[Any, Any]] = {}
        self._making: dict[Hashable, anyio.Lock] = defaultdict(anyio.Lock)
        self._masks: dict[str, str] = {}
        self._spawned: dict[str, Any] = {}
        self.made_from: dict[str, dict[str, str]] = defaultdict(dict)
        self._users: dict[str, set[str]] = defaultdict(set)
        for stage in self.stages.values():
            for key in self.pipeline.services(stage):
                self._users[key].add(stage.name)

    async def __call__(
        self,
        stage: Stage,
        needed: Mapping[str, Outcome],
        *,
        attempt: int,
        deadline_s: float,
        tried: Tried,
    ) -> Outcome:
        """Run one stage; every fault of the author, a service or the engine becomes an outcome."""
        import dagger

        self.stages[stage.name] = stage
        # Who says how often a stage is tried again is taken at their word.
        is_told = "retries" in self.pipeline.definitions[stage.family].options
        unasked = nullcontext() if is_told else patience(tried)
        try:
            with self.live.under(stage=stage.name), unasked:
                mask = self._mask(stage.family)
                return await self._run(needed, Try(stage, attempt, deadline_s, mask))
        except EngineError as error:
            return _error(str(error), error.fault, error.output)
        except dagger.ExecError as error:
            return _failed_exec(error)
        except dagger.DaggerError as error:
            return await self._broken(stage, str(error) or type(error).__name__)
        except OSError as error:
            where = error.filename or self.run.reports
            return _error(f"cannot write {where}: {error.strerror or error}; see to that", None)
        except _RaisedError as error:
            return _raised(error.error, stage, self.run.root)

    def _mask(self, family: str) -> str:
        """Return what masks a stage's secrets in its container; those of others are not its own."""
        if family not in self._masks:
            own = [value for (stage, _), value in self.secrets.items() if stage == family]
            self._masks[family] = script(own)
        return self._masks[family]

    def release(self, event: Event) -> None:
        """Listen for the end of stages, and stop each service after its last user."""
        if not isinstance(event, StageFinished):
            return
        for key, users in self._users.items():
            if event.stage in users:
                users.remove(event.stage)
                users.update(stage.name for stage in event.outcome.spawned)
                if not users:
                    self.pool.release(key)

    async def _broken(self, stage: Stage, text: str) -> Outcome:
        """Return what becomes of a stage with whose commands the engine cannot go on."""
        if not (found := death(text)):
            why = cause(text)
            return _error(why.words, why.fault)
        name, how = found
        key = service_key(name, _own(stage.cell))
        error = ServiceError(key, how, await self.live.last_lines(key))
        self.live.emit(ServiceFailed(service=key, what="service", reason=how))
        return _error(str(error), error.fault, error.output)

    async def _run(self, needed: Mapping[str, Outcome], this: Try) -> Outcome:
        import dagger

        registry = Registry(run=self.run, name=self.pipeline.name, pool=self.pool, state=self.state)
        early = self.early.pop(this.stage.name, None) or Early.none()
        try:
            with anyio.fail_after(this.deadline_s):
                await early.taken_over()
                asked = early.asked or await self._ask(this.stage, needed, registry)
                returned, made_from = asked
                if isinstance(returned, dagger.Container):
                    evaluated = early.container or await patiently(returned.sync)
                    self.queries.keep_as(evaluated, returned)
                    returned = evaluated
        except TimeoutError:
            return Outcome(result=Result.TIMEOUT, reason=this.too_long)
        done = await self._do(returned, this)
        cached = done.cached or registry.was_rehearsed
        before = self.state.inputs.get(this.stage.name)
        reasons = [str(done.origin)] if done.origin else why(before, made_from, cached=cached)
        if early.container:
            reasons.append(f"begun {early.saved_s:.1f} s early (--speculate)")
        if done.passed:
            self.state.inputs[this.stage.name] = made_from
        return replace(
            done, notes=(*done.notes, *registry.notes), cached=cached, why=tuple(reasons)
        )

    async def begin(self, stage: Stage, needed: Mapping[str, Outcome], early: Early) -> None:
        """Do the work of a stage that has not started, if that is a container and nothing more."""
        import dagger

        with self.live.under(stage=stage.name):
            early.asked = await self._ask(stage, needed, registry=None)
            container, _ = early.asked
            is_possible = isinstance(container, dagger.Container) and not reaches_out(container)
            if is_possible and not early.is_late:
                early.is_told = True
                self.live.emit(EarlyBegun(stage=stage.name))
                early.container = await container.sync()

    async def _ask(
        self, stage: Stage, needed: Mapping[str, Outcome], registry: Registry | None
    ) -> tuple[Any, dict[str, str]]:
        """Return what a stage returns, or another one returned for it, and what that is made from.

        The SDK no longer knows that of what the engine was asked for.
        """
        from dagger import dag

        if found := self._spawned.get(stage.name):
            return found, await self._inputs(stage, [found])
        definition = self.pipeline.providers[stage.family]
        secrets = {
            name: dag.set_secret(f"{family}.{name}", value)
            for (family, name), value in self.secrets.items()
            if family == stage.family
        }
        given = {"run": self.run, "commit": self.run.commit[:12], "registry": registry}
        given |= {**stage.cell, **self._results(stage, needed), **secrets}
        arguments = {name: await self._take(name, given, stage) for name in definition.takes}
        returned = await _call(definition.function, arguments)
        self.queries.keep(returned)
        return returned, await self._inputs(stage, [*arguments.values(), returned])

    async def _inputs(self, stage: Stage, values: list[Any]) -> dict[str, str]:
        """Return what a stage is made from, the results of others included."""
        mask = self.redactor.mask
        folders: dict[HostFolder, dict[str, str]] = {}
        # Off the loop, which has to hear the engine and signals; kept on disk, so without secrets.
        found = await anyio.to_thread.run_sync(
            lambda: {
                mask(what): made for what, made in inputs(values, self.queries, folders).items()
            }
        )
        self.reads[stage.name] = set(folders)
        self.state.images[stage.family] = images(found)
        results = {f"result of {need}": digest(self.made_from[need]) for need in stage.takes}
        self.made_from[stage.name] = found | results
        return self.made_from[stage.name]

    async def _do(self, returned: object, this: Try) -> Outcome:
        """Do what a stage returned."""
        import dagger

        stage = this.stage
        match returned:
            case Command():
                verdicts = self.verdicts if self._may_be_reused(stage) else None
                return await self._commands.execute(returned, this, verdicts)
            case dagger.Container():
                return Outcome(result=Result.SUCCESS, value=returned)
            case dict() if all(
                isinstance(v, Command | dagger.Container) for v in returned.values()
            ):
                if len(set(map(str, returned))) < len(returned):
                    words = f"{stage.place}: stage '{stage.name}' found out two stages of one name"
                    return Outcome(result=Result.FAILURE, reason=words)
                spawned = self._spawn(stage, returned)
                return Outcome(result=Result.SUCCESS, value=returned, spawned=spawned)
        function = self.pipeline.providers[stage.family].function
        if inspect.iscoroutinefunction(inspect.unwrap(function)):
            return Outcome(result=Result.SUCCESS, value=returned)
        message = (
            f"{stage.place}: stage '{stage.name}' returned {type(returned).__name__}; return a "
            f"Command, a container or a dict of them, or make it `async` to hand on any other value"
        )
        return Outcome(result=Result.FAILURE, reason=message)

    def _may_be_reused(self, stage: Stage) -> bool:
        """Return whether another run's verdict on a command of a stage may stand for this one's.

        Not where the stage has another purpose than its verdict: to tear something down, to do what
        only an `async` function does, to use a secret, or to hand its container on.
        """
        function = self.pipeline.providers[stage.family].function
        return not (
            stage.always
            or inspect.iscoroutinefunction(inspect.unwrap(function))
            or any(family == stage.family for family, _ in self.secrets)
            or any(stage.name in other.takes for other in self.stages.values())
        )

    def _spawn(self, stage: Stage, returned: Mapping[str, Any]) -> tuple[Stage, ...]:
        """Return a stage for each entry, which run side by side."""
        children = {
            f"{stage.name}[{name}]": replace(
                stage,
                name=f"{stage.name}[{name}]",
                title=f"{stage.title} [{name}]",
                needs=(stage.name,),
                takes=(),
                cell={**stage.cell, "": name},
            )
            for name in map(str, returned)
        }
        for child, value in zip(children.values(), returned.values(), strict=True):
            self._spawned[child.name] = self._with_own_services(child, value)
        return tuple(children.values())

    def _with_own_services(self, child: Stage, value: Any) -> Any:  # noqa: ANN401 - any value
        """Return what a stage was found to do, with servers that no other stage uses."""

        def own(services: Sequence[Service]) -> list[Service]:
            made = [
                replace(service, cell=_own(child.cell), services=own(service.services))
                for service in services
            ]
            for service in made:
                self._users[service.key].add(child.name)
            return made

        if isinstance(value, Command):
            return replace(value, services=own(value.services))
        return value

    def _results(self, stage: Stage, needed: Mapping[str, Outcome]) -> dict[str, Any]:
        """Return what the needed stages handed on, by the names of their functions.

        Of a stage with a matrix, or with stages that it found out, these are all by their names;
        unless it is the one cell that agrees with the taker's own.
        """
        results: dict[str, Any] = {}
        for name in stage.takes:
            of = self.stages[name]
            if needed[name].spawned:
                results.setdefault(of.family, {})
            elif of.cell.items() <= stage.cell.items():
                results[of.family] = needed[name].value
            else:
                results.setdefault(of.family, {})[name] = needed[name].value
        return results

    async def _take(self, name: str, given: Mapping[str, Any], stage: Stage) -> Any:  # noqa: ANN401 - any value
        """Return what stands behind a parameter, made once for each set of what it takes itself.

        A service is made once for each cell of a matrix: cells must not see each other's data.
        """
        if name in given:
            return given[name]
        provider = self.pipeline.providers[name]
        arguments = {taken: await self._take(taken, given, stage) for taken in provider.takes}
        cell = suffix(stage.cell) if provider.kind == "service" else ""
        own = [id(value) for taken, value in arguments.items() if taken not in BUILT_IN]
        key = (name, cell, *own)
        async with self._making[key]:
            if key not in self._made:
                made = await _call(provider.function, arguments)
                self.queries.keep(made)
                if isinstance(made, Service):
                    bound = made.deadline_s if provider.deadline_s is None else provider.deadline_s
                    made = replace(made, name=name, cell=cell, deadline_s=bound)
                self._made[key] = (made, arguments)  # kept, so that no id is given twice
            return self._made[key][0]


class _RaisedError(Exception):
    """Raised when the author's own code raised; holds what.

    Args:
        error: What it raised.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


async def _call(function: Function, arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any value
    """Call the author's function; what the engine refuses is not the author's fault."""
    import dagger

    try:
        returned = function(**arguments)
        # Not whatever is awaitable: awaiting a container evaluates it.
        return await _awaited(returned) if inspect.iscoroutine(returned) else returned
    except (dagger.DaggerError, EngineError):
        raise
    except anyio.get_cancelled_exc_class() as error:
        if anyio.current_effective_deadline() == -math.inf:
            raise
        raise _RaisedError(error) from error  # of a task of the author's own
    except BaseException as error:
        # `sys.exit()`, say, would end the whole run.
        if not (held_up := _held_up(error)):
            raise _RaisedError(error) from error
        await anyio.sleep(SIGNAL_S)  # if it is a signal that wants the run to end, it does here
        words = f"held up the whole run for {stuck.HOLD_S:g} s: await, or give it to a command"
        raise _RaisedError(TimeoutError(words).with_traceback(held_up.__traceback__)) from error


def _held_up(error: BaseException) -> BaseException | None:
    """Return the alarm's own exception, if it is what an author's code ended with."""
    return next((one for one in _leaves(error) if isinstance(one, stuck.StuckError)), None)


async def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - any value
    """Await an author's coroutine.

    It has a task of its own, which is left behind when it does not heed its cancellation.
    """
    scope = anyio.CancelScope()

    async def work() -> tuple[BaseException | None, Any]:
        with scope:
            try:
                return None, await coroutine
            except BaseException as error:
                if scope.cancel_called:
                    raise
                return error, None
        return None, None

    task = asyncio.create_task(work())
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            scope.cancel()  # not the task: what is shielded in there stays so
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task}, timeout=UNHEEDED_S)
    error, value = task.result()
    if error:
        raise error
    return value


def _own(cell: Mapping[str, Any]) -> str:
    """Return what tells the services of a stage from those of others: `[db=15][found]`."""
    axes = {axis: value for axis, value in cell.items() if axis}
    return suffix(axes) + (f"[{cell['']}]" if "" in cell else "")


def _error(reason: str, fault: Fault | None, output: str = "") -> Outcome:
    return Outcome(result=Result.ERROR, reason=reason, fault=fault, output=tail(output))


def _failed_exec(error: dagger.ExecError) -> Outcome:
    """A command outside a `Command` failed: while a container or a service was being made."""
    return Outcome(
        result=Result.FAILURE,
        reason=f"exit code {error.exit_code}",
        exit_code=error.exit_code,
        output=printed(error.command, f"{error.stdout}\n{error.stderr}".strip()),
    )


def _raised(error: BaseException, stage: Stage, root: Path) -> Outcome:
    """The author's own Python raised: one exception, or several in a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    findings = []
    for one in islice(_leaves(error), MOST_RAISED):
        file, line = _where(one, stage, root)
        message = f"stage '{stage.name}' raised {_words(one)}"
        findings.append(Finding(file=file, line=line, message=message))
    return Outcome(
        result=Result.FAILURE,
        reason=_words(error),
        findings=tuple(findings),
        output=tail("".join(traceback.format_exception(error))),
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _where(error: BaseException, stage: Stage, root: Path) -> tuple[str, int]:
    """Return the first file and line of the project's own that an exception came through."""
    own = str(Path(__file__).parent)
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(own)
    ]
    # A task of the author's begins in the library that runs it.
    near = [f for f in frames if _is_within(f.filename, root)]
    for frame in near or frames:
        return frame.filename.removeprefix(f"{root}/"), frame.lineno or 0
    file, _, line = stage.place.rpartition(":")
    return file.removeprefix(f"{root}/"), int(line or 0)


def _is_within(file: str, root: Path) -> bool:
    return Path(file).is_relative_to(root) and "site-packages" not in file


def _words(error: BaseException) -> str:
    """Return an exception's kind and what it says, if it can say anything."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - whatever the author's `__str__` raises
        return f"{type(error).__name__}: (its words cannot be shown)"
