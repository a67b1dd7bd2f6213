"""A machine of each test's own: its cache folder, no Docker, no network settings."""

from __future__ import annotations

import os
import urllib.request
from typing import TYPE_CHECKING

import pytest

from engine import choose, place, wheels
from tests.machine.fakes import Machine

if TYPE_CHECKING:
    from pathlib import Path

PROXIES = [name for name in os.environ if name.lower() in {"http_proxy", "https_proxy", "no_proxy"}]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, without Docker, proxies and a named engine."""
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    for name in ("DAGGER_SESSION_PORT", choose.VARIABLE, *wheels.INDEX_VARIABLES, *PROXIES):
        monkeypatch.setenv(name, "")  # noted, so that what a test sets is taken back
        monkeypatch.delenv(name)
    urllib.request.install_opener(None)  # forgets the proxies it has read
    return place.home()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A place for programs that stand in for the machine's own and note how they are called."""
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    return made
