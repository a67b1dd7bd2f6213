"""Does a stage's work on the engine: takes what it asks for, runs what it returns, keeps reports."""

from __future__ import annotations

import inspect
import re
import shlex
import time
import traceback
from collections.abc import Hashable, Mapping, ValuesView
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from penstock.errors import EngineError, ServiceError, plain_words
from penstock.events import Event, StageFinished
from penstock.evidence import Finding
from penstock.export import export, forget
from penstock.matrix import suffix
from penstock.model import (
    Artifact,
    Command,
    Fault,
    Function,
    Outcome,
    Report,
    Result,
    Service,
    Stage,
    service_key,
)
from penstock.pipeline import BUILT_IN
from penstock.recipes.registry import Registry
from penstock.reports.reading import read
from penstock.services import ServicePool, bind
from penstock.state import Passed, State, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dagger

    from penstock.config import RunInfo
    from penstock.pipeline import Pipeline
    from penstock.redact import Redactor

MARKER = "/tmp/.penstock-run"  # noqa: S108 - inside the container
# The marker tells an executed command from one that the engine had already: the run's id is
# volatile, so another run's id in it means cached. So is the deadline, which may change freely.
WRAPPER = (
    f'printf %s "$PENSTOCK_RUN" > {MARKER}; deadline=$PENSTOCK_DEADLINE; '
    'unset PENSTOCK_RUN PENSTOCK_DEADLINE; exec timeout -s INT -k 5 "$deadline" "$@"'
)
TIMED_OUT_CODES = (124, 130, 137)
TAIL_LINES = 40
# What the engine says when it cannot reach a registry, and when asking again would not help.
REGISTRY_WORDS = (
    "resolve image",
    "resolve source metadata",
    "pull",
    "push",
    "registry",
    "manifest",
)
FINAL_WORDS = ("not found", "unauthorized", "denied", "forbidden", "invalid reference")


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
        secrets: Values by stage and parameter, read before the run began.
    """

    pipeline: Pipeline
    stages: dict[str, Stage]
    run: RunInfo
    pool: ServicePool
    state: State
    redactor: Redactor
    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    _made: dict[Hashable, tuple[Any, Any]] = field(default_factory=dict, init=False)
    _locks: dict[Hashable, anyio.Lock] = field(default_factory=dict, init=False)
    _kept: dict[str, str] = field(default_factory=dict, init=False)
    _spawned: dict[str, Any] = field(default_factory=dict, init=False)
    _users: dict[str, set[str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Find out which stages use which service."""
        for stage in self.stages.values():
            for name in self.pipeline.reached(stage.family):
                if self.pipeline.providers[name].kind == "service":
                    key = service_key(name, suffix(stage.cell))
                    self._users.setdefault(key, set()).add(stage.name)

    async def __call__(
        self, stage: Stage, needed: Mapping[str, Outcome], *, attempt: int, deadline_s: float
    ) -> Outcome:
        """Run one stage; every fault of the author, a service or the engine becomes an outcome."""
        import dagger

        self.stages[stage.name] = stage
        try:
            return await self._run(stage, needed, _Try(attempt, deadline_s))
        except EngineError as error:
            output = error.output if isinstance(error, ServiceError) else ""
            return _error(str(error), error.fault, output)
        except dagger.ExecError as error:
            return _failed_exec(error)
        except dagger.DaggerError as error:
            words = plain_words(str(error)) or type(error).__name__
            return _error(words, _fault(words))
        except OSError as error:
            where = error.filename or self.run.reports
            return _error(f"cannot write {where}: {error.strerror or error}; see to that", None)
        except _RaisedError as error:
            return _raised(error.cause, stage)

    def release(self, event: Event) -> None:
        """Listen for the end of stages, and stop each service after its last user."""
        if isinstance(event, StageFinished):
            for key, users in self._users.items():
                if event.stage in users:
                    users.remove(event.stage)
                    users.update(stage.name for stage in event.outcome.spawned)
                    if not users:
                        self.pool.release(key)

    async def _run(self, stage: Stage, needed: Mapping[str, Outcome], this: _Try) -> Outcome:
        import dagger

        if stage.name in self._spawned:
            return await self._do(stage, self._spawned[stage.name], this)
        registry = Registry(run=self.run, name=self.pipeline.name, pool=self.pool, state=self.state)
        given = {"run": self.run, "commit": self.run.commit[:12], "registry": registry}
        given |= {**stage.cell, **self._results(stage, needed), **self._secrets_of(stage)}
        definition = self.pipeline.providers[stage.family]
        try:
            with anyio.fail_after(this.deadline_s):
                arguments = {
                    name: await self._take(name, given, stage) for name in definition.takes
                }
                returned = await _call(definition.function, arguments)
                self.state.images[stage.family] = images(arguments.values(), returned)
                if isinstance(returned, dagger.Container):
                    returned = await returned.sync()
        except TimeoutError:
            return Outcome(result=Result.TIMEOUT, reason=this.too_long(stage))
        is_async = inspect.iscoroutinefunction(inspect.unwrap(definition.function))
        done = await self._do(stage, returned, this, is_async=is_async)
        return replace(
            done,
            notes=(*done.notes, *registry.notes),
            cached=done.cached or registry.was_rehearsed,
        )

    async def _do(
        self, stage: Stage, returned: object, this: _Try, *, is_async: bool = False
    ) -> Outcome:
        """Do what a stage returned."""
        import dagger

        match returned:
            case Command():
                return await self._command(stage, returned, this)
            case dagger.Container():
                return Outcome(result=Result.SUCCESS, value=await returned.sync())
            case dict() if returned and all(
                isinstance(value, Command | dagger.Container) for value in returned.values()
            ):
                return self._spawn(stage, returned)
        if is_async or returned == {}:
            return Outcome(result=Result.SUCCESS, value=returned)
        message = (
            f"{stage.place}: stage '{stage.name}' returned {type(returned).__name__}; return a "
            f"Command, a container or a dict of them, or make it `async` to hand on any other value"
        )
        return Outcome(result=Result.FAILURE, reason=message)

    def _spawn(self, stage: Stage, returned: Mapping[str, Any]) -> Outcome:
        """Return an outcome with a stage for each entry, which run side by side."""
        children = {
            name: replace(
                stage,
                name=f"{stage.name}[{name}]",
                title=f"{stage.title} [{name}]",
                needs=(stage.name,),
                takes=(),
                cell={**stage.cell, "": name},
            )
            for name in map(str, returned)
        }
        self._spawned |= {
            child.name: value
            for child, value in zip(children.values(), returned.values(), strict=True)
        }
        return Outcome(result=Result.SUCCESS, spawned=tuple(children.values()))

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

    def _secrets_of(self, stage: Stage) -> dict[str, Any]:
        from dagger import dag

        return {
            name: dag.set_secret(f"{family}.{name}", value)
            for (family, name), value in self.secrets.items()
            if family == stage.family
        }

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
        async with self._locks.setdefault(key, anyio.Lock()):
            if key not in self._made:
                made = await _call(provider.function, arguments)
                if isinstance(made, Service):
                    bound = made.deadline_s if provider.deadline_s is None else provider.deadline_s
                    made = replace(made, name=name, cell=cell, deadline_s=bound)
                self._made[key] = (made, arguments)  # kept, so that no id is given twice
            return self._made[key][0]

    async def _command(self, stage: Stage, command: Command, this: _Try) -> Outcome:
        """Run a command unless the engine has it passed already.

        What failed, by its exit code or by a gate on its reports, never comes from the cache: it is
        executed again under another variable.
        """
        into = self.run.reports / file_name(stage.name) if stage.cell else self.run.reports
        if owned := self._owned(stage, command.reports, into):
            return Outcome(result=Result.FAILURE, reason=owned)
        container = bind(command.container, command.services)
        for name, value in command.env.items():
            container = container.with_env_variable(name, value)
        await self.pool.prepare(command.services)
        execute = partial(_with_command, container, command, this.deadline_s, self.run.id)
        definition = await execute(again="").id()
        before = self.state.passed.pop(stage.name, None)
        known = before is not None and before.definition == definition and this.number == 1
        again = before.again if before is not None and known else ""
        if this.number > 1:
            again = f"{self.run.id}.{this.number}"
        judge = partial(self._judge, stage, command, this, into)
        outcome = await judge(execute(again=again), start=not known)
        if outcome.cached and not outcome.passed:
            again = self.run.id
            outcome = await judge(execute(again=again), start=True)
        if outcome.passed:
            self.state.passed[stage.name] = Passed(definition, again)
        return outcome

    async def _judge(
        self,
        stage: Stage,
        command: Command,
        this: _Try,
        into: Path,
        done: dagger.Container,
        *,
        start: bool,
    ) -> Outcome:
        """Evaluate a command, keep its reports, and say what became of it."""
        forget(command.reports, into)
        began = time.monotonic()
        code, cached = await self._evaluate(done, command, start=start)
        took = time.monotonic() - began
        if cached and code != 0:
            return Outcome(result=Result.FAILURE, cached=True)
        output = await done.combined_output()
        artifacts = self._log(stage, output, this.number)
        remarks: list[str] = []
        if command.reports:
            kept, remarks = await export(
                done.directory("."),
                command.reports,
                into,
                folder=self.run.reports,
                redactor=self.redactor,
            )
            artifacts += kept
        reading = read(command.reports, into)
        result = Result.SUCCESS if code == 0 and not reading.gates else Result.FAILURE
        reason = "; ".join(reading.gates) if code == 0 else f"exit code {code}"
        if not cached and code in TIMED_OUT_CODES and took >= this.deadline_s:
            result, reason = Result.TIMEOUT, this.too_long(stage)
        passed = result is Result.SUCCESS
        summary = ", ".join((*reading.summary, *(() if code == 0 else reading.gates)))
        return Outcome(
            result=result,
            reason=reason,
            cached=cached,
            exit_code=code,
            notes=tuple(note for note in (summary, *remarks) if note),
            findings=reading.findings,
            output="" if passed else f"$ {shlex.join(command.argv)}\n{tail(output)}",
            artifacts=tuple(artifacts),
            value=done,
        )

    async def _evaluate(
        self, done: dagger.Container, command: Command, *, start: bool
    ) -> tuple[int, bool]:
        """Return the exit code and whether it came from the cache.

        A definition that passed here before needs no services: the engine answers from its cache.
        Should it have forgotten, it starts them by itself, and they are swept up afterwards.
        """
        if start:
            await self.pool.start(command.services)
        swept = not start
        try:
            code = await done.exit_code()
            cached = await _ran_in(done) != self.run.id
            swept = swept and not cached
        finally:
            if swept:
                with anyio.CancelScope(shield=True):
                    for service in command.services:
                        await self.pool.sweep(service)
        return code, cached

    def _log(self, stage: Stage, output: str, attempt: int) -> list[Artifact]:
        """Write what a command printed; what earlier attempts printed stays beside it."""
        folder = self.run.reports / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        name = file_name(stage.name)
        path = folder / f"{name}.txt"
        earlier = [folder / f"{name}.attempt-{number}.txt" for number in range(1, attempt)]
        if earlier and path.exists():
            path.replace(earlier[-1])
        write_whole(path, self.redactor.mask(output))
        kept = [path, *(log for log in earlier if log.exists())]
        return [Artifact(f"logs/{log.name}", log.stat().st_size) for log in kept]

    def _owned(self, stage: Stage, reports: Sequence[Report], into: Path) -> str:
        """Return why the reports cannot be kept: another stage keeps its own under their names."""
        for report in reports:
            for path in report.paths:
                owner = self._kept.setdefault(str(into / path), stage.name)
                if owner != stage.name:
                    return f"stage '{owner}' keeps a report as '{path}' too; give one another path"
        return ""


