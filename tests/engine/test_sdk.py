"""The engine is asked for its language once for each version, and what is kept of it cannot hurt."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.conftest import Project

ASKED = "asked for the schema"
PIPELINE = f"""
import gql.client

fetch = gql.client.AsyncClientSession.fetch_schema

async def told(self):
    print("{ASKED}")
    await fetch(self)

gql.client.AsyncClientSession.fetch_schema = told

@pipeline.stage
def works(python) -> Command:
    return Command(python, "true")
"""


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with nothing in it but the CLI."""
    folder = tmp_path_factory.mktemp("cache")
    there = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    (folder / "dagger").symlink_to(there / "dagger")
    return folder


def kept(home: Path) -> Path:
    (file,) = (home / "penstock").glob("schema-*.json")
    return file


def test_engine_is_asked_once(project: Project, home: Path) -> None:
    project.write(PIPELINE)
    for is_first in (True, False):
        run = project.run(XDG_CACHE_HOME=str(home))
        assert run.code == 0
        assert (ASKED in run.out) == is_first
    assert ASKED in project.run(XDG_CACHE_HOME=str(home), PENSTOCK_PLAIN_SDK="1").out


@pytest.mark.parametrize("how", ["damaged", "of another version", "of no sense"])
def test_what_is_kept_is_made_again(project: Project, home: Path, how: str) -> None:
    project.write(PIPELINE)
    project.run(XDG_CACHE_HOME=str(home))
    file = kept(home)
    good = file.read_text()
    other = json.dumps(json.loads(good) | {"version": "v0.1.0"})
    file.write_text({"damaged": good[:2000], "of another version": other}.get(how, "[1]"))
    run = project.run(XDG_CACHE_HOME=str(home))
    assert run.code == 0
    assert ASKED in run.out
    assert kept(home).read_text() == good


def test_nothing_can_be_kept(project: Project, home: Path) -> None:
    """The run is a little slower, and that is all."""
    project.write(PIPELINE)
    (home / "penstock").touch()
    run = project.run(XDG_CACHE_HOME=str(home))
    assert run.code == 0
    assert (project.folder / "reports/index.html").exists()
