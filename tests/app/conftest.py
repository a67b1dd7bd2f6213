"""Databases for the tests: SQLite in a temporary folder, and real PostgreSQL and Redis servers.

In the pipeline the servers are given by `DATABASE_URL` and `REDIS_URL`. On the host, where they are
not, the pipeline's own definitions are started in the engine and tunnelled here.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import anyio
import asyncpg
import pytest
from alembic import command
from fastapi.testclient import TestClient
from redis.asyncio import Redis

from app.config import Settings
from app.database import alembic_config
from app.main import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

_numbers = count()


@dataclass(frozen=True)
class Servers:
    """Where the servers listen."""

    database_url: str
    redis_url: str


@pytest.fixture(scope="session")
async def servers(anyio_backend: str) -> AsyncIterator[Servers]:
    """PostgreSQL and Redis: those of the environment, or of the engine."""
    assert anyio_backend == "asyncio"
    if "DATABASE_URL" in os.environ:
        yield Servers(os.environ["DATABASE_URL"], os.environ["REDIS_URL"])
        return
    import dagger  # noqa: PLC0415 - inside the pipeline's container neither is there

    from penstock.recipes import postgres_service, redis_service  # noqa: PLC0415
    from penstock.services import as_dagger  # noqa: PLC0415

    urls: list[str] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dagger.connection())
        for service in (
            postgres_service("15-alpine", database="test_db"),
            redis_service("7-alpine"),
        ):
            running = as_dagger(service)
            stack.push_async_callback(running.stop, kill=True)
            await running.start()
            tunnel = await dagger.dag.host().tunnel(running).start()
            host, _, port = (await tunnel.endpoint()).rpartition(":")
            (url,) = service.variables.values()
            urls.append(url.replace(f"{{host}}:{service.port}", f"{host}:{port}"))
        yield Servers(*urls)


@pytest.fixture(scope="session")
async def template(servers: Servers) -> AsyncIterator[str]:
    """A migrated database to copy: a copy takes milliseconds, a migration a second."""
    name = f"template_{os.getpid()}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"create database {name}")
    settings = Settings(database_url=_with_database(servers.database_url, name))
    await anyio.to_thread.run_sync(command.upgrade, alembic_config(settings.database), "head")
    yield name
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
async def postgres_url(servers: Servers, template: str) -> AsyncIterator[str]:
    """A database of the test's own, with the schema in it."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"create database {name} template {template}")
    yield _with_database(servers.database_url, name)
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
async def redis_url(servers: Servers) -> str:
    """A Redis that holds nothing."""
    async with Redis.from_url(servers.redis_url) as client:
        await client.flushdb()
    return servers.redis_url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Either database, new for each test."""
    if request.param == "sqlite":
        return Settings(database_url="", redis_url="", sqlite_path=tmp_path / "tasks.db")
    return Settings(database_url=request.getfixturevalue("postgres_url"), redis_url="")


@pytest.fixture(params=["per request", "with lifespan"])
def client(request: pytest.FixtureRequest, settings: Settings) -> Iterator[TestClient]:
    """A client without the lifespan (an event loop per request), and one with it."""
    client = TestClient(create_app(settings))
    if request.param == "per request":
        yield client
    else:
        with client:
            yield client


def _with_database(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


@pytest.fixture
def postgres_client(postgres_url: str) -> Iterator[TestClient]:
    """A client of the service on PostgreSQL, with its lifespan."""
    with TestClient(create_app(Settings(database_url=postgres_url, redis_url=""))) as client:
        yield client
