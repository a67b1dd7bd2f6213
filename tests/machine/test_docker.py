"""Docker, and what is put into it and taken out again."""

from __future__ import annotations

def test_docker_facts_are_read_from_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive, containers, images and the bridge's address, without Docker's command line."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    answers = {
        "/_ping": "OK",
        "/containers/up/json": {"State": {"Running": True}},
        "/containers/down/json": {"State": {"Running": False}},
        "/images/here/json": {},
        "/networks/bridge": {"IPAM": {"Config": [{"Subnet": "172.30.0.0/16"}]}},
    }
    with fake_docker(tmp_path / "docker.sock", answers):
        assert docker.is_alive()
        assert [docker.is_running(n) for n in ("up", "down", "absent")] == [True, False, False]
        assert [docker.exists(n) for n in ("down", "absent")] == [True, False]
        assert [docker.image_exists(n) for n in ("here", "absent")] == [True, False]
        assert docker.bridge_address() == "172.30.0.1"


def test_broken_docker_is_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket on which nobody speaks HTTP counts as dead."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        assert not docker.is_alive()


def test_taken_port_is_passed_over() -> None:
    """The registry takes the next free one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not built._is_free(port, ("127.0.0.1",))
    assert built._is_free(port, ("127.0.0.1",))


def test_only_own_capabilities_are_asked_for() -> None:
    """Docker refuses a container that asks for more than the machine has."""
    assert "SYS_ADMIN" in built.CAPABILITIES
    assert set(built._own_capabilities()) <= set(built.CAPABILITIES)


def test_images_are_labelled_as_what_they_are() -> None:
    """Each stand-in has official references and packages; the engine has no reference."""
    table = built.images()
    assert {"engine", "python", "postgres", "redis", "registry"} == set(table)
    assert all(entry["packages"] for entry in table.values())
    assert "references" not in table["engine"]
