"""Does a stage's work on the engine: takes what it asks for, runs what it returns, keeps reports."""

from __future__ import annotations

import inspect
import shlex
import time
import traceback
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from penstock.errors import EngineError, ServiceError
from penstock.events import Event, StageFinished
from penstock.export import export, read
from penstock.model import Artifact, Command, Outcome, Result, Service, Stage
from penstock.recipes.registry import Registry
from penstock.services import ServicePool, bind
from penstock.state import Passed, State, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dagger

    from penstock.config import RunInfo
    from penstock.pipeline import Pipeline
    from penstock.redact import Redactor

MARKER = "/tmp/.penstock-run"  # noqa: S108 - inside the container
# `$0` is the deadline, the rest the command. The marker tells an executed command from one that
# the engine had already: the run's id is volatile, so another run's id in it means cached.
WRAPPER = (
    f'printf %s "$PENSTOCK_RUN" > {MARKER}; unset PENSTOCK_RUN; exec timeout -s INT -k 5 "$0" "$@"'
)
TIMED_OUT_CODES = (124, 130, 137)
TAIL_LINES = 40
REPORTS_S = 60.0


@dataclass
class Executor:
    """Executes the stages of one run.

    Args:
        pipeline: Provides what stages take by name.
        run: The surroundings.
        pool: Starts and stops services.
        state: What earlier runs left.
        redactor: Masks the logs that are written here.
        secrets: Values by stage and parameter, read before the run began.
    """

    pipeline: Pipeline
    run: RunInfo
    pool: ServicePool
    state: State
    redactor: Redactor
    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict)
    _made: dict[str, Any] = field(default_factory=dict)
    _locks: dict[str, anyio.Lock] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    async def __call__(self, stage: Stage, needed: Mapping[str, Outcome]) -> Outcome:
        """Run one stage; every fault of the author, a service or the engine becomes an outcome."""
        import dagger

        try:
            return await self._run(stage, {name: o.value for name, o in needed.items()})
        except EngineError as error:
            output = error.output if isinstance(error, ServiceError) else ""
            return Outcome(result=Result.ERROR, reason=str(error), output=tail(output))
        except dagger.ExecError as error:
            return _failed_exec(error)
        except (dagger.DaggerError, OSError) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            return Outcome(result=Result.ERROR, reason=words[:500])
        except Exception as error:  # noqa: BLE001 - the author's own code may raise anything
            return _raised(error, stage)

    def release(self, event: Event) -> None:
        """Listen for the end of stages, and stop each service after its last user."""
        if isinstance(event, StageFinished):
            self._ended.add(event.stage)
            for name, provider in self.pipeline.providers.items():
                users = self.pipeline.users(name) if provider.kind == "service" else []
                if event.stage in users and self._ended.issuperset(users):
                    self.pool.release(name)

    async def _run(self, stage: Stage, results: Mapping[str, Any]) -> Outcome:
        registry = self._registry()
        extra = {**results, "run": self.run, "commit": self.run.commit[:12], "registry": registry}
        extra |= self._secrets_of(stage)
        arguments = {name: await self._take(name, extra) for name in stage.takes}
        returned = stage.function(**arguments)
        if inspect.isawaitable(returned):
            returned = await returned
        if isinstance(returned, Command):
            return await self._command(stage, returned)
        if _is_container(returned):
            return Outcome(result=Result.SUCCESS, value=await returned.sync())
        if not inspect.iscoroutinefunction(inspect.unwrap(stage.function)):
            message = (
                f"{stage.place}: stage '{stage.name}' returned {type(returned).__name__}; return a "
                f"Command or a container, or make it `async` to hand on any other value"
            )
            return Outcome(result=Result.FAILURE, reason=message)
        notes = tuple(registry.notes)
        return Outcome(
            result=Result.SUCCESS, value=returned, notes=notes, cached=registry.was_rehearsed
        )

    def _registry(self) -> Registry:
        return Registry(run=self.run, name=self.pipeline.name, pool=self.pool, state=self.state)

    def _secrets_of(self, stage: Stage) -> dict[str, Any]:
        from dagger import dag

        return {
            name: dag.set_secret(f"{stage.name}.{name}", self.secrets[stage.name, name])
            for name in stage.secrets
        }

    async def _take(self, name: str, extra: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any value
        """Return what stands behind a parameter, making it once per run."""
        if name in extra:
            return extra[name]
        async with self._locks.setdefault(name, anyio.Lock()):
            if name not in self._made:
                provider = self.pipeline.providers[name]
                arguments = {taken: await self._take(taken, extra) for taken in provider.takes}
                made = provider.function(**arguments)
                if inspect.isawaitable(made):
                    made = await made
                self._made[name] = replace(made, name=name) if isinstance(made, Service) else made
            return self._made[name]

    async def _command(self, stage: Stage, command: Command) -> Outcome:
        container = bind(command.container, command.services)
        for name, value in command.env.items():
            container = container.with_env_variable(name, value)
        began = time.monotonic()
        done, cached, code = await self._execute(stage, command, container)
        took = time.monotonic() - began
        output = await done.combined_output()
        artifacts = [self._log(stage, output)]
        remarks: list[str] = []
        if command.reports:
            files = done.directory(".")
            kept, remarks = await export(files, command.reports, self.run.reports, stage.name)
            artifacts += kept
        reading = read(command.reports, self.run.reports)
        timed_out = not cached and code in TIMED_OUT_CODES and took >= stage.deadline_s
        result = Result.SUCCESS if code == 0 and not reading.gates else Result.FAILURE
        reason = "; ".join(reading.gates) if code == 0 else f"exit code {code}"
        if timed_out:
            result = Result.TIMEOUT
            reason = f"ran longer than its deadline of {stage.deadline_s:g} s"
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

    async def _execute(
        self, stage: Stage, command: Command, container: dagger.Container
    ) -> tuple[dagger.Container, bool, int]:
        """Run the command unless the engine has it passed already.

        Returns:
            The container after it, whether it came from the cache, and its exit code. A failed
            command never comes from the cache: it is executed again under another variable.
        """
        await self.pool.prepare(command.services)
        execute = partial(_with_command, container, command, stage.deadline_s, self.run.id)
        definition = await execute(again="").id()
        before = self.state.passed.pop(stage.name, None)
        known = before is not None and before.definition == definition
        again = before.again if before is not None and known else ""
        done = execute(again=again)
        code, cached = await self._evaluate(done, command, start=not known)
        if cached and code != 0:
            again = self.run.id
            done = execute(again=again)
            code, _ = await self._evaluate(done, command, start=True)
            cached = False
        if code == 0:
            self.state.passed[stage.name] = Passed(definition, again)
        return done, cached, code

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

    def _log(self, stage: Stage, output: str) -> Artifact:
        path = self.run.reports / "logs" / f"{stage.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.redactor.mask(output))
        return Artifact(f"logs/{path.name}", path.stat().st_size)


def _with_command(
    container: dagger.Container, command: Command, deadline_s: float, run_id: str, *, again: str
) -> dagger.Container:
    import dagger

    if again:
        container = container.with_env_variable("PENSTOCK_AGAIN", again)
    return container.with_volatile_variable("PENSTOCK_RUN", run_id).with_exec(
        ["sh", "-c", WRAPPER, f"{deadline_s:g}", *command.argv], expect=dagger.ReturnType.ANY
    )


async def _ran_in(done: dagger.Container) -> str:
    """Return the id of the run that executed a command; empty when it never began."""
    import dagger

    try:
        return await done.file(MARKER).contents()
    except dagger.QueryError:
        return ""  # the image has no `sh`, say: the exit code and the output tell


def _is_container(value: object) -> bool:
    import dagger

    return isinstance(value, dagger.Container)


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _failed_exec(error: dagger.ExecError) -> Outcome:
    """A command outside a `Command` failed: while a container or a service was being made."""
    printed = f"{error.stdout}\n{error.stderr}".strip()
    return Outcome(
        result=Result.FAILURE,
        reason=f"exit code {error.exit_code}",
        exit_code=error.exit_code,
        output=f"$ {shlex.join(error.command)}\n{tail(printed)}",
    )


def _raised(error: BaseException, stage: Stage) -> Outcome:
    """The author's own Python raised."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    own = str(Path(__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if not frame.filename.startswith(own)]
    place = f"{places[0].filename}:{places[0].lineno}" if places else stage.place
    return Outcome(
        result=Result.FAILURE,
        reason=f"{type(error).__name__}: {error}",
        findings=(f"{place}: stage '{stage.name}' raised {type(error).__name__}: {error}",),
        output=tail("".join(traceback.format_exception(error))),
    )
