"""A deployment: regions that share a lock, and a clean-up that runs whatever happens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from penstock import Command, Pipeline, Secret
from penstock.when import env

if TYPE_CHECKING:
    import dagger
    from dagger import Container

pipeline = Pipeline("deploy", deadline_s=300, teardown_s=30)
# What a test wants: how long a deployment takes, and what it ends with.
LINE = f"date +%s%N; sleep {os.environ.get('TAKES', '1')}; date +%s%N; exit {os.environ.get('ENDS', '0')}"


@pipeline.container
def tools() -> Container:
    """What deploys."""
    from dagger import dag

    salt = os.environ.get("SALT", "")
    return dag.container().from_("python:3.11-slim").with_env_variable("SALT", salt)


@pipeline.stage(gate=True)
def approve(tools: Container) -> Command:
    """Check the approval"""
    return Command(tools, "true")


@pipeline.stage(
    needs=[approve],
    matrix={"region": ["eu", "us"]},
    uses=["cluster"],
    secrets={"token": Secret.env("DEPLOY_TOKEN")},
    retries=1,
    retry_on=[75],
)
def rollout(tools: Container, region: str, token: dagger.Secret) -> Command:
    """Roll out"""
    container = tools.with_secret_variable("TOKEN", token).with_env_variable("REGION", region)
    return Command(container, LINE, shell=True)


@pipeline.stage(needs=[rollout], allow_failure=True)
def announce(tools: Container) -> Command:
    """Announce it"""
    return Command(tools, "exit 1", shell=True)


@pipeline.stage(needs=[rollout], always=True, uses=["cluster"])
def clean(tools: Container) -> Command:
    """Clean up"""
    return Command(tools, "echo cleaned")


@pipeline.stage(needs=[announce], when=env("CELEBRATE"))
def celebrate(tools: Container) -> Command:
    """Celebrate"""
    return Command(tools, "true")


if __name__ == "__main__":
    raise SystemExit(pipeline.main())
