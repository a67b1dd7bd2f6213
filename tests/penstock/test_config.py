from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock.config import RunInfo, is_set, spare_loopback

if TYPE_CHECKING:
    from pathlib import Path


def discover(root: Path, env: dict[str, str], event: object = None) -> RunInfo:
    """Discover a run for which GitHub wrote this event."""
    if event is not None:
        path = root / "event.json"
        path.write_text(event if isinstance(event, str) else json.dumps(event))
        env = {"GITHUB_EVENT_PATH": str(path), **env}
    return RunInfo.discover(root, env)


def pull_request(repository: str | None, sha: str = "a" * 40) -> dict[str, Any]:
    repo = {"full_name": repository} if repository else None
    owner = repository.split("/")[0] if repository else None
    label = f"{owner}:main" if owner else None
    return {"pull_request": {"head": {"sha": sha, "repo": repo, "label": label}}}


def test_folder_without_git_is_uncommitted(tmp_path: Path) -> None:
    """No repository is no error, and everything counts as changed."""
    run = discover(tmp_path, {})
    assert (run.commit, run.branch, run.tag, run.base) == ("uncommitted", "", "", "")
    assert run.has_changed(["app/**"])
    assert run.reports == tmp_path / "reports"


def test_runs_have_different_ids(tmp_path: Path) -> None:
    """Two runs of one commit can be told apart."""
    assert discover(tmp_path, {}).id != discover(tmp_path, {}).id


def test_environment_is_the_process_s_own_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to hand it on."""
    monkeypatch.setenv("GITHUB_SHA", "f" * 40)
    monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)
    assert RunInfo.discover(tmp_path).commit == "f" * 40


@pytest.mark.parametrize(("ref", "expected"), [("refs/heads/trunk", True), ("refs/heads/x", False)])
def test_default_branch_is_the_repository_s_own(tmp_path: Path, ref: str, expected: bool) -> None:
    """Which branch is the default one stands in the event, not in our code."""
    env = {"CI": "true", "GITHUB_SHA": "f" * 40, "GITHUB_REF": ref, "GITHUB_EVENT_NAME": "push"}
    run = discover(tmp_path, env, {"repository": {"default_branch": "trunk"}})
    assert (run.on_default_branch, run.commit, run.ci) == (expected, "f" * 40, True)


@pytest.mark.parametrize(
    ("kind", "branch", "tag"), [("branch", "v1", ""), ("tag", "", "v1"), ("", "v1", "")]
)
def test_run_is_on_a_branch_or_on_a_tag(tmp_path: Path, kind: str, branch: str, tag: str) -> None:
    """GitHub says which of both a name is."""
    run = discover(tmp_path, {"GITHUB_REF_NAME": "v1", "GITHUB_REF_TYPE": kind})
    assert (run.branch, run.tag) == (branch, tag)


def test_pull_request_is_known_by_its_head(tmp_path: Path) -> None:
    """GITHUB_SHA is a merge commit there, which nobody can check out later."""
    env = {"GITHUB_SHA": "b" * 40, "GITHUB_HEAD_REF": "topic", "GITHUB_REF_NAME": "7/merge"}
    run = discover(tmp_path, env, pull_request("us/shop"))
    assert (run.commit, run.branch) == ("a" * 40, "topic")


@pytest.mark.parametrize(
    ("repository", "branch"),
    [("us/shop", "main"), ("them/shop", "them:main"), (None, "fork:main")],
)
def test_branch_of_a_fork_is_none_of_ours(
    tmp_path: Path, repository: str | None, branch: str
) -> None:
    """A stranger's `main` must not pass for ours, also when the fork is gone."""
    env = {"GITHUB_HEAD_REF": "main", "GITHUB_REPOSITORY": "us/shop"}
    assert discover(tmp_path, env, pull_request(repository)).branch == branch


@pytest.mark.parametrize("content", ["[]", "{", '{"pull_request": null, "repository": []}'])
def test_broken_event_is_ignored(tmp_path: Path, content: str) -> None:
    """An event that holds something else than GitHub documents tells nothing."""
    run = discover(tmp_path, {}, content)
    assert (run.on_default_branch, run.commit, run.base) == (False, "uncommitted", "")


def test_git_that_cannot_be_run_is_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git still runs the pipeline."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert discover(tmp_path, {}).commit == "uncommitted"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("1", True), ("", False), ("False", False), ("0", False)],
)
def test_switches_may_be_off(value: str, expected: bool) -> None:
    """`CI=false` means no CI."""
    assert is_set(value) is expected


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ({"HTTPS_PROXY": "http://p"}, "localhost,127.0.0.1,::1"),
        ({"all_proxy": "socks5://p"}, "localhost,127.0.0.1,::1"),
        ({"HTTP_PROXY": "http://p", "NO_PROXY": "a, .b"}, "a,.b,localhost,127.0.0.1,::1"),
        ({"http_proxy": "p", "no_proxy": "::1,c", "NO_PROXY": "a"}, "::1,c,localhost,127.0.0.1"),
    ],
)
def test_loopback_joins_what_the_user_spares(given: dict[str, str], hosts: str) -> None:
    """In both spellings, behind the user's own."""
    environ = dict(given)
    spare_loopback(environ)
    assert environ == given | {"NO_PROXY": hosts, "no_proxy": hosts}


@pytest.mark.parametrize(
    "given", [{}, {"NO_PROXY": "a"}, {"HTTP_PROXY": ""}, {"HTTP_PROXY": "p", "NO_PROXY": "*"}]
)
def test_surroundings_that_ask_no_proxy_stay_as_they_are(given: dict[str, str]) -> None:
    """Without a proxy, or with one that is asked for nothing."""
    environ = dict(given)
    spare_loopback(environ)
    assert environ == given
