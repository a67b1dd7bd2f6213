"""The workflow itself, executed by `act` on this host against the real engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
NOTHING = "runs: {using: composite, steps: []}\n"
UPLOAD = """
runs:
  using: composite
  steps:
    - {run: 'cp -r reports "$UPLOADED"', shell: bash}
"""


def git(folder: Path, *words: str) -> None:
    own = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", str(folder), *own, *words], check=True, capture_output=True)


def checkout(folder: Path) -> Path:
    """Copy the files of this checkout, as they are now, into a repository of their own."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "as it is")
    return folder


def stand_in(folder: Path, action: str) -> Path:
    """Make a marketplace action's local stand-in, a repository as `act` wants it."""
    folder.mkdir()
    (folder / "action.yml").write_text(action)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "stand-in")
    return folder


def act(project: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run the workflow on a push."""
    actions = dict(re.findall(r"uses: ((actions/[a-z-]+)@[0-9a-f]{40})", WORKFLOW.read_text()))
    locals_ = {
        "actions/checkout": stand_in(tmp_path / "checkout", NOTHING),
        "actions/upload-artifact": stand_in(tmp_path / "upload", UPLOAD),
    }
    words = ["act", "push", "-P", "ubuntu-latest=-self-hosted", "--action-offline-mode"]
    for kind in ("action-cache", "cache-server"):
        words += [f"--{kind}-path", str(tmp_path / kind)]
    for used, name in actions.items():
        words += ["--local-repository", f"{used}={locals_[name]}"]
    words += ["--env", f"UPLOADED={tmp_path / 'uploaded'}", "--env", f"PATH={os.environ['PATH']}"]
    # act, unlike GitHub, gives its steps a terminal.
    words += ["--env", f"HOME={os.environ['HOME']}", "--env", "NO_COLOR=1"]
    return subprocess.run(
        words, cwd=project, capture_output=True, text=True, check=False, timeout=900
    )


@pytest.mark.engine
def test_green_workflow_exits_0_and_uploads_its_reports(tmp_path: Path) -> None:
    """The whole of it: set-up, pipeline, upload."""
    project = tmp_path / "project"
    project.mkdir()
    done = act(checkout(project), tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    # Where no index tells of known weaknesses, the audit says so, and nothing else does.
    assert re.search(r"All stages passed|Passed with warnings: audit failed", done.stdout)
    assert "Pushed (rehearsal)" in done.stdout
    assert (tmp_path / "uploaded/coverage.xml").exists()


@pytest.mark.engine
def test_failing_test_fails_the_workflow_and_reports_are_uploaded(tmp_path: Path) -> None:
    """Red is red on the CI host too, and the reports are there to look at."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "tests/app").mkdir(parents=True)
    # Red for pytest alone: what mypy refused too would race the gate that is to be shown.
    red = '"""Red."""\n\n\ndef test_red() -> None:\n    assert sum([1]) == 2\n'
    (project / "tests/app/test_a_red_one.py").write_text(red)
    done = act(checkout(project), tmp_path)
    assert done.returncode != 0
    for words in (
        "tests/app/test_a_red_one.py:5: test_red",
        "Build the image: SKIPPED (because test failed)",
        "PIPELINE STOPPED",
    ):
        assert words in done.stdout, done.stdout[-6000:]
    assert (tmp_path / "uploaded/htmlcov/index.html").exists()
    assert (tmp_path / "uploaded/junit.xml").exists()


def test_workflow_passes_actionlint_and_zizmor() -> None:
    """Both find nothing, the strictest persona included."""
    for words in (["actionlint"], ["zizmor", "--offline", "--persona=pedantic"]):
        done = subprocess.run([*words, str(WORKFLOW)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
