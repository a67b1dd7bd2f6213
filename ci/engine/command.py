"""The verbs of `python3 -m ci`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

from engine import built, choose, debian, docker, doctor, place, screen, state, steps, venv
from engine.errors import MachineError
from engine.steps import Log

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = ("run", "test", "setup", "doctor", "engine")
ENGINE_VERBS = ("status", "start", "stop", "logs", "prune", "remove")
HELP = """\
usage: python3 -m ci [run] [--engine URL] [ARGUMENTS OF ci/main.py]
       python3 -m ci test [PYTEST ARGUMENTS]
       python3 -m ci setup | doctor [--engine URL]
       python3 -m ci engine status | start | stop | logs | prune | remove

From a bare machine (Python 3.11) to a running pipeline. `python3 -m ci --list` shows the stages.
"""


def main(argv: Sequence[str]) -> int:
    """Carry out one call and return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    verb, rest = _split(argv)
    try:
        if rest[:1] in (["-h"], ["--help"]) and verb != "test":
            sys.stdout.write(HELP)
            return 0
        return _carry_out(verb, rest)
    except MachineError as error:
        screen.say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        screen.say("interrupted: finished steps are kept, the next call goes on from there")
        return 130
    finally:
        steps.stop_children()


def _split(argv: Sequence[str]) -> tuple[str, list[str]]:
    if argv and argv[0] in VERBS:
        return argv[0], list(argv[1:])
    if argv and not argv[0].startswith("-"):
        message = f"there is no verb '{argv[0]}'"
        screen.say(f"error: {message}\n{HELP}")
        raise SystemExit(2)
    return "run", list(argv)


def _carry_out(verb: str, rest: list[str]) -> int:
    if verb == "engine":
        return _engine(rest)
    if verb == "test":
        choose.ensure(test_tools=True)
        _become([str(venv.PYTHON), "-m", "pytest", *rest])
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--engine", default="")
    named, arguments = options.parse_known_args(rest)
    if verb == "run":
        choose.ensure(named.engine)
        _become([str(venv.PYTHON), str(place.ROOT / "ci" / "main.py"), *arguments])
    if arguments:
        message = f"`{verb}` does not know {' '.join(arguments)}"
        raise MachineError(message, "`python3 -m ci --help` shows what there is", exit_code=2)
    if verb == "doctor":
        return doctor.report(named.engine)
    choose.ensure(named.engine)
    return 0


def _become(words: list[str]) -> NoReturn:
    """Go on as another program: its signals and its exit code are ours."""
    bin_folder = str(venv.PYTHON.parent)
    path = f"{bin_folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    tools = f"{place.home() / 'tools'}{os.pathsep}" if words[2:3] == ["pytest"] else ""
    environment = os.environ | {"PATH": tools + path, "VIRTUAL_ENV": str(place.VENV)}
    if words[2:3] == ["pytest"]:
        os.chdir(place.ROOT)
    os.execve(words[0], words, environment)  # noqa: S606 - a shell is what we avoid


def _engine(rest: list[str]) -> int:
    verb = rest[0] if len(rest) == 1 else ""
    if verb not in ENGINE_VERBS:
        message = f"`engine` takes one of {', '.join(ENGINE_VERBS)}"
        raise MachineError(message, "`python3 -m ci --help` shows what there is", exit_code=2)
    actions = {
        "status": _status,
        "start": _start,
        "stop": _stop,
        "logs": _logs,
        "prune": _prune,
        "remove": _remove,
    }
    return actions[verb]()


def _start() -> int:
    choose.ensure()
    return 0


def _logs() -> int:
    return subprocess.run(["docker", "logs", built.container()], check=False).returncode


def _status() -> int:
    for name in (built.container(), built.REGISTRY):
        word = (
            "runs"
            if docker.is_running(name)
            else "is stopped"
            if docker.exists(name)
            else "is not there"
        )
        screen.say(f"{name} {word}")
    return 0 if docker.is_running(built.container()) else 4


def _stop() -> int:
    with state.alone():
        built.stop()
        _stop_daemon()
    return 0


def _stop_daemon() -> None:
    """Stop the Docker daemon if it was this tool that started it."""
    pid = state.read().get("dockerd_pid")
    if pid and _is_dockerd(pid):
        screen.say("  stopping the Docker daemon")
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            if not _is_dockerd(pid):
                break
            signal.sigtimedwait([], 0.1)
    state.remember(dockerd_pid=None)


def _is_dockerd(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as name:  # noqa: PTH123 - not a real file
            return name.read().strip() == "dockerd"
    except OSError:
        return False


def _prune() -> int:
    choose.ensure()
    words = [str(place.cli()), "core", "engine", "local-cache", "prune"]
    return subprocess.run(words, check=False).returncode


def _remove() -> int:
    """Remove everything that this tool made, and nothing else."""
    with state.alone():
        remembered = state.read()
        if docker.is_alive():
            built.remove()
        _stop_daemon()
        log = Log("remove")
        debian.purge(log)
        if remembered.get("made_cli"):
            place.cli().unlink(missing_ok=True)
            if place.cli().parent.exists() and not any(place.cli().parent.iterdir()):
                place.cli().parent.rmdir()
        for folder in (place.VENV, place.home()):
            shutil.rmtree(folder, ignore_errors=True)
    screen.say("removed: containers, volumes, images, packages, caches and the venv that it made")
    return 0
