from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from penstock.config import RunInfo, is_set

if TYPE_CHECKING:
    from pathlib import Path


def event(tmp_path: Path, content: object) -> str:
    path = tmp_path / "event.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_folder_without_git_is_uncommitted(tmp_path: Path) -> None:
    """No repository is no error."""
    run = RunInfo.discover(tmp_path, {})
    assert (run.commit, run.branch) == ("uncommitted", "")
    assert run.reports == tmp_path / "reports"


@pytest.mark.parametrize(("ref", "expected"), [("refs/heads/trunk", True), ("refs/heads/x", False)])
def test_default_branch_is_the_repository_s_own(tmp_path: Path, ref: str, expected: bool) -> None:
    """Which branch is the default one stands in the event, not in our code."""
    payload = event(tmp_path, {"repository": {"default_branch": "trunk"}})
    env = {
        "CI": "true",
        "GITHUB_SHA": "f" * 40,
        "GITHUB_REF": ref,
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_EVENT_PATH": payload,
    }
    run = RunInfo.discover(tmp_path, env)
    assert (run.on_default_branch, run.commit, run.ci) == (expected, "f" * 40, True)


def test_pull_request_is_known_by_its_head(tmp_path: Path) -> None:
    """GITHUB_SHA is a merge commit there, which nobody can check out later."""
    payload = event(tmp_path, {"pull_request": {"head": {"sha": "a" * 40}}})
    env = {"GITHUB_SHA": "b" * 40, "GITHUB_EVENT_PATH": payload, "GITHUB_HEAD_REF": "topic"}
    run = RunInfo.discover(tmp_path, env)
    assert (run.commit, run.branch) == ("a" * 40, "topic")


@pytest.mark.parametrize("content", ["[]", "{"])
def test_broken_event_is_ignored(tmp_path: Path, content: str) -> None:
    """An event that is no object tells nothing."""
    (tmp_path / "event.json").write_text(content)
    run = RunInfo.discover(tmp_path, {"GITHUB_EVENT_PATH": str(tmp_path / "event.json")})
    assert not run.on_default_branch


def test_git_that_cannot_be_run_is_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git still runs the pipeline."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert RunInfo.discover(tmp_path, {}).commit == "uncommitted"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("1", True), ("", False), ("False", False), ("0", False)],
)
def test_switches_may_be_off(value: str, expected: bool) -> None:
    """`CI=false` means no CI."""
    assert is_set(value) is expected
