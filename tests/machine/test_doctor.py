"""What `doctor` tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import choose, doctor, images, place, state

if TYPE_CHECKING:
    import pytest


def test_doctor_lists_what_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    """On a bare machine it says what would be done, changes nothing, and exits 4."""
    assert doctor.report("") == 4
    shown = capfd.readouterr().err
    assert "MISS Docker" in shown
    assert "`python3 -m ci setup` would do:" in shown
    assert "  Dagger's CLI and engine, built by Go  (about 6 min 0 s)" in shown
    assert "together about 6 min" in shown
    assert not (place.home() / "bin").exists()


def test_doctor_does_not_list_what_only_hides_behind_a_stopped_daemon(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that were made and published are not made again, so they are not announced."""
    monkeypatch.setattr(choose, "official_is_reachable", lambda: False)
    for name in images.table():
        state.set_stamp(f"image-{name}", images.wanted(name))
        state.set_stamp(f"publish-{name}", images.wanted(name))
    assert doctor.report() == 4
    shown = capfd.readouterr().err
    assert "  Docker daemon  (" in shown
    assert "Image " not in shown


def test_doctor_tries_an_engine_that_was_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer is missing, whatever else is there."""
    monkeypatch.setattr(choose, "steps_for", lambda _choice: [])
    assert doctor.report("tcp://127.0.0.1:9") == 4
    shown = capfd.readouterr().err
    assert "MISS engine: the engine at tcp://127.0.0.1:9 cannot be reached: Connection" in shown
    assert "nothing is missing" not in shown


def test_doctor_says_which_engines_it_cannot_try(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod is reached by Dagger's CLI only."""
    monkeypatch.setattr(choose, "steps_for", lambda _choice: [])
    assert doctor.report("kube-pod://engine") == 0
    assert "the engine at kube-pod://engine (not tried" in capfd.readouterr().err


def test_doctor_shows_the_own_index_without_its_login(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People see where packages will come from, and no password."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://me:secret@index.example/simple")
    doctor.report("tcp://127.0.0.1:9")
    assert "ok   package index: https://index.example/simple" in capfd.readouterr().err
