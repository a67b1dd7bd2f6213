"""Steps: side by side where they can be, each with a log, a duration and a way to resume."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from functools import cache
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from engine import place, screen, state
from engine.errors import MachineError, StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

STILL_RUNNING_S = 30.0
TAIL_LINES = 12
GRACE_S = 1.0

_children: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()
_stopping = threading.Event()


@dataclass(frozen=True)
class Step:
    """A piece of the work.

    Args:
        name: Names its log.
        title: What people read.
        run: Does it; may be killed at any point and started again.
        is_done: Whether it can be left out; cheap.
        needs: Steps that come first.
        usual_s: How long it takes on 2 cores; until it is known from here.
        disk_bytes: What it takes on disk.
    """

    name: str
    title: str
    run: Callable[[Log], None]
    is_done: Callable[[], bool]
    needs: tuple[str, ...] = ()
    usual_s: float = 1.0
    disk_bytes: int = 0


class Log:
    """The log file of one step, and the way to run commands into it.

    Args:
        name: Of the step.
    """

    def __init__(self, name: str) -> None:
        self.path: Path = place.logs() / f"{name}.log"
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
            MachineError: When there is no such program, or everything is being stopped.
        """
        line = shlex.join(map(str, words))
        with self.path.open("ab") as log:
            log.write(f"$ {line}\n".encode())
            log.flush()
            if not shutil.which(str(words[0])):
                message = f"cannot run `{words[0]}`: there is no such program"
                raise MachineError(message, "install it, or run `python3 -m ci doctor`")
            with _starting:
                if _stopping.is_set():
                    message = f"`{line}` was not started: another step failed or was interrupted"
                    raise MachineError(message, "run it again: finished steps are kept")
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
    for step in undone:
        screen.say(f"  to do: {step.title}  ({expectation(step)})")
    threads: list[threading.Thread] = []
    _stopping.clear()
    try:
        _run_side_by_side(_with_dependants(undone, steps), threads)
    except BaseException:
        _stop(threads)
        raise


def _run_side_by_side(left: dict[str, Step], threads: list[threading.Thread]) -> None:
    running: dict[str, Step] = {}
    ended: SimpleQueue[tuple[str, BaseException | None]] = SimpleQueue()
    while left or running:
        for step in [s for s in left.values() if {*left, *running}.isdisjoint(s.needs)]:
            running[step.name] = left.pop(step.name)
            threads.append(threading.Thread(target=_run, args=(step, ended), daemon=True))
            threads[-1].start()
        try:
            name, error = ended.get(timeout=STILL_RUNNING_S)
        except Empty:
            _tell_running(running.values())
            continue
        del running[name]
        if error:
            raise error


def _stop(threads: Iterable[threading.Thread]) -> None:
    """End all steps; one that hangs in a download ends with the process, being a daemon."""
    with _starting:
        _stopping.set()
    stop_children()
    end = time.monotonic() + GRACE_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _with_dependants(undone: Sequence[Step], steps: Sequence[Step]) -> dict[str, Step]:
    """Return the steps to look at again when their turn comes.

    What is done now may not be once its needs have been remade (another Go, another CLI), and
    what looks undone may be there once its needs run (images, behind a daemon that was down).
    """
    names = {step.name for step in undone}
    while more := {s.name for s in steps if not names.isdisjoint(s.needs)} - names:
        names |= more
    return {step.name: step for step in steps if step.name in names}


_began: dict[str, float] = {}


def expected_s(step: Step) -> float:
    """Return how long a step took last time, or usually takes."""
    known: float = state.read().get("durations_s", {}).get(step.name, step.usual_s)
    return known


def expectation(step: Step) -> str:
    """Return the same for people."""
    word = "last time" if step.name in state.read().get("durations_s", {}) else "about"
    return f"{word} {screen.seconds(expected_s(step))}"


def longest_s(steps: Sequence[Step]) -> float:
    """Return how long they take side by side, each after its needs."""
    named = {step.name: step for step in steps}

    @cache
    def end_s(name: str) -> float:
        if name not in named:
            return 0.0
        return expected_s(named[name]) + max(map(end_s, named[name].needs), default=0.0)

    return max(map(end_s, named), default=0.0)


def _tell_running(steps: Iterable[Step]) -> None:
    for step in steps:
        took = time.monotonic() - _began.get(step.name, time.monotonic())
        words = f"{screen.seconds(took)} ({expectation(step)})"
        screen.say(f"  {step.title}: still running, {words}")


def _run(step: Step, ended: SimpleQueue[tuple[str, BaseException | None]]) -> None:
    try:
        _do(step)
    except BaseException as error:  # noqa: BLE001 - raised again where everybody waits
        ended.put((step.name, error))
    else:
        ended.put((step.name, None))


def _do(step: Step) -> None:
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
    state.add("durations_s", **{step.name: round(took, 1)})
    screen.say(f"  {step.title} ".ljust(46, ".") + f" done  {screen.seconds(took)}")


def stop_children() -> None:
    """End every command that still runs."""
    for child in tuple(_children):
        child.kill()