class _RaisedError(Exception):
    """Raised when the author's own code raised."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__(str(cause))


async def _call(function: Function, arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any value
    """Call the author's function; what the engine refuses is not the author's fault."""
    import dagger

    try:
        returned = function(**arguments)
        # Not whatever is awaitable: awaiting a container evaluates it.
        return await returned if inspect.iscoroutine(returned) else returned
    except (dagger.DaggerError, EngineError):
        raise
    except Exception as error:
        raise _RaisedError(error) from error


@dataclass(frozen=True)
class _Try:
    """One attempt of a stage."""

    number: int
    deadline_s: float

    def too_long(self, stage: Stage) -> str:
        """Say which deadline it was."""
        if self.deadline_s < stage.deadline_s:
            return "was not done when the run's deadline passed"
        return f"ran longer than its deadline of {stage.deadline_s:g} s"


def _with_command(
    container: dagger.Container, command: Command, deadline_s: float, run_id: str, *, again: str
) -> dagger.Container:
    import dagger

    if again:
        container = container.with_env_variable("PENSTOCK_AGAIN", again)
    return (
        container.with_volatile_variable("PENSTOCK_RUN", run_id)
        .with_volatile_variable("PENSTOCK_DEADLINE", f"{deadline_s:.3f}")
        .with_exec(["sh", "-c", WRAPPER, "sh", *command.argv], expect=dagger.ReturnType.ANY)
    )


async def _ran_in(done: dagger.Container) -> str:
    """Return the id of the run that executed a command; empty when it never began."""
    import dagger

    try:
        return await done.file(MARKER).contents()
    except dagger.QueryError:
        return ""  # the image has no `sh`, say: the exit code and the output tell


def images(*values: object) -> list[str]:
    """Return the names of the images from which containers and services are made.

    Read from the query that the SDK has built up, so nothing is evaluated.
    """
    found: set[str] = set()
    queue: list[Any] = list(values)
    while queue:
        value = queue.pop()
        if isinstance(value, Mapping):
            queue += value.values()
        elif isinstance(value, list | tuple | ValuesView):
            queue += value
        elif isinstance(value, Command | Service):
            queue += [value.container, value.services]
        elif context := getattr(value, "_ctx", None):
            for made in context.selections:
                queue += made.args.values()
                if made.name == "from":
                    found.add(made.args["address"])
    return sorted(found)


def file_name(stage: str) -> str:
    """Return a stage's name as it can stand in a path."""
    return re.sub(r"[^\w.,=\[\]+-]", "-", stage)


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _error(reason: str, fault: Fault | None, output: str = "") -> Outcome:
    return Outcome(result=Result.ERROR, reason=reason, fault=fault, output=tail(output))


