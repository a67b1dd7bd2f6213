"""Three pipelines of other shapes than this repository's own, on the real engine."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine.conftest import Project, settled

if TYPE_CHECKING:
    from tests.engine.conftest import Run

pytestmark = pytest.mark.engine

PIPELINES = Path(__file__).parents[1] / "pipelines"


def copy_of(name: str, project: Project) -> Project:
    """Make the project one of the example pipelines."""
    shutil.copytree(PIPELINES / name, project.folder, dirs_exist_ok=True)
    (project.folder / "pyproject.toml").touch()
    return project


def results(run: Run) -> dict[str, str]:
    return {stage["name"]: stage["result"] for stage in run.record["stages"]}


def git(folder: Path, *words: str) -> None:
    own = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", str(folder), *own, *words], check=True, capture_output=True)


def test_library_gives_each_cell_a_database_of_its_own(project: Project) -> None:
    """Every cell finds only its own row, and keeps its reports under its own name."""
    run = copy_of("library", project).run()
    assert run.code == 0, run.out
    cells = ["python=3.11-slim", "python=3.11"]
    kept = project.folder / "reports"
    for cell in cells:
        assert (kept / f"database[{cell}]/marker.txt").read_text().strip() == cell[7:]
        assert "OK" in (kept / f"unit[{cell}]/result.txt").read_text()
    assert {*results(run)} == {f"{s}[{c}]" for s in ("unit", "database") for c in cells} | {
        "publish"
    }
    again = project.run("--only", "database[python=3.11]")
    assert set(results(again)) == {"unit[python=3.11]", "database[python=3.11]"}
    assert again.stage("database[python=3.11]")["cached"] is True


def test_monorepo_runs_what_changed(project: Project) -> None:
    """The package that did not change is skipped, and what needs both still runs."""
    folder = copy_of("monorepo", project).folder
    (folder / "shared.txt").write_text("both\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "base")
    git(folder, "checkout", "-q", "-b", "topic")
    (folder / "alpha/two.py").write_text("TWO = 2\n")
    run = project.run()
    assert results(run) == {"alpha": "success", "beta": "skip", "bundle": "success"}
    assert "Check beta: SKIPPED (nothing changed in beta/** or shared.txt)" in run.out
    (folder / "shared.txt").write_text("changed\n")
    assert results(project.run("-t", "package")) == {"alpha": "success", "beta": "success"}


def test_deployments_of_one_cluster_do_not_overlap(project: Project) -> None:
    """The lock keeps regions apart; an allowed failure warns; the clean-up runs after both."""
    copy_of("deploy", project)
    run = project.run(DEPLOY_TOKEN="a-secret-token", SALT=project.salt)
    assert run.code == 0, run.out
    assert results(run) == {
        "approve": "success",
        "rollout[region=eu]": "success",
        "rollout[region=us]": "success",
        "announce": "failure",
        "clean": "success",
        "celebrate": "skip",
    }
    assert run.stage("announce")["allowed"] is True
    assert run.record["warnings"] == ["announce"]
    assert "Celebrate: SKIPPED (not with CELEBRATE set)" in run.out
    logs = [project.folder / f"reports/logs/rollout[region={r}].txt" for r in ("eu", "us")]
    (a, b), (c, d) = [list(map(int, re.findall(r"\d{19}", log.read_text()))) for log in logs]
    assert b < c or d < a


@pytest.mark.fault(21)
def test_deployment_that_fails_is_tried_again_by_its_exit_code_and_cleaned_up(
    project: Project,
) -> None:
    """75 is tried again and both attempts are kept; the clean-up runs, the failure leads."""
    copy_of("deploy", project)
    words = {"DEPLOY_TOKEN": "a-secret-token", "SALT": project.salt, "TAKES": "0"}
    run = project.run("-j", "1", ENDS="75", **words)
    assert run.code == 1
    assert run.record["root"] == "rollout[region=eu]"
    tried = run.stage("rollout[region=eu]")
    assert [attempt["exit_code"] for attempt in tried["attempts"]] == [75]
    assert {a["path"] for a in tried["artifacts"]} == {
        "logs/rollout[region=eu].txt",
        "logs/rollout[region=eu].attempt-1.txt",
    }
    logs = [(project.folder / "reports" / a["path"]).read_text() for a in tried["artifacts"]]
    assert logs[0] != logs[1]
    assert run.stage("clean")["result"] == "success"
    assert run.stage("announce")["reason"] == "because rollout[region=eu] failed"
    again = project.run("--rerun-failed", "--list", **words)
    assert "celebrate" not in again.out
    assert "rollout[region=eu]" in again.out


def test_interrupted_deployment_is_cleaned_up(project: Project) -> None:
    """Ctrl-C cancels the deployment, runs the clean-up, and exits 130 within 7.5 s."""
    copy_of("deploy", project)
    words = {"DEPLOY_TOKEN": "a-secret-token", "SALT": project.salt, "TAKES": "64"}
    run = project.interrupt(
        signal.SIGINT, lambda events: events.count("stage_started") > 1, **words
    )
    assert run.code == 130
    assert run.took_s < 7.5
    assert run.stage("rollout[region=eu]")["result"] == "cancellation"
    assert run.stage("clean")["result"] == "success"
    assert settled("sleep 64")


def test_deployment_needs_its_token_before_anything_starts(project: Project) -> None:
    """Exit 2, the stage's place, and the variable to set."""
    run = copy_of("deploy", project).run()
    assert run.code == 2
    assert re.search(r"pipeline\.py:\d+: stage 'rollout' takes the secret 'token'", run.out)
    assert "set the environment variable DEPLOY_TOKEN" in run.out


def test_skipped_gate_holds_everything_back(project: Project) -> None:
    """`--skip` of a gate skips what is behind it; nothing required ran, so exit 5."""
    run = copy_of("deploy", project).run("--skip", "approve", DEPLOY_TOKEN="a-secret-token")
    assert run.code == 5
    assert run.stage("rollout[region=us]")["reason"] == "because approve was skipped"
