"""Passwords in URLs, wherever a run meets one: nothing that it writes has them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.penstock.collector import Collector, collecting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.conftest import Project, Run

pytestmark = pytest.mark.engine

PASSWORD, OTHER = "pass-word-0451", "another-word-0452"
BODY = """
@pipeline.stage(retries=0)
def pull():
    return dag.container().from_("https://user:{password}@127.0.0.1:9/x:1")

@pipeline.stage(retries=0)
def clone():
    return dag.container().with_directory("/x", dag.git("https://user:{password}@127.0.0.1:9/x.git").branch("main").tree())

@pipeline.stage
def raised():
    raise RuntimeError("no answer from https://user:{password}@127.0.0.1:9/x")

@pipeline.stage
def printed(python):
    return Command(python, "echo fatal: https://user:{password}@127.0.0.1:9/x; exit 1", shell=True)

@pipeline.stage(retries=0)
async def push(registry):
    return await registry.push(dag.container().with_new_file("/x", "x"), tags=["one"])
"""
PUSHING = {
    "CI": "true",
    "GITHUB_ACTIONS": "true",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_REF_NAME": "main",
    "IMAGE_NAME": "team/app",
    "REGISTRY": f"user:{OTHER}@127.0.0.1:9",
    "REGISTRY_TOKEN": "token-of-the-registry",
}


def leaks(run: Run, folder: Path) -> list[str]:
    """Return where a password stands in what a run wrote."""
    files = [p for name in ("reports", ".penstock") for p in (folder / name).rglob("*")]
    texts = {str(p): p.read_text(errors="replace") for p in files if p.is_file()}
    lines = [line for line in run.out.splitlines() if not line.startswith("::add-mask::")]
    texts["the terminal"] = "\n".join(lines)
    return [where for where, text in texts.items() if PASSWORD in text or OTHER in text]


@pytest.mark.fault(30)
def test_no_output_of_a_run_has_a_password_that_stood_in_a_url(
    project: Project, measured: Callable[[str], None]
) -> None:
    """Of an image, a git remote, a registry, an exception or in what a command printed."""
    project.write(BODY.replace("{password}", PASSWORD))
    remote = f"https://user:{PASSWORD}@127.0.0.1:9/owner/name.git"
    for words in (["init", "--quiet"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", "-C", str(project.folder), *words], check=True)
    summary = project.folder / "reports-summary.md"
    with collecting(Collector()) as collector:
        telemetry = {
            "DO_NOT_TRACK": "",
            "OTEL_SDK_DISABLED": "",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces",
        }
        env = PUSHING | telemetry | {"GITHUB_STEP_SUMMARY": str(summary)}
        run = project.run("--keep-going", "-v", **env)
    assert run.code == 4, run.out
    reasons = {name: run.stage(name)["reason"] for name in ("pull", "clone", "raised", "push")}
    assert all("***" in reason for reason in reasons.values()), reasons
    assert "user:***@127.0.0.1:9" in run.out
    assert leaks(run, project.folder) == []
    assert PASSWORD not in summary.read_text()
    ours = [r for r in collector.traces if "penstock" in str(r.resource_spans[0].resource)]
    assert ours, run.out
    assert PASSWORD not in str(ours)
    measured("image, git, registry, exception, printed line: `user:***@host` in every output")


@pytest.mark.fault(30)
def test_engine_that_cannot_be_reached_is_named_without_its_password(
    project: Project, measured: Callable[[str], None]
) -> None:
    """On the terminal and in the record."""
    project.write(BODY.replace("{password}", "of-no-one"))
    run = project.run("--engine", f"tcp://user:{PASSWORD}@127.0.0.1:9")
    assert run.code == 4
    assert "tcp://user:***@127.0.0.1:9" in run.out
    assert leaks(run, project.folder) == []
    measured("`--engine` with a password that does not answer: exit 4, masked")
