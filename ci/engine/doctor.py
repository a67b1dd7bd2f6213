"""`python3 -m ci doctor`: what is there, what is missing, what would be done and how long it takes."""

from __future__ import annotations

import os
import platform
import shutil

from engine import choose, docker, place, screen, steps, venv, wheels

LOW_SHARE = 0.2


def report(engine: str = "") -> int:
    """Print the state of the machine; return 0 when nothing is missing, 4 otherwise."""
    choice = choose.choose(engine)
    missing = [step for step in choose.steps_for(choice) if not step.is_done()]
    _line("Python", platform.python_version(), is_good=True)
    _line("system", f"{_system()}, {platform.machine()}, {os.cpu_count()} cores", is_good=True)
    _line("user", "root" if os.geteuid() == 0 else "not root", is_good=True)
    has_room = _disk(sum(step.disk_bytes for step in missing))
    if index := wheels.own_index():
        _line("package index", wheels.without_login(index), is_good=True)
    if choice.kind in {"official", "built"}:
        _line("Docker", _docker(), is_good=docker.is_alive())
        _line("CLI", str(place.cli()), is_good=place.cli().exists())
    can_reach = _engine(choice)
    _line("venv", str(venv.PYTHON), is_good=venv.step().is_done())
    if missing:
        screen.say("`python3 -m ci setup` would do:")
        for step in missing:
            screen.say(f"  {step.title}  ({steps.expectation(step)})")
        screen.say(
            f"together about {screen.seconds(steps.longest_s(missing))}, side by side where it can be"
        )
    elif has_room and can_reach:
        screen.say("nothing is missing: `python3 -m ci` runs the pipeline")
        return 0
    return 4


def _line(what: str, found: str, *, is_good: bool) -> None:
    screen.say(f"{'ok  ' if is_good else 'MISS'} {what}: {found}")


def _disk(needed_bytes: int) -> bool:
    folder, free, total = place.free_disk()
    words = f"{screen.size(free)} of {screen.size(total)} free at {folder}"
    if needed_bytes:
        words += f"; what is missing takes about {screen.size(needed_bytes)}"
    _line("disk", words, is_good=free >= needed_bytes)
    if free < LOW_SHARE * total:
        screen.say(
            f"     warning: {free / total:.0%} free; below 20 % an engine with default settings "
            f"empties its cache at every command (the one built here keeps it)"
        )
    return free >= needed_bytes


def _engine(choice: choose.Choice) -> bool:
    """Tell which engine it is, and whether one that was named can be reached."""
    reason = choose.unreachable(choice.url) if choice.url else ""
    words = choice.words
    if reason is None:
        words += " (not tried: that takes Dagger's own CLI)"
    elif reason:
        words += f" cannot be reached: {reason}; start it there, or name another by `--engine URL`"
    _line("engine", words, is_good=not reason)
    return not reason


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _docker() -> str:
    if docker.is_alive():
        return "the daemon answers"
    if shutil.which("dockerd") or shutil.which("docker"):
        where = docker.socket_path() or os.environ["DOCKER_HOST"]
        return (
            f"installed, and the daemon does not answer at {where}; what was put into it before is "
            f"taken to be there, and looked at again once it runs"
        )
    return "not installed"
