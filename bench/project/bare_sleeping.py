"""The yardstick for a stage that lasts, on the Dagger SDK alone."""

import sys

import anyio
import dagger
from dagger import dag


async def main() -> None:
    """Sleep for a minute."""
    async with dagger.connection(dagger.Config(log_output=sys.stderr)):
        python = dag.container().from_("python:3.11-slim")
        await python.with_exec(["sh", "-c", "echo asleep; sleep 60"]).sync()


anyio.run(main)
