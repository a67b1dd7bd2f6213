"""What is said to GitHub's runner, heard by `act`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-hunter2"
WORKFLOW = """\
on: push
jobs:
  ci:
    runs-on: ubuntu-latest
    steps:
      - id: penstock
        run: exec "$PYTHON" "$STEP"
      - run: 'echo "handed on: ${{ steps.penstock.outputs.image }} ${{ env.EVIL }}"'
      - run: 'echo "secret: hunter2-hunter2"'
"""
STEP = f"""
import os, shutil
from penstock.events import EventStream, OutputWritten, RunFinished, RunStarted, StageFinished
from penstock.evidence import Finding
from penstock.model import Outcome, Result, Stage
from penstock.redact import Redactor
from penstock.reports.console import ConsoleReport
from penstock.reports.github import GitHubReport

evil = "\\n::error::evil\\n::set-output name=image::evil\\n::set-env name=EVIL::evil\\n::endgroup::\\n"
redactor = Redactor()
redactor.add("{SECRET}")
assert GitHubReport.wanted(os.environ)
report = GitHubReport(os.environ, redactor=redactor)
stream = EventStream(redactor, [ConsoleReport(), report])
finding = Finding(file="a,b.py", line=3, message="100%: not " + evil, tool="ruff", code="F401")
names = ("lint", "push")
stream.emit(
    RunStarted(
        pipeline="p",
        run_id="1",
        commit="c",
        started_at="t",
        stages=tuple(Stage(name=name, title=name) for name in names),
        reproduce="ci",
    )
)
stream.emit(OutputWritten(stage="lint", text=evil))
red = Outcome(
    result=Result.FAILURE, reason="exit code 1", findings=(finding,), output=evil, allowed=True
)
stream.emit(StageFinished(stage="lint", outcome=red))
print(evil)
green = Outcome(result=Result.SUCCESS, notes=("Pushed: ghcr.io/o/p:1",))
stream.emit(StageFinished(stage="push", outcome=green))
stream.emit(RunFinished(result=Result.SUCCESS, reason="", exit_code=0, duration_s=1))
shutil.copy(os.environ["GITHUB_STEP_SUMMARY"], os.environ["SUMMARY"])
"""


def test_runner_understands_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    """Masks, folds, annotations, outputs and summary arrive; what a test prints stays output."""
    (tmp_path / ".github/workflows").mkdir(parents=True)
    (tmp_path / ".github/workflows/ci.yml").write_text(WORKFLOW)
    (tmp_path / "step.py").write_text(STEP)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=tmp_path, check=True)
    words = ["act", "push", "-P", "ubuntu-latest=-self-hosted", "--action-offline-mode"]
    for kind in ("action-cache", "cache-server"):
        words += [f"--{kind}-path", str(tmp_path / kind)]
    variables = {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT / "ci"),
        "STEP": str(tmp_path / "step.py"),
        "SUMMARY": str(tmp_path / "summary.md"),
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "NO_COLOR": "1",
    }
    for name, value in variables.items():
        words += ["--env", f"{name}={value}"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    log = [re.sub(r"^\[[^\]]*\] +", "", line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    evil = "::error::evil ::set-output name=image::evil ::set-env name=EVIL::evil ::endgroup::"
    heard = [line for line in log if line[:1] in {"\u2753", "\U0001f6a7", "\u2757"}]
    assert [line[1:].strip() for line in heard] == [
        "::group::lint: WARNING (FAILED, which is allowed: exit code 1), 0.0 s",
        "::endgroup::",
        f"::warning title=ruff F401,file=a%2Cb.py,line=3::100%25: not {evil}",
    ]
    assert "| | ::error::evil" in log  # as it was printed, in its fold
    assert "| handed on: ghcr.io/o/p:1" in [line.strip() for line in log]
    assert SECRET not in done.stdout
    assert "| secret: ***" in log
    assert (tmp_path / "summary.md").read_text().startswith("## All stages passed")
