"""The verbs of `python3 -m ci`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine import (
    built,
    choose,
    debian,
    docker,
    doctor,
    place,
    registry,
    screen,
    state,
    steps,
    venv,
)
from engine.errors import MachineError
from engine.steps import Log

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = ("run", "test", "setup", "doctor", "engine")
LOOKS = {"--list", "--graph", "--dry-run", "--help", "-h"}  # of ci/main.py; need no engine
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
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        screen.say(f"error: {error.strerror or error}{where}\n  next: mend that and run it again")
        return 4
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
    options = argparse.ArgumentParser(prog="python3 -m ci", add_help=False, allow_abbrev=False)
    options.add_argument("--engine", default="")
    named, arguments = options.parse_known_args(rest)
    if verb == "run":
        if LOOKS.isdisjoint(word.partition("=")[0] for word in arguments):
            choose.ensure(named.engine, check=partial(_check, arguments))
        else:
            choose.ensure_venv()
        _become([*_pipeline(), *arguments])
    if arguments:
        message = f"`{verb}` does not know {' '.join(arguments)}"
        raise MachineError(message, "`python3 -m ci --help` shows what there is", exit_code=2)
    if verb == "doctor":
        return doctor.report(named.engine)
    choose.ensure(named.engine)
    return 0


def _pipeline() -> list[str]:
    return [str(venv.PYTHON), str(place.ROOT / "ci" / "main.py")]


def _check(arguments: Sequence[str]) -> None:
    """Let the pipeline refuse arguments, by its own exit code, before minutes are spent on them."""
    words = [*_pipeline(), "--dry-run", *arguments]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def _become(words: list[str]) -> NoReturn:
    """Go on as another program: its signals and its exit code are ours."""
    bin_folder = str(venv.PYTHON.parent)
    path = f"{bin_folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    tools = f"{place.home() / 'tools'}{os.pathsep}" if words[2:3] == ["pytest"] else ""
    environment = os.environ | {"PATH": tools + path, "VIRTUAL_ENV": str(place.VENV)}
    if words[2:3] == ["pytest"]:
        os.chdir(place.ROOT)
    else:
        environment["PENSTOCK_PROGRAM"] = "python3 -m ci"  # what `reproduce:` then tells
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
    name = built.container()
    if not docker.exists(name) or not shutil.which("docker"):
        message = f"there is no container {name}, or Docker does not answer"
        raise MachineError(message, "`python3 -m ci doctor` tells which, `engine start` makes it")
    return subprocess.run(["docker", "logs", name], check=False).returncode


def _status() -> int:
    for name in (built.container(), registry.NAME):
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
        docker.stop_daemon()
    return 0


def _prune() -> int:
    is_named = bool(os.environ.get(choose.VARIABLE))
    if not place.cli().exists() or not (is_named or docker.is_running(built.container())):
        screen.say("no engine runs here, so there is nothing to prune (`engine start` starts one)")
        return 0
    words = [str(place.cli()), "core", "engine", "local-cache", "prune"]
    return subprocess.run(words, check=False).returncode


def _remove() -> int:
    """Remove everything that this tool made, and nothing else."""
    with state.alone():
        built.remove()
        packages = "packages, " if _remove_docker() else ""
        if state.read().get("made_cli"):
            folder = place.cli().parent
            for file in (place.cli(), place.beside(place.cli())):
                file.unlink(missing_ok=True)
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        place.sweep()  # a call that was killed may have left mounts in there
        for folder in filter(Path.exists, (place.VENV, place.home())):
            shutil.rmtree(folder)
    screen.say(f"removed: containers, volumes, images, {packages}caches and the venv that it made")
    return 0


def _remove_docker() -> bool:
    """Remove Docker itself if it was this tool that installed it, unless somebody else uses it."""
    packages = debian.installed_by_us()
    if packages and docker.has_content():
        screen.say(
            "  Docker stays: it holds containers, images or volumes of somebody else; if nobody "
            f"needs them, `apt-get purge {' '.join(packages)}`"
        )
        return False
    docker.stop_daemon()
    debian.purge(Log("remove"))
    return True
