"""Which engine is taken, and what is asked to find out."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from engine import built, choose, place, state
from engine.errors import MachineError
from tests.machine.fakes import fake_docker, step

if TYPE_CHECKING:
    from pathlib import Path


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
    monkeypatch.setattr(choose, "_answers", lambda _host: True)
    with fake_docker(tmp_path / "docker.sock", {"/_ping": "OK"}):
        choice = choose.choose()
        names = [step.name for step in choose.steps_for(choice)]
    assert choice.kind == "official"
    assert names == ["venv", "apt", "dockerd", "official"]


@pytest.mark.parametrize("reachable", [set(), {built.image().split("/")[0]}, {choose.HUB}])
def test_engine_is_built_unless_both_registries_answer(
    monkeypatch: pytest.MonkeyPatch, reachable: set[str]
) -> None:
    """One of the two is not enough, with a Docker daemon or without: base images come from it."""
    monkeypatch.setattr(choose, "_answers", lambda host: host in reachable)
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


def test_registries_are_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only a proxy leads out, it leads to the official engine too."""
    asked: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
        assert not choose._answers("registry.example")
        server.shutdown()
    assert asked == ["registry.example:443"]


def test_named_engine_that_listens_can_be_reached(tmp_path: Path) -> None:
    """Over TCP and over a socket."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "engine.sock"))
        unix.listen()
        assert choose.unreachable(f"tcp://127.0.0.1:{tcp.getsockname()[1]}") == ""
        assert choose.unreachable(f"unix://{tmp_path}/engine.sock") == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("tcp://127.0.0.1:9", "Connection refused"),
        ("tcp://127.0.0.1", "it names no port"),
        ("tcp://127.0.0.1:x", "Port could not be cast to integer value as 'x'"),
        ("unix:///no/such.sock", "No such file or directory"),
        ("kube-pod://engine", None),
    ],
)
def test_named_engine_that_does_not_answer_is_told_by_its_reason(
    url: str, reason: str | None
) -> None:
    """None stands for what cannot be tried without Dagger's CLI."""
    assert choose.unreachable(url) == reason


def test_venv_alone_needs_no_room_for_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk too full for a build is not refused when nothing is left to build."""
    work = [step("venv", "true"), step("go-build", "true", done=True, disk_bytes=10**18)]
    monkeypatch.setattr(choose, "choose", lambda _engine: choose.Choice("built", "ours"))
    monkeypatch.setattr(choose, "steps_for", lambda _choice: work)
    choose.ensure()
    assert set(state.read()["durations_s"]) == {"venv"}


def test_full_disk_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is needed, how much there is, and where else to go."""
    work = [step("go-build", "true", disk_bytes=10**18)]
    monkeypatch.setattr(choose, "steps_for", lambda _choice: work)
    with pytest.raises(MachineError, match=r"needs .* GB and .* has .* GB") as caught:
        choose.ensure("tcp://127.0.0.1:9")
    assert "XDG_CACHE_HOME" in caught.value.advice
    assert "durations_s" not in state.read()


def test_what_a_killed_call_left_at_work_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grandchild that still writes an image would write into the next one."""
    monkeypatch.setattr(choose, "steps_for", lambda _choice: [step("venv", "true")])
    words = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    words.append(str(place.scratch() / "x.tar"))
    with subprocess.Popen(words, stdout=subprocess.PIPE) as left:
        assert left.stdout
        left.stdout.readline()  # it is at work
        choose.ensure("tcp://127.0.0.1:9")
        assert left.wait(timeout=5) == -signal.SIGKILL


def test_what_a_killed_call_left_mounted_is_unmounted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The innermost first; as long as something is mounted, nothing is deleted."""
    inside = place.scratch() / "mmdebstrap.a b"
    (inside / "sys").mkdir(parents=True)
    (tmp_path / "mounts").write_text(
        f"sys {inside}/sys sysfs ro 0 0\nx {inside}/sys/fs x rw 0 0\nproc /proc proc rw 0 0\n".replace(
            "a b", r"a\040b"
        )
    )
    monkeypatch.setattr(place, "MOUNTS", tmp_path / "mounts")
    (tmp_path / "umount").write_text(
        f'#!/bin/sh\necho "$2" >> {tmp_path}/done\n[ -e {tmp_path}/busy ] || : > {tmp_path}/mounts\n'
    )
    (tmp_path / "umount").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "busy").touch()
    place.sweep()
    assert (tmp_path / "done").read_text().splitlines() == [f"{inside}/sys/fs", f"{inside}/sys"]
    assert inside.exists()
    (tmp_path / "busy").unlink()
    place.sweep()
    assert not inside.exists()


def test_what_a_killed_call_left_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-made file systems of images go when the next call has something to do."""
    monkeypatch.setattr(choose, "steps_for", lambda _choice: [step("venv", "true")])
    (place.scratch() / "mmdebstrap.x" / "usr").mkdir(parents=True)
    choose.ensure("tcp://127.0.0.1:9")
    assert not (place.home() / "scratch" / "mmdebstrap.x").exists()
