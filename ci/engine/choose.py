"""Which engine: the session that is open, the one that was named, the official one, or our own."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engine import built, debian, docker, place, screen, state, steps, venv
from engine.steps import Log, Step

VARIABLE = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
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
    """

    kind: str
    words: str


def choose(engine: str = "") -> Choice:
    """Find out which engine there is; asks, changes nothing.

    Args:
        engine: The URL that the user named.
    """
    named = engine or os.environ.get(VARIABLE, "")
    if os.environ.get("DAGGER_SESSION_PORT"):
        return Choice("session", "the session that `dagger run` opened")
    if named:
        return Choice("named", f"the engine at {named}")
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
    hosts = [host for host in (built.image().split("/")[0], _hub()) if host]
    with ThreadPoolExecutor() as threads:
        return all(threads.map(_answers, hosts))


def _hub() -> str:
    """Return the host of Docker Hub's index as the daemon names it; empty without a daemon."""
    _, facts = docker.ask("/info")
    address = facts.get("IndexServerAddress", "") if isinstance(facts, dict) else ""
    return urllib.parse.urlsplit(address).hostname or ""


def _answers(host: str) -> bool:
    connection = http.client.HTTPSConnection(host, timeout=PROBE_S)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in {http.client.OK, http.client.UNAUTHORIZED}
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ensure(engine: str = "", *, test_tools: bool = False) -> None:
    """Bring the venv and the engine up, doing only what is not done.

    Args:
        engine: The URL that the user named.
        test_tools: Also what only the tests need.
    """
    with state.alone():
        choice = choose(engine)
        work = _steps(choice)
        if test_tools:
            from engine import golang  # noqa: PLC0415 - hashes the module, which a plain run need not

            work.append(golang.tools_step())
        if any(not step.is_done() for step in work):
            screen.say(f"engine: {choice.words}; logs: {place.home() / 'logs'}")
            if choice.kind == "built":
                built.check_disk()
        steps.run_all(work)
        if choice.kind in {"official", "built"} and state.read().get("kind") != choice.kind:
            state.remember(kind=choice.kind)
        if engine:
            os.environ[VARIABLE] = engine
        venv.link_cli()


def _steps(choice: Choice) -> list[Step]:
    if choice.kind == "built":
        return built.steps()
    if choice.kind == "official":
        return [
            venv.step(),
            debian.packages_step({} if _has_runtime() else {"dockerd": "docker.io"}),
            Step(
                "dockerd", "Docker daemon", lambda _: docker.start_daemon(), _daemon_runs, ("apt",)
            ),
            Step("official", "Official engine", _connect, _has_official, ("venv", "dockerd")),
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
