"""Two packages in one repository: each is tested when it, or what both share, has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock import Command, Pipeline, Source
from penstock.when import changed

if TYPE_CHECKING:
    from dagger import Container

pipeline = Pipeline("monorepo")
source = Source(include=["alpha", "beta", "shared.txt"])


@pipeline.container
def python() -> Container:
    """Python with every package."""
    from dagger import dag

    base = dag.container().from_("python:3.11-slim").with_workdir("/src")
    return base.with_directory("/src", source.directory())


@pipeline.stage(tags=["package"], when=changed("alpha/**", "shared.txt"))
def alpha(python: Container) -> Command:
    """Check alpha"""
    return Command(python, "python -m compileall -q alpha")


@pipeline.stage(tags=["package"], when=changed("beta/**", "shared.txt"))
def beta(python: Container) -> Command:
    """Check beta"""
    return Command(python, "python -m compileall -q beta")


@pipeline.stage(needs=[alpha, beta])
def bundle(python: Container) -> Container:
    """Bundle what is there"""
    return python.with_exec(["tar", "cf", "/bundle.tar", "alpha", "beta"])


if __name__ == "__main__":
    raise SystemExit(pipeline.main())
