"""A library: unit tests on several Pythons, and on a database of its own in each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock import Command, Pipeline, Report, Service, Source
from penstock.matrix import cell, matching
from penstock.recipes import postgres_service

if TYPE_CHECKING:
    from dagger import Container

PYTHONS = ["3.11-slim", "3.11"]
# Whoever shares a server with another cell finds a second row.
MARKER = """
psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -qc "create table if not exists marker (cell text)"
psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -qc "insert into marker values ('$CELL')"
sleep 1
psql "$DATABASE_URL" -Atc "select string_agg(cell, ' ') from marker" | tee marker.txt
[ "$(cat marker.txt)" = "$CELL" ]
"""

pipeline = Pipeline("library")
source = Source(include=["shapes"])


@pipeline.container
def interpreter(python: str) -> Container:
    """Python of this cell, with the sources."""
    from dagger import dag

    base = dag.container().from_(f"python:{python}").with_workdir("/src")
    return base.with_directory("/src", source.directory())


@pipeline.container
def client() -> Container:
    """A container that has psql."""
    from dagger import dag

    return dag.container().from_("postgres:15-alpine").with_workdir("/tmp/work")  # noqa: S108 - inside


@pipeline.service
def postgres() -> Service:
    """An empty database."""
    return postgres_service("15-alpine", database="library")


@pipeline.stage(matrix={"python": PYTHONS})
def unit(interpreter: Container) -> Command:
    """Run the unit tests"""
    line = "python -m unittest -v shapes 2> result.txt; code=$?; cat result.txt; exit $code"
    return Command(interpreter, line, shell=True, reports=[Report("result.txt")])


@pipeline.stage(needs=[matching(unit)], matrix={"python": PYTHONS})
def database(client: Container, postgres: Service, python: str) -> Command:
    """Leave a mark in the database"""
    return Command(
        client,
        MARKER,
        shell=True,
        env={"CELL": python},
        services=[postgres],
        reports=[Report("marker.txt")],
    )


@pipeline.stage(needs=[database, cell(unit, python="3.11")])
async def publish(database: dict[str, Container]) -> list[str]:
    """Collect what the cells found"""
    return [await done.file("marker.txt").contents() for done in database.values()]


if __name__ == "__main__":
    raise SystemExit(pipeline.main())
