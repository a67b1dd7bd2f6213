"""Which engine: the session that is open, the one that was named, the official one, or our own."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine import built, debian, disk, docker, place, screen, state, steps, venv
from engine.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.steps import Log

VARIABLE = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
HUB = "registry-1.docker.io"  # what an engine without a mirror asks for base images
PROBE_S = 4.0
CONNECT = (
    "import anyio, dagger, sys\n"
    "async def connect():\n"
    "    async with dagger.connection(dagger.Config(log_output=sys.stderr)):\n"
    "        print(await dagger.dag.version())\n"
    "anyio.run(connect)\n"
)


@dataclass(frozen=True)
class Choice:
    """The engine that will be used.

    Args:
        kind: `session`, `named`, `official` or `built`.
        words: Why, for people.
        url: Of the one that was named.
    """

    kind: str
    words: str
    url: str = ""


def choose(engine: str = "") -> Choice:
    """Find out which engine there is; asks, changes nothing.

    Args:
        engine: The URL that the user named.
    """
    named = engine or os.environ.get(VARIABLE, "")
    if os.environ.get("DAGGER_SESSION_PORT"):
        return Choice("session", "the session that `dagger run` opened")
    if named:
        return Choice("named", f"the engine at {named}", named)
    known = state.read().get("kind")
    if known == "built" and place.cli().exists():
        return Choice("built", "the engine built from package registries")
    if known == "official" and docker.is_alive() and docker.image_exists(built.image()):
        return Choice("official", "the official engine")
    if official_is_reachable():
        return Choice("official", "the official engine: its registry and Docker Hub answer")
    return Choice(
        "built",
        "an engine built from package registries: the official registry and Docker Hub "
        "do not both answer from here",
    )


def official_is_reachable() -> bool:
    """Return whether the engine's registry and Docker Hub both answer, within seconds."""
    hosts = (built.image().split("/")[0], HUB)
    with ThreadPoolExecutor() as threads:
        return all(threads.map(_answers, hosts))


def _answers(host: str) -> bool:
    """Return whether a registry answers, through the proxy of the environment if it names one."""
    try:
        with urllib.request.urlopen(f"https://{host}/v2/", timeout=PROBE_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code == http.client.UNAUTHORIZED
    except (OSError, http.client.HTTPException):
        return False


def unreachable(url: str) -> str | None:
    """Return why a named engine cannot be reached: empty when it can, None when it was not tried."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(PROBE_S)
                probe.connect(parts.path)
        elif parts.scheme == "tcp":
            if not parts.port:
                return "it names no port"
            socket.create_connection((parts.hostname, parts.port), PROBE_S).close()
        else:
            return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def ensure_venv() -> None:
    """Bring the venv up, and nothing else; while it is, wait for nobody."""
    if not venv.step().is_done():
        with state.alone():
            steps.run_all([venv.step()])


def ensure(
    engine: str = "", *, test_tools: bool = False, check: Callable[[], None] | None = None
) -> None:
    """Bring the venv and the engine up, doing only what is not done.

    Args:
        engine: The URL that the user named.
        test_tools: Also what only the tests need.
        check: Called when the venv is there, before what takes minutes; raises to go no further.
    """
    with state.alone():
        choice = choose(engine)
        work = steps_for(choice)
        if test_tools:
            from engine import golang  # noqa: PLC0415 - hashes the module, which a plain run need not

            work.append(golang.tools_step())
        undone = [step for step in work if not step.is_done()]
        if undone:
            screen.say(f"engine: {choice.words}; logs: {place.home() / 'logs'}")
            place.sweep()
            if check:
                steps.run_all([venv.step()])
                check()
            place.check_disk(sum(step.disk_bytes for step in undone))
            steps.run_all(work)
        warn_of_disk(choice)
        if choice.kind in {"official", "built"} and state.read().get("kind") != choice.kind:
            state.remember(kind=choice.kind)
        if engine:
            os.environ[VARIABLE] = engine
        venv.link_cli()


def warn_of_disk(choice: Choice) -> None:
    """Say so when the disk of an engine on this machine is nearly full."""
    if choice.kind in disk.ADVICE and (words := disk.warning(built.container(), choice.kind)):
        screen.say(words)


def steps_for(choice: Choice) -> list[Step]:
    """Return the steps to an engine, and to the venv."""
    if choice.kind == "built":
        return built.steps()
    if choice.kind == "official":
        return [
            venv.step(),
            debian.packages_step({} if _has_runtime() else {"dockerd": "docker.io"}),
            docker.daemon_step(_daemon_runs),
            Step(
                "official",
                "Official engine",
                _connect,
                _has_official,
                ("venv", "dockerd"),
                usual_s=60,
                disk_bytes=1_000_000_000,
            ),
        ]
    return [venv.step()]


def _has_runtime() -> bool:
    """Return whether a container runtime that Dagger knows is there."""
    return any(shutil.which(name) for name in ("docker", "podman", "nerdctl"))


def _daemon_runs() -> bool:
    if shutil.which("docker"):
        return docker.is_alive()
    return any(_is_up(name) for name in ("podman", "nerdctl") if shutil.which(name))


def _is_up(runtime: str) -> bool:
    return subprocess.run([runtime, "info"], capture_output=True, check=False).returncode == 0


def _has_official() -> bool:
    return place.cli().exists() and (
        not shutil.which("docker") or docker.image_exists(built.image())
    )


def _connect(log: Log) -> None:
    """Let the SDK fetch its CLI and the CLI its engine."""
    log.run([venv.PYTHON, "-c", CONNECT])
