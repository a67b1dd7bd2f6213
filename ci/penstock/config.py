"""What a run knows of its surroundings: the commit, the branch, whether it runs in CI."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """The surroundings of one run; stages take it as `run`.

    Args:
        id: Unique for this run.
        root: The project's folder.
        commit: Full SHA of the commit under test, or `uncommitted` outside a repository.
        branch: Name of the branch, empty when there is none.
        on_default_branch: A push to the default branch, seen by the CI host.
        ci: Whether a CI host runs this.
    """

    id: str
    root: Path
    commit: str
    branch: str
    on_default_branch: bool
    ci: bool

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
        branch = env.get("GITHUB_HEAD_REF") or env.get("GITHUB_REF_NAME")
        default = event.get("repository", {}).get("default_branch", "main")
        return cls(
            id=uuid.uuid4().hex,
            root=root,
            commit=commit or "uncommitted",
            branch=branch or _git(root, "branch", "--show-current"),
            on_default_branch=env.get("GITHUB_EVENT_NAME") == "push"
            and env.get("GITHUB_REF") == f"refs/heads/{default}",
            ci=is_set(env.get("CI", "")),
        )


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
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],  # noqa: S607 - the user's own git
            capture_output=True,
            check=False,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