def _fault(words: str) -> Fault | None:
    """Return the class of what the engine complains of; nothing when asking again is in vain."""
    words = words.lower()
    if any(final in words for final in FINAL_WORDS):
        return None
    return "registry" if any(word in words for word in REGISTRY_WORDS) else "engine"


def _failed_exec(error: dagger.ExecError) -> Outcome:
    """A command outside a `Command` failed: while a container or a service was being made."""
    printed = f"{error.stdout}\n{error.stderr}".strip()
    return Outcome(
        result=Result.FAILURE,
        reason=f"exit code {error.exit_code}",
        exit_code=error.exit_code,
        output=f"$ {shlex.join(error.command)}\n{tail(printed)}",
    )


def _raised(error: Exception, stage: Stage) -> Outcome:
    """The author's own Python raised."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    own = str(Path(__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if not frame.filename.startswith(own)]
    file, _, line = stage.place.rpartition(":")
    if places:
        file, line = places[0].filename, str(places[0].lineno)
    words = f"stage '{stage.name}' raised {type(error).__name__}: {error}"
    return Outcome(
        result=Result.FAILURE,
        reason=f"{type(error).__name__}: {error}",
        findings=(Finding(file=file, line=int(line or 0), message=words),),
        output=tail("".join(traceback.format_exception(error))),
    )
