"""Which engine is taken, and what is asked to find out."""

from __future__ import annotations

def test_open_session_is_used_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `dagger run` nothing is looked for."""
    monkeypatch.setenv("DAGGER_SESSION_PORT", "1")
    assert choose.choose("tcp://elsewhere").kind == "session"


def test_named_engine_comes_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """By option or by variable."""
    assert choose.choose("tcp://host:1").words == "the engine at tcp://host:1"
    monkeypatch.setenv(choose.VARIABLE, "unix:///run/engine.sock")
    assert choose.choose().kind == "named"


def test_official_engine_is_taken_where_it_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the registry and Docker Hub reachable nothing is built."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr(choose, "_answers", lambda _host: True)
    with fake_docker(tmp_path / "docker.sock", {"/_ping": "OK", "/info": {}}):
        choice = choose.choose()
        titles = [step.name for step in choose._steps(choice)]
    assert choice.kind == "official"
    assert titles == ["venv", "apt", "dockerd", "official"]


@pytest.mark.parametrize("reachable", [set(), {"registry.dagger.io"}, {"hub.example.org"}])
def test_engine_is_built_unless_both_registries_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reachable: set[str]
) -> None:
    """One of the two is not enough: base images come from the other."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr(choose, "_answers", lambda host: host in reachable)
    info = {"IndexServerAddress": "https://hub.example.org/v1/"}
    with fake_docker(tmp_path / "docker.sock", {"/_ping": "OK", "/info": info}):
        assert choose.choose().kind == "built"


def test_probe_of_a_dead_host_is_quick() -> None:
    """A registry that is not there costs no minute."""
    began = time.monotonic()
    assert not choose._answers("localhost:1")
    assert time.monotonic() - began < choose.PROBE_S + 1


def test_known_choice_is_not_probed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call asks no network."""
    monkeypatch.setattr(choose, "_answers", lambda _host: pytest.fail("asked the network"))
    state.remember(kind="built")
    place.write_whole(place.cli(), "")
    assert choose.choose().kind == "built"
