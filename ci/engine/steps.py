"""Steps: side by side where they can be, each with a log, a duration and a way to resume."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine import place, screen, state
from engine.errors import MachineError, StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

STILL_RUNNING_S = 30.0
TAIL_LINES = 12

_children: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Step:
    """A piece of the work.

    Args:
        name: Names its log.
        title: What people read.
        run: Does it; may be killed at any point and started again.
        is_done: Whether it can be left out; cheap.
        needs: Steps that come first.
    """

    name: str
    title: str
    run: Callable[[Log], None]
    is_done: Callable[[], bool]
    needs: tuple[str, ...] = ()


class Log:
    """The log file of one step, and the way to run commands into it.

    Args:
        name: Of the step.
    """

    def __init__(self, name: str) -> None:
        self.path: Path = place.home() / "logs" / f"{name}.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")

    def run(
        self,
        words: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        text: str = "",
    ) -> None:
        """Run a command; its output goes into the log.

        Args:
            words: The command.
            env: Added to the environment.
            cwd: Where it runs.
            text: What it reads from standard input.

        Raises:
            StepError: When it fails.
        """
        line = shlex.join(map(str, words))
        with self.path.open("ab") as log:
            log.write(f"$ {line}\n".encode())
            log.flush()
            if not shutil.which(str(words[0])):
                message = f"cannot run `{words[0]}`: there is no such program"
                raise MachineError(message, "install it, or run `python3 -m ci doctor`")
            child = subprocess.Popen(
                [*_dying_with_us(), *(str(word) for word in words)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | (env or {}),
                cwd=cwd,
            )
            _children.add(child)
            child.communicate(text.encode())
            _children.discard(child)
        if child.returncode:
            tail = "\n".join(self.tail())
            raise StepError(line, child.returncode, tail, self.path)

    def tail(self) -> list[str]:
        """Return the last lines."""
        lines = self.path.read_text(errors="replace").splitlines()
        return [f"  | {line[:300]}" for line in lines[-TAIL_LINES:]]


def _dying_with_us() -> list[str]:
    """Return words that have the kernel end a command with us, even after `kill -9`."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def run_all(steps: Sequence[Step]) -> None:
    """Run every step that is not done, each as soon as what it needs is done.

    Raises:
        MachineError: Of the first step that failed; the others are stopped.
    """
    undone = [step for step in steps if not step.is_done()]
    if not undone:
        return
    _announce(undone)
    left = _with_dependants(undone, steps)
    running: dict[Future[None], Step] = {}
    with ThreadPoolExecutor(max_workers=len(left)) as threads:
        try:
            while left or running:
                for step in [s for s in left.values() if _is_ready(s, left, running)]:
                    running[threads.submit(_run, step)] = left.pop(step.name)
                done, _ = wait(running, timeout=STILL_RUNNING_S, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    future.result()
                if not done:
                    _tell_running(running.values())
        except BaseException:
            stop_children()
            raise


def _with_dependants(undone: Sequence[Step], steps: Sequence[Step]) -> dict[str, Step]:
    """Return the steps to look at again when their turn comes.

    What is done now may not be once its needs have been remade (another Go, another CLI), and
    what looks undone may be there once its needs run (images, behind a daemon that was down).
    """
    names = {step.name for step in undone}
    while more := {s.name for s in steps if not names.isdisjoint(s.needs)} - names:
        names |= more
    return {step.name: step for step in steps if step.name in names}


def _is_ready(step: Step, left: Mapping[str, Step], running: Mapping[Future[None], Step]) -> bool:
    unfinished = {*left, *(other.name for other in running.values())}
    return unfinished.isdisjoint(step.needs)


_began: dict[str, float] = {}


def _announce(steps: Sequence[Step]) -> None:
    known = state.read().get("durations_s", {})
    for step in steps:
        expected = known.get(step.name)
        about = f"  (last time {screen.seconds(expected)})" if expected else ""
        screen.say(f"  to do: {step.title}{about}")


def _tell_running(steps: object) -> None:
    known = state.read().get("durations_s", {})
    for step in list(steps):  # type: ignore[call-overload]  # the steps of a dict view
        took = time.monotonic() - _began.get(step.name, time.monotonic())
        expected = known.get(step.name)
        about = f" of about {screen.seconds(expected)}" if expected else ""
        screen.say(f"  {step.title}: still running, {screen.seconds(took)}{about}")


def _run(step: Step) -> None:
    began = _began[step.name] = time.monotonic()
    if step.is_done():
        return
    log = Log(step.name)
    try:
        step.run(log)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        message = f"{step.title}: {error.strerror or error}{where}"
        raise MachineError(message, f"mend that and run it again; log: {log.path}") from error
    took = time.monotonic() - began
    state.remember(durations_s=state.read().get("durations_s", {}) | {step.name: round(took, 1)})
    screen.say(f"  {step.title} ".ljust(46, ".") + f" done  {screen.seconds(took)}")


def stop_children() -> None:
    """End every command that still runs."""
    for child in tuple(_children):
        child.kill()
