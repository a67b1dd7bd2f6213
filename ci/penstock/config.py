"""What a run knows of its surroundings: the commit, the branch, whether it runs in CI."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence


REPORTS = "reports"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Whatever the user's own git likes to show.
DIFF = (
    "--unified=0",
    "--no-color",
    "--no-ext-diff",
    "--relative",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The surroundings of one run; stages take it as `run`.

    Args:
        id: Unique for this run.
        root: The project's folder.
        commit: Full SHA of the commit under test, or `uncommitted` outside a repository.
        branch: Name of the branch, `owner:name` for a pull request from a fork; empty when there
            is none.
        tag: Name of the tag, empty unless the CI host runs for one.
        on_default_branch: A push to the default branch, seen by the CI host.
        ci: Whether a CI host runs this.
        environ: The environment.
    """

    id: str
    root: Path
    commit: str
    branch: str
    tag: str = ""
    on_default_branch: bool = False
    ci: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def reports(self) -> Path:
        """Folder of everything that the run leaves for people and machines."""
        return self.root / REPORTS

    @classmethod
    def discover(cls, root: Path, environ: Mapping[str, str] | None = None) -> RunInfo:
        """Read git and the variables of the CI host.

        Source: GitHub's documented default variables and webhook payloads.
        """
        env = os.environ if environ is None else environ
        event = _github_event(env)
        # On a pull request GITHUB_SHA is the merge commit, which nobody can check out later.
        commit = _at(event, "pull_request", "head", "sha") or env.get("GITHUB_SHA", "")
        named = _github_branch(env, event)
        is_tag = env.get("GITHUB_REF_TYPE") == "tag"
        default = _at(event, "repository", "default_branch") or "main"
        return cls(
            id=os.urandom(16).hex(),
            root=root,
            commit=commit or _git(root, "rev-parse", "HEAD") or "uncommitted",
            branch="" if is_tag else named or _git(root, "branch", "--show-current") or "",
            tag=named if is_tag else "",
            on_default_branch=env.get("GITHUB_EVENT_NAME") == "push"
            and env.get("GITHUB_REF") == f"refs/heads/{default}",
            ci=is_set(env.get("CI", "")),
            environ=env,
        )

    @cached_property
    def base(self) -> str:
        """The commit on which the change is based; empty when git cannot tell."""
        if target := self.environ.get("GITHUB_BASE_REF"):
            return _git(self.root, "merge-base", f"origin/{target}", "HEAD") or ""
        if before := _at(_github_event(self.environ), "before"):
            return _git(self.root, "rev-parse", "--verify", "--quiet", f"{before}^{{commit}}") or ""
        default = _git(self.root, "rev-parse", "--abbrev-ref", "origin/HEAD") or "origin/main"
        local = default.removeprefix("origin/")
        if self.ci or self.branch == local:
            return ""
        bases = (_git(self.root, "merge-base", branch, "HEAD") for branch in (default, local))
        return next(filter(None, bases), "")

    def remote(self) -> str:
        """Return the URL of the repository that this one was cloned from, if git knows one."""
        return _git(self.root, "remote", "get-url", "origin") or ""

    def diff(self) -> str:
        """Return what changed since the base, without the lines around it; nothing without one."""
        return _git(self.root, "diff", *DIFF, self.base) or "" if self.base else ""

    def has_changed(self, patterns: Sequence[str]) -> bool:
        """Return whether a file changed since the base, or whether that cannot be told.

        Args:
            patterns: Git's globs, relative to the project's folder.
        """
        globs = [f":(glob){pattern}" for pattern in patterns]
        questions = (
            ("diff", "--name-only", self.base, "--", *globs),
            ("ls-files", "--others", "--exclude-standard", "--", *globs),
        )
        # An empty answer says no, and none at all does not.
        return not self.base or any(_git(self.root, *words) != "" for words in questions)


def is_set(value: str) -> bool:
    """Return whether a switch in the environment is on (`CI=false` is off)."""
    return value.lower() not in {"", "0", "false", "no", "off"}


def _github_branch(env: Mapping[str, str], event: Mapping[str, Any]) -> str:
    """Return the branch or tag that GitHub names; empty outside of it."""
    if not (brought := env.get("GITHUB_HEAD_REF")):
        return env.get("GITHUB_REF_NAME", "")
    ours = env.get("GITHUB_REPOSITORY")
    if not ours or _at(event, "pull_request", "head", "repo", "full_name") == ours:
        return brought
    # A stranger may call a branch `main` too: a colon is in no branch's own name.
    return _at(event, "pull_request", "head", "label") or f"fork:{brought}"


def spare_loopback(environ: MutableMapping[str, str]) -> None:
    """Have no proxy asked for this machine itself: the engine's session and collectors are on it.

    The SDK's client and OpenTelemetry's would, unless `NO_PROXY` says not to.
    """
    told = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    given = [host.strip() for host in told.split(",") if host.strip()]
    names = ("http_proxy", "https_proxy", "all_proxy")
    is_proxied = any(environ.get(name) or environ.get(name.upper()) for name in names)
    if is_proxied and "*" not in given:
        hosts = ",".join(dict.fromkeys((*given, *LOOPBACK)))
        # Both, as some read one of them only, and most the lower case first.
        environ.update({"no_proxy": hosts, "NO_PROXY": hosts})


def run_url(environ: Mapping[str, str]) -> str:
    """Return where the CI host shows this run; empty outside of the hosts that say so."""
    if (run := environ.get("GITHUB_RUN_ID")) and (repository := repository_url(environ)):
        return f"{repository}/actions/runs/{run}"
    return first(environ, "CI_PIPELINE_URL", "CIRCLE_BUILD_URL", "BUILDKITE_BUILD_URL")


def repository_url(environ: Mapping[str, str]) -> str:
    """Return where the CI host shows the repository."""
    if name := environ.get("GITHUB_REPOSITORY"):
        return f"{environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}"
    return first(environ, "CI_PROJECT_URL", "CIRCLE_REPOSITORY_URL", "BUILDKITE_REPO")


def first(environ: Mapping[str, str], *names: str) -> str:
    """Return the first variable that has a value; empty when none has."""
    return next(filter(None, map(environ.get, names)), "")


def _github_event(env: Mapping[str, str]) -> dict[str, Any]:
    try:
        event = json.loads(Path(env.get("GITHUB_EVENT_PATH", "")).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _at(event: Mapping[str, Any], *path: str) -> str:
    """Return the text at a path of an event; empty where there is none."""
    found: Any = event
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _git(root: Path, *words: str) -> str | None:
    """Return what git prints; nothing at all when it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],  # noqa: S607 - the user's own git
            capture_output=True,
            check=True,
            encoding="utf-8",
            errors="replace",  # names of files and branches are bytes
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip("\n")
