"""The registry of the base images, which the built engine uses as its mirror of Docker Hub.

A container with two listeners: loopback for us and Docker's bridge for the engine.
"""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING

from engine import docker, images, state
from engine.errors import MachineError
from engine.steps import Step

if TYPE_CHECKING:
    from engine.steps import Log

NAME = "penstock-registry"
FIRST_PORT = 5000
PORTS = 20


def step() -> Step:
    """Return the step that starts the registry."""
    return Step("registry", "Registry", _start, is_running, ("image-registry",))


def publish_step(name: str) -> Step:
    """Return the step that puts an image into the registry."""

    def is_done() -> bool:
        return state.stamp(f"publish-{name}") == images.wanted(name) and _has_all(name)

    title = f"Image {name}, into the registry"
    needs = (f"image-{name}", "registry")
    return Step(
        f"publish-{name}", title, lambda log: _publish(name, log), is_done, needs, usual_s=10
    )


def _has_all(name: str) -> bool:
    """Return whether the registry has an image; while it is down, believe the stamp."""
    return not is_running() or all(_has(reference) for reference in images.references(name))


def _has(reference: str) -> bool:
    name, _, tag = reference.rpartition(":")
    connection = http.client.HTTPConnection("127.0.0.1", _port(), timeout=docker.ASK_S)
    try:
        connection.request("HEAD", f"/v2/{name}/manifests/{tag}")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _publish(name: str, log: Log) -> None:
    for reference in images.references(name):
        pushed = f"localhost:{_port()}/{reference}"
        log.run(["docker", "tag", images.local(name), pushed])
        log.run(["docker", "push", pushed])
        log.run(["docker", "rmi", pushed])
    state.set_stamp(f"publish-{name}", images.wanted(name))


def _port() -> int:
    return int(state.read().get("registry_port", FIRST_PORT))


def address() -> str:
    """Return where the engine reaches the registry."""
    return f"{docker.bridge_address()}:{_port()}"


def is_running() -> bool:
    """Return whether the registry's container runs."""
    return docker.is_running(NAME)


def _start(log: Log) -> None:
    if docker.exists(NAME):
        try:
            log.run(["docker", "start", NAME])
        except MachineError:
            log.run(["docker", "rm", "--force", NAME])  # its port was taken meanwhile
        else:
            return
    addresses = ("127.0.0.1", docker.bridge_address())
    port = next((p for p in range(FIRST_PORT, FIRST_PORT + PORTS) if is_free(p, addresses)), 0)
    if not port:
        message = f"the ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are all taken"
        raise MachineError(message, "free one of them (`ss -ltnp` shows who has them)")
    published = [word for address in addresses for word in ("-p", f"{address}:{port}:5000")]
    options = ["--detach", "--name", NAME, "--volume", f"{NAME}:/var/lib/registry", *published]
    log.run(["docker", "run", *options, images.local("registry")])
    state.remember(registry_port=port)


def is_free(port: int, addresses: tuple[str, ...]) -> bool:
    """Return whether a port can be listened on at all these addresses."""
    for address in addresses:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True
