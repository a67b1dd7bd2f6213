"""Runs the command of a stage: cached or not, its services, its reports, its verdict."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import anyio
from anyio.to_thread import run_sync

from penstock.again import patiently
from penstock.causes import FULL
from penstock.events import ActivityChanged, Event, Warned
from penstock.export import Measured, export, forget, measure
from penstock.filter import RUN_FILTERED, SCRIPT
from penstock.folder import file_name, write_whole
from penstock.model import Artifact, Command, Outcome, Report, Result, Stage
from penstock.reports.problems import problems
from penstock.reports.reading import Reading, read
from penstock.reports.record import LOG_FOLDER, RESERVED
from penstock.services import ServicePool, bind, death
from penstock.state import Passed, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import dagger

    from penstock.config import RunInfo
    from penstock.evidence import Finding
    from penstock.redact import Redactor
    from penstock.verdicts import Found, Verdicts

MARKER = "/tmp/.penstock-run"  # noqa: S108 - inside the container
# Tells an executed command from one that the engine had already: the run's id is volatile, so
# another run's id in it means cached. So is the deadline, which may change freely. Both are in a
# variable that only this stage has, as the engine takes volatile ones of one name to be equal,
# whatever their values, and would give it the deadline of a stage beside it, or the id of a run that
# began in the same session since. And it tells how the command ended, as
# the engine takes an exit code that tells of a signal (128 to 191) for a broken container, whose
# files and words are lost then. What the shell sets before the command has names that no author's
# variables have: of one that is there already, the command would see another value.
LIMITED = 'exec timeout -s INT -k 5 "$penstock_deadline" "$@"'
WRAPPER = (
    r'eval "penstock_run=\$$1"; unset "$1"; shift; '
    "penstock_deadline=${penstock_run#* }; penstock_run=${penstock_run% *}; "
    "exec 7>&2 2>/dev/null; (exec 2>&7 7>&-; COMMAND); code=$?; "
    f'{{ printf "%s %s\n" "$penstock_run" "$code"; MEASURE; }} >{MARKER}; '
    '[ "$code" -lt 128 ] || [ "$code" -gt 191 ] || code=1; exit "$code"'
)
TIMED_OUT_CODES = (124, 130, 137)
TAIL_LINES, MOST_TAIL, MOST_LINE = 50, 32_000, 4_000


@dataclass(frozen=True)
class Try:
    """One attempt of a stage.

    Args:
        stage: The stage.
        number: 1 for the first try.
        deadline_s: When it has to be at its end, in seconds from its beginning.
        mask: The script that masks the stage's secrets inside the container; empty without any.
    """

    stage: Stage
    number: int
    deadline_s: float
    mask: str = field(default="", repr=False)

    @property
    def variable(self) -> str:
        """The variable that tells its command the run and the deadline."""
        return f"PENSTOCK_TRY_{hashlib.sha256(self.stage.name.encode()).hexdigest()[:12]}"

    @property
    def too_long(self) -> str:
        """In words, which deadline it was that passed."""
        if self.deadline_s < self.stage.deadline_s:
            return "was not done when the run's deadline passed"
        return f"ran longer than its deadline of {self.stage.deadline_s:g} s"


@dataclass(frozen=True)
class _Told:
    """What the engine, and the marker, tell of a command that is over.

    Args:
        code: Its exit code.
        run: The id of the run that executed it; empty when the marker is missing.
        measured: Of its reports.
    """

    code: int
    run: str
    measured: Measured

    @classmethod
    def read(cls, code: int, marker: str, reports: Sequence[Report]) -> _Told:
        """Read a marker, which knows the code better than the engine."""
        ending, _, measured = marker.partition("\n")
        run, _, told = ending.partition(" ")
        return cls(
            int(told) if re.fullmatch(r"\d{1,3}", told) else code,
            run,
            Measured.read(measured, reports),
        )


@dataclass
class Commands:
    """Runs the commands of one run.

    Args:
        run: The surroundings.
        pool: Starts and stops services.
        state: What earlier runs left.
        redactor: Masks the logs and reports that are written here.
        emit: Takes what the reports say.
    """

    run: RunInfo
    pool: ServicePool
    state: State
    redactor: Redactor
    emit: Callable[[Event], None]
    _keepers: dict[Path, str] = field(default_factory=dict, init=False)
    # One output in memory at a time: there is no other bound on what stages print.
    _reading: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def execute(
        self, command: Command, this: Try, verdicts: Verdicts | None = None
    ) -> Outcome:
        """Run a command unless the engine has it passed already, or another run has.

        What failed, by its exit code or by a gate on its reports, never comes from the cache: it is
        executed again under another variable.
        """
        name, into = this.stage.name, self.run.reports
        if this.stage.cell:
            into /= file_name(name)
        if refusal := self._refusal(name, command, into):
            return Outcome(result=Result.FAILURE, reason=refusal)
        if verdicts and this.number == 1:
            found = await verdicts.find(this.stage, command, into)
            if found and (outcome := await self._taken_over(found, command, this, into)):
                return outcome
        await self.pool.prepare(command.services)
        definition = await patiently(self._made(command, this, again="").id)
        before = self.state.passed.pop(name, Passed(""))
        known = before.definition == definition and this.number == 1
        anew = f"{self.run.id}.{this.number}"
        again = before.again if known else ""
        if this.number > 1:
            again = anew
        outcome, reading = await self._judge(command, this, into, again=again, start=not known)
        if outcome.cached and not outcome.passed:
            again = anew
            outcome, reading = await self._judge(command, this, into, again=again, start=True)
        for event in reading.events(name):
            self.emit(event)
        if outcome.passed:
            self.state.passed[name] = Passed(definition, again)
        return outcome

    async def _taken_over(
        self, found: Found, command: Command, this: Try, into: Path
    ) -> Outcome | None:
        """Return another run's verdict, if its reports can be had and pass the gates here too."""
        import dagger

        forget(command.reports, into)
        remarks: list[str] = []
        try:
            files = self._log(this, self.redactor.mask(await found.log.contents()))
            if command.reports:
                kept, remarks = await self._kept(found.reports, command, into, Measured())
                files += kept
        except dagger.QueryError:
            return None
        reading = read(command.reports, into, self.run.root)
        if reading.gates:
            return None
        for event in reading.events(this.stage.name):
            self.emit(event)
        return Outcome(
            result=Result.SUCCESS,
            cached=True,
            origin=found.origin,
            exit_code=0,
            notes=tuple(filter(None, (", ".join(reading.summary), *remarks, str(found.origin)))),
            findings=tuple(reading.findings),
            artifacts=await run_sync(_described, files, self.run.reports),
        )

    def _refusal(self, stage: str, command: Command, into: Path) -> str:
        """Return why the reports cannot be kept: another one is kept under their names."""
        for report in command.reports:
            for path in report.paths:
                if into == self.run.reports and PurePosixPath(path).parts[0] in RESERVED:
                    return f"'{path}' is where the run itself writes; give the report another path"
                keeper = self._keepers.setdefault(into / path, stage)
                if keeper != stage:
                    return f"stage '{keeper}' keeps a report as '{path}' too; give one another path"
        return ""

    def _made(self, command: Command, this: Try, *, again: str) -> dagger.Container:
        """Return the container after the command, which nothing has evaluated yet."""
        import dagger

        container = bind(command.container, command.services, self.pool.live)
        variables = {**command.env, **({"PENSTOCK_AGAIN": again} if again else {})}
        for name, value in variables.items():
            container = container.with_env_variable(name, value)
        if this.mask:
            secret = dagger.dag.set_secret(f"penstock-mask.{this.stage.family}", this.mask)
            # For whatever user the image has; the command was given these secrets itself.
            container = container.with_mounted_secret(SCRIPT, secret, mode=0o444)
        paths = [path for report in command.reports for path in report.paths]
        wrapper = WRAPPER.replace("COMMAND", RUN_FILTERED if this.mask else LIMITED)
        wrapper = wrapper.replace("MEASURE", measure(paths))
        return container.with_volatile_variable(
            this.variable, f"{self.run.id} {this.deadline_s:.3f}"
        ).with_exec(
            ["sh", "-c", wrapper, "sh", this.variable, *command.argv],
            expect=dagger.ReturnType.ANY,
        )

    async def _judge(
        self, command: Command, this: Try, into: Path, *, again: str, start: bool
    ) -> tuple[Outcome, Reading]:
        """Evaluate a command, keep its reports, and say what became of it."""
        done = self._made(command, this, again=again)
        forget(command.reports, into)
        began = time.monotonic()
        told = await self._evaluate(done, command, this.stage.name, start=start)
        code, cached = told.code, told.run != self.run.id
        took = time.monotonic() - began
        # Nothing that was made for this run alone is cached, even if its marker cannot be read.
        cached = cached and not again.startswith(self.run.id)
        if cached and code != 0:
            return Outcome(result=Result.FAILURE, cached=True), Reading()
        output, found, files = await self._said(done, this, has_failed=code != 0)
        if code != 0 and FULL.search(output):
            await self._write_something()
        remarks: list[str] = []
        if command.reports:
            there = done.directory(".")
            kept, remarks = await self._kept(there, command, into, told.measured)
            files += kept
        reading = read(command.reports, into, self.run.root)
        result = Result.SUCCESS if code == 0 and not reading.gates else Result.FAILURE
        reason = "; ".join(reading.gates) if code == 0 else f"exit code {code}"
        if not cached and code in TIMED_OUT_CODES and took >= this.deadline_s:
            result, reason = Result.TIMEOUT, this.too_long
        summary = ", ".join((*reading.summary, *(() if code == 0 else reading.gates)))
        outcome = Outcome(
            result=result,
            reason=reason,
            cached=cached,
            exit_code=code,
            notes=tuple(note for note in (summary, *remarks) if note),
            findings=(*reading.findings, *found),
            output=printed(command.argv, output),
            artifacts=await run_sync(_described, files, self.run.reports),
            value=done.without_mount(SCRIPT) if this.mask else done,
        )
        return outcome, reading

    async def _kept(
        self, files: dagger.Directory, command: Command, into: Path, measured: Measured
    ) -> tuple[list[Path], list[str]]:
        """Export the reports; where that is impossible here, the result stands without them.

        A gate on a report that is missing then fails: it was asked for.
        """
        try:
            return await export(
                files,
                command.reports,
                into,
                measured=measured,
                folder=self.run.reports,
                redactor=self.redactor,
            )
        except OSError as error:
            words = f"reports are not kept: cannot write {into} ({error.strerror or error})"
            self.emit(Warned(message=words))
            return [], [words]

    async def _evaluate(
        self, done: dagger.Container, command: Command, stage: str, *, start: bool
    ) -> _Told:
        """Return how a command ended, and in which run that was.

        A definition that passed here before needs no services: the engine answers from its cache.
        Should it have forgotten, it starts them by itself, and they are swept up afterwards.
        """
        if start and command.services:
            names = ", ".join(service.name for service in command.services)
            self.emit(ActivityChanged(stage=stage, what=f"waits for {names}"))
            await self.pool.start(command.services)
            self.emit(ActivityChanged(stage=stage))
        run = self.run.id
        try:
            # An image that cannot be pulled is found out before the command begins; what goes wrong
            # with the command itself is an exit code.
            code = await self._ended(done, command)
            told = _Told.read(code, await _marker(done), command.reports)
            run = told.run
        finally:
            if not start and run == self.run.id:
                await self.pool.sweep(command.services)
        return told

    async def _ended(self, done: dagger.Container, command: Command) -> int:
        """Return a command's exit code.

        Equal commands of two runs at one time are executed once, beside the services of one of
        them. When these die and our own live on, it was the other run that was ended: once more.
        """
        import dagger

        try:
            return await patiently(done.exit_code)
        except dagger.QueryError as error:
            dead = death(str(error))
            keys = [service.key for service in command.services if dead and dead[0] == service.name]
            if not keys or not await self.pool.live.serves(keys[0]):
                raise
            return await patiently(done.exit_code)

    async def _said(
        self, done: dagger.Container, this: Try, *, has_failed: bool
    ) -> tuple[str, list[Finding], list[Path]]:
        """Return the end of what a command printed, the problems in it, and where all of it is."""
        async with self._reading:
            # Of 100 MB either takes seconds: off the loop, which has to hear engine and signals.
            output = await run_sync(self.redactor.mask, await done.combined_output())
            files = self._log(this, output)
            workdir = await done.workdir() if has_failed else ""
            found = await run_sync(list, problems(output, workdir=workdir)) if has_failed else []
            return tail(output), found, files

    async def _write_something(self) -> None:
        """Let the engine complain itself, if it is its disk that was full for a command."""
        from dagger import dag

        await dag.directory().with_new_file("probe", f"{self.run.id} {time.monotonic()}").sync()

    def _log(self, this: Try, output: str) -> list[Path]:
        """Write what a command printed; what earlier attempts printed stays beside it."""
        folder = self.run.reports / LOG_FOLDER
        name = file_name(this.stage.name)
        path = folder / f"{name}.txt"
        earlier = [folder / f"{name}.attempt-{number}.txt" for number in range(1, this.number)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if earlier and path.exists():
                path.replace(earlier[-1])
            write_whole(path, output)
        except OSError as error:
            words = f"cannot write the log of '{this.stage.name}' ({error.strerror or error})"
            self.emit(Warned(message=f"{words}; its result stands"))
            return []
        return [path, *(log for log in earlier if log.exists())]


def _described(files: Sequence[Path], folder: Path) -> tuple[Artifact, ...]:
    artifacts = []
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        path = file.relative_to(folder).as_posix()
        artifacts.append(Artifact(path, file.stat().st_size, digest))
    return tuple(artifacts)


async def _marker(done: dagger.Container) -> str:
    """Return what a command left beside its result; empty when it never began."""
    import dagger

    try:
        return await done.file(MARKER).contents()
    except dagger.QueryError:
        return ""  # the image has no `sh`, say, or another `/tmp` is mounted over it


def printed(argv: Sequence[str], output: str) -> str:
    """Return a command, without what we put around it, and the last lines that it printed."""
    if argv[1:2] == ["-c"] and MARKER in argv[2]:
        argv = argv[5:]
    line = shlex.join(argv)
    if len(line) > MOST_LINE:
        line = f"{line[:MOST_LINE]} ..."
    return f"$ {line}\n{tail(output)}"


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a text, and of endless ones the last characters."""
    return "\n".join(text[-MOST_TAIL:].rstrip().splitlines()[-lines:])
