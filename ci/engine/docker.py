"""The Docker daemon: asked over its socket, told by its command line."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import place, screen, state
from engine.errors import MachineError
from engine.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable

START_S = 40.0
STOP_S = 20.0
ASK_S = 5.0

_started: list[subprocess.Popen[bytes]] = []  # kept, since it outlives us


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=ASK_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ASK_S)
        self.sock.connect(self._path)


def socket_path() -> str:
    """Return the daemon's socket; empty when `DOCKER_HOST` names no socket."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return host.removeprefix("unix://") if host.startswith("unix://") else ""


def ask(path: str, method: str = "GET") -> tuple[int, Any]:
    """Ask the daemon.

    Returns:
        The status and the answer; status 0 and the reason when it does not answer.
    """
    connection = _SocketConnection(socket_path())
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, json.loads(body) if is_json and body else body.decode()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def is_alive() -> bool:
    """Return whether the daemon answers."""
    if not socket_path():
        return _remote_is_alive()
    return ask("/_ping")[0] == http.client.OK


def _remote_is_alive() -> bool:
    try:
        words = ["docker", "version", "--format", "{{.Server.Version}}"]
        return (
            subprocess.run(words, capture_output=True, timeout=ASK_S, check=False).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def daemon_step(is_done: Callable[[], bool]) -> Step:
    """Return the step that starts the daemon."""
    return Step("dockerd", "Docker daemon", lambda _: start_daemon(), is_done, ("apt",), usual_s=2)


def start_daemon() -> None:
    """Start the daemon when it is installed and nobody else has.

    Raises:
        MachineError: When it cannot be started.
    """
    if is_alive():
        return
    if not socket_path():
        message = f"Docker at {os.environ['DOCKER_HOST']} does not answer"
        raise MachineError(message, "start it there, or unset DOCKER_HOST")
    silent = f"the Docker daemon does not answer at {socket_path()}"
    if os.geteuid() != 0:
        message = f"{silent} and only root can start it"
        raise MachineError(message, "start it (`sudo service docker start`) and run this again")
    daemon = shutil.which("dockerd")
    if not daemon:
        message = f"{silent} and there is no `dockerd` to start"
        raise MachineError(message, "install it (`apt-get install docker.io`) and run this again")
    log = place.logs() / "dockerd.log"
    screen.say("  starting the Docker daemon")
    with log.open("ab") as output:
        child = subprocess.Popen(
            [daemon], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    _started.append(child)
    state.remember(dockerd_pid=child.pid)
    end = time.monotonic() + START_S
    while not is_alive():
        if child.poll() is not None or time.monotonic() > end:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-6:])
            message = f"the Docker daemon did not start; the last lines of {log}:\n{tail}"
            raise MachineError(message, "mend what it names there, then run this again")
        time.sleep(0.1)


def stop_daemon() -> None:
    """Stop the daemon if it was this tool that started it."""
    pid = state.read().get("dockerd_pid")
    if pid and _is_dockerd(pid):
        screen.say("  stopping the Docker daemon")
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        while _is_dockerd(pid) and time.monotonic() < end:
            time.sleep(0.1)
        if _is_dockerd(pid):
            message = f"the Docker daemon (process {pid}) did not end within {STOP_S:.0f} s"
            raise MachineError(message, f"see {place.home() / 'logs' / 'dockerd.log'}; try again")
    if pid:
        state.remember(dockerd_pid=None)


def _is_dockerd(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return "(dockerd) " in status and "(dockerd) Z" not in status


def run_quietly(*words: str) -> None:
    """Run a Docker command whose failure means that there was nothing to do."""
    if shutil.which("docker"):
        subprocess.run(["docker", *words], capture_output=True, check=False)


def has_content() -> bool:
    """Return whether the daemon runs and keeps a container, an image or a volume."""
    containers, images = ask("/containers/json?all=true")[1], ask("/images/json")[1]
    volumes = ask("/volumes")[1]
    return is_alive() and any((containers, images, volumes and volumes["Volumes"]))


def image_id(reference: str) -> str:
    """Return which image has a name; an empty string when none has."""
    status, facts = ask(f"/images/{reference}/json")
    return str(facts["Id"]) if status == http.client.OK else ""


def volume_exists(name: str) -> bool:
    """Return whether there is such a volume."""
    return ask(f"/volumes/{name}")[0] == http.client.OK


def image_exists(reference: str) -> bool:
    """Return whether the daemon has an image."""
    return ask(f"/images/{reference}/json")[0] == http.client.OK


def is_running(container: str) -> bool:
    """Return whether a container runs."""
    status, facts = ask(f"/containers/{container}/json")
    return status == http.client.OK and bool(facts["State"]["Running"])


def exists(container: str) -> bool:
    """Return whether there is such a container."""
    return ask(f"/containers/{container}/json")[0] == http.client.OK


def bridge_address() -> str:
    """Return the host's address on Docker's default bridge, where containers can reach it."""
    status, facts = ask("/networks/bridge")
    if status == http.client.OK:
        for config in facts["IPAM"]["Config"]:
            network = ipaddress.ip_network(config["Subnet"])
            return str(config.get("Gateway") or network[1])
    message = "Docker has no default bridge network"
    raise MachineError(message, "remove `bridge: none` from /etc/docker/daemon.json")
