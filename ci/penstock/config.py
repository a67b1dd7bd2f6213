"""What a run knows of its surroundings: the commit, the branch, whether it runs in CI."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """The surroundings of one run; stages take it as `run`.

    Args:
        id: Unique for this run.
        root: The project's folder.
        commit: Full SHA of the commit under test, or `uncommitted` outside a repository.
        branch: Name of the branch, empty when there is none.
        tag: Name of the tag, empty unless the CI host runs for one.
        base: The commit on which the change is based; empty when nothing tells.
        on_default_branch: A push to the default branch, seen by the CI host.
        ci: Whether a CI host runs this.
        environ: The environment.
    """

    id: str
    root: Path
    commit: str
    branch: str
    tag: str = ""
    base: str = ""
    on_default_branch: bool = False
    ci: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def reports(self) -> Path:
        """Folder of everything that the run leaves for people and machines."""
        return self.root / "reports"

    @classmethod
    def discover(cls, root: Path, environ: Mapping[str, str] | None = None) -> RunInfo:
        """Read git and the variables of the CI host.

        Source: GitHub's documented default variables and webhook payloads.
        """
        env = os.environ if environ is None else environ
        event = _github_event(env)
        head = event.get("pull_request", {}).get("head", {})
        # On a pull request GITHUB_SHA is the merge commit, which nobody can check out later.
        commit = head.get("sha") or env.get("GITHUB_SHA") or _git(root, "rev-parse", "HEAD")
        default = event.get("repository", {}).get("default_branch", "main")
        named = env.get("GITHUB_HEAD_REF") or env.get("GITHUB_REF_NAME") or ""
        is_tag = env.get("GITHUB_REF_TYPE") == "tag"
        branch = "" if is_tag else named or _git(root, "branch", "--show-current")
        return cls(
            id=uuid.uuid4().hex,
            root=root,
            commit=commit or "uncommitted",
            branch=branch,
            tag=named if is_tag else "",
            base=_base(root, env, event, branch, default),
            on_default_branch=env.get("GITHUB_EVENT_NAME") == "push"
            and env.get("GITHUB_REF") == f"refs/heads/{default}",
            ci=is_set(env.get("CI", "")),
            environ=env,
        )

    def has_changed(self, patterns: Sequence[str]) -> bool:
        """Return whether a file changed since the base, or whether that cannot be told.

        Args:
            patterns: Git's globs, relative to the project's folder.
        """
        if not self.base:
            return True
        globs = [f":(glob){pattern}" for pattern in patterns]
        found = _git_lines(self.root, "diff", "--name-only", self.base, "--", *globs)
        untracked = ("ls-files", "--others", "--exclude-standard", "--", *globs)
        return found is None or bool(found or _git_lines(self.root, *untracked))


def _base(
    root: Path, env: Mapping[str, str], event: Mapping[str, Any], branch: str, default: str
) -> str:
    """Return the commit before the change, if git has it."""
    if target := env.get("GITHUB_BASE_REF"):
        return _git(root, "merge-base", f"origin/{target}", "HEAD")
    if before := event.get("before"):
        return _git(root, "rev-parse", "--verify", "--quiet", f"{before}^{{commit}}")
    if is_set(env.get("CI", "")) or branch == default:
        return ""
    remote = _git(root, "merge-base", f"origin/{default}", "HEAD")
    return remote or _git(root, "merge-base", default, "HEAD")


def is_set(value: str) -> bool:
    """Return whether a switch in the environment is on (`CI=false` is off)."""
    return value.lower() not in {"", "0", "false", "no", "off"}


def _github_event(env: Mapping[str, str]) -> dict[str, Any]:
    try:
        event = json.loads(Path(env.get("GITHUB_EVENT_PATH", "")).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return event if isinstance(event, dict) else {}


def _git(root: Path, *words: str) -> str:
    return "\n".join(_git_lines(root, *words) or ())


def _git_lines(root: Path, *words: str) -> list[str] | None:
    """Return what git prints; nothing at all when it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],  # noqa: S607 - the user's own git
            capture_output=True,
            check=False,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None
