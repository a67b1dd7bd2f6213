"""What needs the host's own git, which the pipeline's images do not have."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from penstock.config import RunInfo

if TYPE_CHECKING:
    from pathlib import Path


def test_commit_and_branch_come_from_git(tmp_path: Path) -> None:
    """On a laptop the checkout itself is asked."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q", "-b", "topic"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    run = RunInfo.discover(tmp_path, {})
    assert len(run.commit) == 40
    assert (run.branch, run.ci, run.on_default_branch) == ("topic", False, False)
