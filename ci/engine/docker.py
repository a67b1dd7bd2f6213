"""The Docker daemon: asked over its socket, told by its command line."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import time
from typing import Any

from engine import place, screen, state
from engine.errors import MachineError

START_S = 40.0
ASK_S = 5.0


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


def start_daemon() -> None:
    """Start the daemon when it is installed and nobody else has.

    Raises:
        MachineError: When it cannot be started.
    """
    if is_alive():
        return
    if os.geteuid() != 0:
        message = f"the Docker daemon does not answer at {socket_path()} and only root can start it"
        raise MachineError(message, "start it (`sudo service docker start`) and run this again")
    daemon = shutil.which("dockerd") or "/usr/sbin/dockerd"
    log = place.home() / "logs" / "dockerd.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    screen.say("  starting the Docker daemon")
    with log.open("ab") as output:
        child = subprocess.Popen(
            [daemon], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    state.remember(dockerd_pid=child.pid)
    end = time.monotonic() + START_S
    while not is_alive():
        if child.poll() is not None or time.monotonic() > end:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-6:])
            message = f"the Docker daemon did not start; the last lines of {log}:\n{tail}"
            raise MachineError(message, "mend what it names there, then run this again")
        time.sleep(0.1)


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
