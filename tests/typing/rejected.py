"""What must not type-check, each line that says so and no other."""

from __future__ import annotations

from penstock import Command, Coverage, Pipeline, Secret
from penstock.when import on_branch

pipeline = Pipeline("typed")


@pipeline.stage
def lint(python: object) -> Command:
    """A stage."""
    raise NotImplementedError


lint("python", "more")  # REJECTED
Pipeline("typed", deadline="900")  # REJECTED
pipeline.stage(needs=["lint"])  # REJECTED
pipeline.stage(needs=lint)  # REJECTED
pipeline.stage(dedline_s=5)  # REJECTED
pipeline.stage(retry_on=["registri"])  # REJECTED
pipeline.stage(when="main")  # REJECTED
pipeline.stage(secrets={"token": "value"})  # REJECTED
pipeline.stage(matrix=["3.11"])  # REJECTED
pipeline.stage(gate="yes")  # REJECTED
pipeline.service(deadline_s="5")  # REJECTED
pipeline.stage(42)  # REJECTED
Command("python:3.11", "pytest")  # REJECTED
Coverage("coverage.xml", "htmlcov")  # REJECTED
Secret.env(42)  # REJECTED
on_branch("main") & "topic"  # REJECTED
