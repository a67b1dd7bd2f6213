"""Stages that last, to see how soon they end: for a signal, a red one beside them, a lost engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from penstock import Command, Pipeline

if TYPE_CHECKING:
    from dagger import Container

pipeline = Pipeline("sleeping")
AGAIN = os.urandom(8).hex()  # nothing comes from the engine's cache


@pipeline.container
def python() -> Container:
    """Python, and nothing else."""
    from dagger import dag

    return dag.container().from_("python:3.11-slim")


@pipeline.stage
def long(python: Container) -> Command:
    """Sleep for a minute"""
    return Command(python, "echo asleep; sleep 60", shell=True)


@pipeline.stage
def short(python: Container) -> Command:
    """Sleep for ten seconds"""
    return Command(python, "date +%s%N; sleep 10", shell=True, env={"AGAIN": AGAIN})


@pipeline.stage
def red(python: Container) -> Command:
    """Fail after two seconds"""
    return Command(python, "sleep 2; exit 1", shell=True)


@pipeline.stage
def gate(python: Container) -> Command:
    """Sleep for four seconds in front of the image"""
    return Command(python, "sleep 4", env={"AGAIN": AGAIN})


@pipeline.stage(needs=[gate])
def image(python: Container) -> Container:
    """Make an image for four seconds"""
    return python.with_env_variable("AGAIN", AGAIN).with_exec(["sleep", "4"])


if __name__ == "__main__":
    raise SystemExit(pipeline.main())
