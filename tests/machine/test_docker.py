"""Docker, and what is put into it and taken out again."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine import built, command, docker, images, place, registry, state
from engine.errors import MachineError
from tests.machine.fakes import fake_docker

if TYPE_CHECKING:
    from tests.machine.fakes import Machine

BRIDGE = {"IPAM": {"Config": [{"Subnet": "172.30.0.0/16"}]}}


def test_docker_facts_are_read_from_the_socket(tmp_path: Path) -> None:
    """Alive, containers, images and the bridge's address, without Docker's command line."""
    answers = {
        "/_ping": "OK",
        "/containers/up/json": {"State": {"Running": True}},
        "/containers/down/json": {"State": {"Running": False}},
        "/images/here/json": {},
        "/networks/bridge": BRIDGE,
    }
    with fake_docker(tmp_path / "docker.sock", answers):
        assert docker.is_alive()
        assert [docker.is_running(n) for n in ("up", "down", "absent")] == [True, False, False]
        assert [docker.exists(n) for n in ("down", "absent")] == [True, False]
        assert [docker.image_exists(n) for n in ("here", "absent")] == [True, False]
        assert docker.bridge_address() == "172.30.0.1"


def test_broken_docker_is_no_docker(tmp_path: Path) -> None:
    """A socket on which nobody speaks HTTP counts as dead."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        assert not docker.is_alive()


def test_taken_port_is_passed_over() -> None:
    """The registry takes the next free one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not registry.is_free(port, ("127.0.0.1",))
    assert registry.is_free(port, ("127.0.0.1",))


def test_only_own_capabilities_are_asked_for() -> None:
    """Docker refuses a container that asks for more than the machine has."""
    assert "SYS_ADMIN" in built.CAPABILITIES
    assert set(built._own_capabilities()) <= set(built.CAPABILITIES)


def test_images_are_labelled_as_what_they_are() -> None:
    """Each stand-in has official references and packages; the engine has no reference."""
    table = images.table()
    assert {"engine", "python", "postgres", "redis", "registry"} == set(table)
    assert all(entry["packages"] for entry in table.values())
    assert "references" not in table["engine"]


@pytest.mark.parametrize("others", ["", "corp.example"])
def test_proxy_is_never_asked_for_the_engines_own_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    """Whether or not the environment has exceptions of its own."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", others)
    with fake_docker(tmp_path / "docker.sock", {"/networks/bridge": BRIDGE}):
        options = built._engine_options(Path("engine.json"))
    (pair,) = [option for option in options if option.startswith("NO_PROXY=")]
    assert pair.partition("=")[2].split(",")[-3:] == ["localhost", "127.0.0.1", "172.30.0.1"]
    assert ("corp.example" in pair) is bool(others)


def test_engine_without_proxies_gets_none(tmp_path: Path) -> None:
    """No empty variables."""
    with fake_docker(tmp_path / "docker.sock", {"/networks/bridge": BRIDGE}):
        assert "_PROXY" not in " ".join(built._engine_options(Path("engine.json")))


def test_answering_daemon_need_not_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs it, and wherever: `docker.io` is not missing then."""
    monkeypatch.setenv("PATH", "/nowhere")
    with fake_docker(tmp_path / "docker.sock", {"/_ping": "OK"}):
        titles = [step.title for step in built.steps() if step.name == "apt"]
    assert titles == ["Debian packages mmdebstrap"]


# Removal


@pytest.fixture
def used(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which images were made, by root, and Docker was stopped again."""
    place.write_whole(home / "logs" / "image-python.log", "")
    monkeypatch.setattr(place, "VENV", tmp_path / "venv")
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("used")
def test_removal_starts_the_daemon_that_was_stopped(machine: Machine, home: Path) -> None:
    """After `engine stop` too, containers, volumes and images go; then the daemon."""
    machine.program("docker")
    machine.daemon({"/_ping": "OK"})
    assert command.main(["engine", "remove"]) == 0
    assert f"docker rm --force --volumes {built.container()}" in machine.calls
    assert f"docker volume rm --force {built.ENGINE_VOLUME}" in machine.calls
    assert not docker.is_alive()
    assert not home.exists()


@pytest.mark.usefixtures("used")
def test_removal_without_a_daemon_fails_before_it_forgets(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It never says "removed" when it could not look."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert command.main(["engine", "remove"]) == 4
    shown = capfd.readouterr().err
    assert "there is no `dockerd` to start\n  next: install it" in shown
    assert "removed" not in shown
    assert home.exists()


@pytest.mark.usefixtures("used")
def test_removal_says_what_docker_keeps(
    machine: Machine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A container that cannot be removed is an error, not silence."""
    machine.program("docker", "exit 1")
    answers = {"/_ping": "OK", f"/containers/{registry.NAME}/json": {}}
    with fake_docker(tmp_path / "docker.sock", answers):
        assert command.main(["engine", "remove"]) == 4
    assert f"error: Docker keeps {registry.NAME}" in capfd.readouterr().err


@pytest.mark.usefixtures("used")
def test_removal_takes_images_by_what_they_are(machine: Machine, tmp_path: Path) -> None:
    """Older ones that lost their name, and tags that a killed push left, go with them."""
    machine.program("docker")
    state.add("images", old="penstock/python:built")
    found = {"Id": "new"}
    known = {f"/images/{name}/json": found for name in ("penstock/python:built", "new", "old")}
    with (
        fake_docker(tmp_path / "docker.sock", {"/_ping": "OK"} | known),
        pytest.raises(MachineError),
    ):
        built.remove()
    removed = [call for call in machine.calls if call.startswith("docker rmi")]
    assert removed == ["docker rmi --force new", "docker rmi --force old"]


def test_removal_leaves_a_docker_alone_that_was_never_used(machine: Machine) -> None:
    """Nothing was made, so no daemon is started to look for it."""
    machine.program("dockerd")
    built.remove()
    assert machine.calls == []


@pytest.mark.usefixtures("used")
def test_removal_keeps_docker_while_somebody_else_uses_it(
    machine: Machine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Purging docker.io would take their images and volumes with it."""
    for name in ("docker", "apt-get", "dpkg"):
        machine.program(name)
    machine.program("dpkg-query", "echo installed docker.io")
    state.remember(apt_installed=["docker.io"])
    answers = {"/_ping": "OK", "/volumes": {"Volumes": [{"Name": "theirs"}]}}
    with fake_docker(tmp_path / "docker.sock", answers):
        assert command.main(["engine", "remove"]) == 0
    shown = capfd.readouterr().err
    assert "Docker stays" in shown
    assert "images, caches and the venv" in shown
    assert not [call for call in machine.calls if call.startswith("apt-get")]
