"""`--watch`: one run after the other in one session, each begun by a change of files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TypeVar

import anyio

from penstock import source
from penstock.affected import affected, goes_on
from penstock.changes import Changes, definition
from penstock.config import REPORTS
from penstock.errors import SIGNALLED_CODE, EngineError, PenstockError, UsageError
from penstock.events import RunStopped
from penstock.handover import Handover
from penstock.line import INTERRUPTED_TEARDOWN_S, heard, on_line
from penstock.model import Result
from penstock.run import Run
from penstock.runner import ENGINE_CODE
from penstock.state import alone, is_held

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from penstock.affected import HostFolder
    from penstock.config import RunInfo
    from penstock.events import Listener
    from penstock.line import Line
    from penstock.pipeline import Pipeline
    from penstock.plan import Plan
    from penstock.redact import Redactor
    from penstock.state import State

T = TypeVar("T")

LOAD_VARIABLE = "PENSTOCK_LOAD_ONLY"  # who has it loads the pipeline, and runs nothing
OUTDATED_CODE = SIGNALLED_CODE + signal.SIGINT
TURN_S = 0.1
MOST_NAMED = 6


class Watch:
    """Runs a pipeline again whenever files change that it is made from.

    Args:
        pipeline: What is run.
        prepare: Makes the plan of a run, and gives the secrets for it.
        show: Has a run shown.
        say: Takes words between two runs.
        complain: Takes words about what is wrong.
        redactor: Learns the secrets; every output goes through it.

    Attributes:
        is_new: Whether the pipeline is another one now, which another process has to load.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        prepare: Callable[[], tuple[Plan, Mapping[tuple[str, str], str]]],
        show: Callable[[RunInfo], AbstractContextManager[list[Listener]]],
        say: Callable[[str], None],
        complain: Callable[[str], None],
        redactor: Redactor,
    ) -> None:
        self._pipeline = pipeline
        self._prepare = prepare
        self._show = show
        self._say = say
        self._complain = complain
        self._redactor = redactor
        self._changes = Changes(pipeline.root)
        self._changed: set[Path] = set()
        self._stages: set[str] = set()
        self._number = 0
        self._state: State | None = None
        self.is_new = False

    async def run(self, afterwards: ExitStack) -> int:
        """Run until a signal comes, the engine is lost or the pipeline is another one.

        Returns:
            The exit code of the last run; 4 if the engine was lost after it.
        """
        code = 0
        with heard() as signals:
            async with on_line(self._pipeline, signals, self._redactor, afterwards) as line:
                line.handover = Handover(line.tasks)
                line.tasks.start_soon(self._changes.follow)
                while not line.ended.is_set():
                    code = await self._round(line, code)
                    if not self._changed and not line.ended.is_set():
                        code = await self._wait(line, code)
                    if self._changed & self._own():
                        await self._load(line)
        if code > SIGNALLED_CODE:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for the impatient
        return code

    async def _round(self, line: Line, code: int) -> int:
        """Run once, and stop when what changes meanwhile makes it outdated.

        Args:
            line: To the engine.
            code: Of the run before, for when none can begin.
        """
        root = self._pipeline.root
        if is_held(root):
            self._say("another run works here: waiting for its end")
        while is_held(root) and not line.ended.is_set():  # noqa: ASYNC110 - of another process
            await anyio.sleep(TURN_S)
        self._number += 1
        # All else is read when the run begins; the pipeline is not.
        self._changed = self._changes.take() & self._own()
        if self._changed:
            return code
        with alone(root, root / REPORTS, self._complain):
            try:
                plan, secrets = self._prepare()
                if line.handover and line.handover.kept and self._state:
                    plan = replace(plan, state=self._state)  # which goes on, too
                self._state = plan.state
            except PenstockError as error:
                self._complain(f"error: {error}")
                return error.exit_code
            with self._show(plan.run) as listeners:
                this = Run(plan, secrets, line, listeners)
                self._stages = set(plan.stages)
                try:
                    if line.session is None:
                        await line.open()
                        source.look_again(lambda: self._number)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._mind, this, line)
                        await this.work()
                        tasks.cancel_scope.cancel()
                    if line.session:
                        line.session.cut_at = time.monotonic()
                except EngineError as error:
                    line.lose(str(error))
                return this.finish()

    async def _mind(self, this: Run, line: Line) -> None:
        """Stop a run as soon as it is outdated."""
        changed = await self._relevant(line)
        if not changed:
            return
        self._changed = changed
        if line.handover and not changed & self._own():
            stages = this.runner.stages
            services = {name: self._pipeline.services(stage) for name, stage in stages.items()}
            locks = {name: {f"lock {lock}" for lock in one.uses} for name, one in stages.items()}
            outdated = affected(changed, stages, line.reads)
            outdated |= {name for name, stage in stages.items() if stage.always}
            holds = {name: services[name] | locks[name] for name in stages}
            kept = goes_on(line.handover.running, outdated, holds)
            line.handover.keep(kept, {key for name in kept for key in services[name]})
        this.runner.stop(
            RunStopped(
                result=Result.CANCELLATION,
                reason=self._changes.shown(changed),
                exit_code=OUTDATED_CODE,
                teardown_s=INTERRUPTED_TEARDOWN_S,
            )
        )

    async def _wait(self, line: Line, code: int) -> int:
        """Return when another run has to begin, or none is possible any more."""
        self._say(f"waiting for a change of {self._shown(line)}; Ctrl-C ends it (exit code {code})")
        self._changed = await _before_end(line, lambda: self._relevant(line)) or set()
        if self._changed:
            self._say(self._changes.shown(self._changed))
        if line.lost or self._changes.error:
            self._complain(f"error: {line.lost or self._changes.error}")
            line.ended.set()
            return ENGINE_CODE if line.lost else UsageError.exit_code
        return code

    async def _load(self, line: Line) -> None:
        """Wait until the pipeline can be loaded; what is loaded already cannot be replaced."""
        while not line.ended.is_set():
            wrong = await _before_end(line, _found_wrong)
            if wrong == "":
                self._say("the pipeline itself changed: it is loaded anew, and connects again")
                self.is_new = True
                line.ended.set()
            elif wrong:
                self._complain(
                    f"{wrong}\nerror: the pipeline cannot be loaded: waiting until it is mended"
                )
                await _before_end(line, self._changes.some)

    def _own(self) -> set[Path]:
        """Return the files from which the pipeline itself was loaded, as far as can be known."""
        return definition() | {self._pipeline.root / "pyproject.toml"}

    async def _relevant(self, line: Line) -> set[Path]:
        """Return what changed, as soon as the pipeline or what it reads is among it."""
        while not self._changes.error:
            changed = await self._changes.some()
            own, folders = self._own(), list(self._folders(line))
            if found := {f for f in changed if f in own or any(o.holds(f) for o in folders)}:
                return found
        return set()

    def _folders(self, line: Line) -> Iterator[HostFolder]:
        """Yield what the stages of the last run read, or may read."""
        known = {name: line.reads[name] for name in self._stages if name in line.reads}
        for folders in known.values():
            yield from folders
        if len(known) < len(self._stages):
            yield from (made.folder for made in source.made)

    def _shown(self, line: Line) -> str:
        patterns = {
            pattern
            for folder in self._folders(line)
            for pattern in folder.include or (str(folder.path),)
        }
        names = sorted(patterns) or ["the pipeline"]
        more = len(names) - MOST_NAMED
        return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


async def _before_end(line: Line, ask: Callable[[], Awaitable[T]]) -> T | None:
    """Return an answer; nothing when a signal, or the loss of the engine, comes before it."""
    answers: list[T] = []

    async def answer() -> None:
        answers.append(await ask())
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        await line.ended.wait()
        tasks.cancel_scope.cancel()
    return answers[0] if answers else None


async def _found_wrong() -> str:
    """Return what is said where the pipeline cannot be loaded; nothing where it can."""
    done = await anyio.run_process(
        [sys.executable, *sys.orig_argv[1:]],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        check=False,
        env={**os.environ, LOAD_VARIABLE: "1"},
        start_new_session=True,  # Ctrl-C is ours
    )
    said = done.stdout.decode(errors="replace").strip()
    return (said or f"it ended with exit code {done.returncode}") if done.returncode else ""


def start_anew() -> NoReturn:
    """Become the same program anew."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - a shell is what we avoid
