"""`python3 -m ci doctor`: what is there, what is missing, what would be done and how long it takes."""

from __future__ import annotations

import os
import platform
import shutil

from engine import built, choose, docker, place, screen, state, venv

LOW_SHARE = 0.2


def report(engine: str = "") -> int:
    """Print the state of the machine; return 0 when nothing is missing, 4 otherwise."""
    choice = choose.choose(engine)
    _line("Python", platform.python_version(), is_good=True)
    _line("system", f"{_system()}, {platform.machine()}, {os.cpu_count()} cores", is_good=True)
    _line("user", "root" if os.geteuid() == 0 else "not root", is_good=True)
    _disk()
    _line("Docker", _docker(), is_good=docker.is_alive())
    _line("engine", choice.words, is_good=True)
    _line("CLI", str(place.cli()), is_good=place.cli().exists())
    _line("venv", str(venv.PYTHON), is_good=venv.PYTHON.exists())
    missing = [step for step in choose._steps(choice) if not step.is_done()]  # noqa: SLF001
    if not missing:
        screen.say("nothing is missing: `python3 -m ci` runs the pipeline")
        return 0
    known = state.read().get("durations_s", {})
    screen.say("`python3 -m ci setup` would do:")
    for step in missing:
        screen.say(f"  {step.title}  (last time {screen.seconds(known.get(step.name))})")
    screen.say("a first build takes about 6 minutes on 2 cores, nearly all of it Go's compiler")
    return 4


def _line(what: str, found: str, *, is_good: bool) -> None:
    screen.say(f"{'ok  ' if is_good else 'MISS'} {what}: {found}")


def _disk() -> None:
    folder = next(p for p in (place.home(), *place.home().parents) if p.exists())
    usage = shutil.disk_usage(folder)
    share = usage.free / usage.total
    words = f"{screen.size(usage.free)} of {screen.size(usage.total)} free at {folder}"
    enough = usage.free >= built.NEEDED_BYTES
    _line("disk", words, is_good=enough)
    if share < LOW_SHARE:
        screen.say(
            f"     warning: {share:.0%} free; below 20 % an engine with default settings empties its "
            f"cache at every command (the one built here keeps it)"
        )


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _docker() -> str:
    if docker.is_alive():
        return "the daemon answers"
    if shutil.which("dockerd") or shutil.which("docker"):
        return f"installed, and the daemon does not answer at {docker.socket_path()}"
    return "not installed"
