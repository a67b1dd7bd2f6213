"""PostgreSQL, tuned for tests: initialised in a cached layer, started without fsync."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.model import Command, Health, Service

if TYPE_CHECKING:
    import dagger

# Inside no volume of the image: a volume's content would be left out of the cached layer.
DATA = "/var/lib/postgresql/prepared"
UNSAFE_AND_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "jit=off")


def postgres_service(
    tag: str,
    *,
    database: str,
    schema: Command | None = None,
    user: str = "postgres",
    password: str = "postgres",  # noqa: S107 - a throw-away server
) -> Service:
    """Return a PostgreSQL service; commands that list it get `DATABASE_URL`.

    Each run starts from the same prepared data: an empty database with the schema applied.

    Args:
        tag: Of the `postgres` image.
        database: Name of the database.
        schema: Prints the schema as SQL; executed again only when its container changed.
        user: Name of the superuser.
        password: Of the superuser.
    """
    from dagger import dag

    container = (
        dag.container()
        .from_(f"postgres:{tag}")
        .with_env_variable("POSTGRES_USER", user)
        .with_env_variable("POSTGRES_PASSWORD", password)
        .with_env_variable("POSTGRES_DB", database)
        .with_env_variable("PGDATA", DATA)
    )
    if schema:
        container = container.with_file(
            "/docker-entrypoint-initdb.d/schema.sql", _printed(schema), permissions=0o644
        )
    # The entry point initialises the data and then only prints a setting.
    prepared = container.with_exec(["docker-entrypoint.sh", "postgres", "-C", "port"])
    settings = [word for setting in UNSAFE_AND_FAST for word in ("-c", setting)]
    return Service(
        container=prepared,
        port=5432,
        args=["docker-entrypoint.sh", "postgres", *settings],
        health=Health(command=["pg_isready", "--host=127.0.0.1", f"--username={user}"]),
        variables={"DATABASE_URL": f"postgresql://{user}:{password}@{{host}}:5432/{database}"},
        prepares="Create database schema" if schema else "",
    )


def _printed(command: Command) -> dagger.File:
    container = command.container
    for name, value in command.env.items():
        container = container.with_env_variable(name, value)
    return container.with_exec(command.argv, redirect_stdout="/tmp/printed").file("/tmp/printed")  # noqa: S108 - inside the container
