"""Databases for the tests: SQLite in a temporary folder, and real PostgreSQL and Redis servers.

In the pipeline the servers are given by `DATABASE_URL` and `REDIS_URL`. On the host, where they are
not, the pipeline's own definitions are started in the engine and tunnelled here.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Spare an unused Hypothesis its import, which takes longer than many tests together."""
    plugins = session.config.pluginmanager
    if "hypothesis" not in sys.modules and plugins.has_plugin("hypothesispytest"):
        plugins.unregister(name="hypothesispytest")


@dataclass(frozen=True)
class Servers:
    """Where the servers listen."""

    database_url: str
    redis_url: str


@dataclass(frozen=True)
class Databases:
    """Makes databases on the server over one connection: tunnels dislike hundreds of them."""

    server_url: str
    admin: asyncpg.Connection[asyncpg.Record]

    @asynccontextmanager
    async def new(self, *, template: str = "template1") -> AsyncIterator[str]:
        """Yield the URL of a database that is dropped afterwards; by default an empty one."""
        name = f"test_{uuid.uuid4().hex}"
        await self.admin.execute(f"create database {name} template {template}")
        try:
            yield f"{self.server_url.rpartition('/')[0]}/{name}"
        finally:
            await self.admin.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
async def servers(anyio_backend: str) -> AsyncIterator[Servers]:
    """PostgreSQL and Redis: those of the environment, the engine's for what is not in there."""
    assert anyio_backend == "asyncio"
    names = ("DATABASE_URL", "REDIS_URL")
    urls = {name: os.environ[name] for name in names if os.environ.get(name)}
    async with AsyncExitStack() as stack:
        if missing := [name for name in names if name not in urls]:
            urls |= await _start(stack, missing)
        yield Servers(urls["DATABASE_URL"], urls["REDIS_URL"])


async def _start(stack: AsyncExitStack, missing: list[str]) -> dict[str, str]:
    """Start what is missing in the engine, side by side, and return the URLs of the tunnels."""
    import dagger  # noqa: PLC0415 - inside the pipeline's container the servers are given

    from penstock.recipes import postgres_service, redis_service  # noqa: PLC0415 - nor is it there
    from penstock.services import as_dagger  # noqa: PLC0415 - the same

    await stack.enter_async_context(dagger.connection())
    urls: dict[str, str] = {}

    async def start(name: str) -> None:
        if name == "DATABASE_URL":
            service = postgres_service("15-alpine", database="test_db")
        else:
            service = redis_service("7-alpine")
        running = as_dagger(service)
        stack.push_async_callback(running.stop, kill=True)
        await running.start()
        tunnel = await dagger.dag.host().tunnel(running).start()
        host, _, port = (await tunnel.endpoint()).rpartition(":")
        urls[name] = service.variables[name].replace(f"{{host}}:{service.port}", f"{host}:{port}")

    async with anyio.create_task_group() as tasks:
        for name in missing:
            tasks.start_soon(start, name)
    return urls


@pytest.fixture(scope="session")
async def databases(servers: Servers) -> AsyncIterator[Databases]:
    """A maker of databases."""
    admin = await asyncpg.connect(servers.database_url)
    yield Databases(servers.database_url, admin)
    await admin.close()


@pytest.fixture(scope="session")
async def template(databases: Databases) -> AsyncIterator[str]:
    """A migrated database to copy: a copy takes milliseconds, a migration far longer."""
    async with databases.new() as url:
        settings = Settings(database_url=url)
        await anyio.to_thread.run_sync(command.upgrade, alembic_config(settings.database), "head")
        yield url.rpartition("/")[2]


@pytest.fixture
async def postgres_url(databases: Databases, template: str) -> AsyncIterator[str]:
    """A database of the test's own, with the schema in it."""
    async with databases.new(template=template) as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("template") / "tasks.db"
    settings = Settings(database_url="", sqlite_path=path)
    command.upgrade(alembic_config(settings.database), "head")
    return path


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
        template = request.getfixturevalue("sqlite_template")
        path = shutil.copyfile(template, tmp_path / "tasks.db")
        return Settings(database_url="", redis_url="", sqlite_path=path)
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


@pytest.fixture
def client_without_database() -> TestClient:
    """A client of a service that answers 503 as soon as it needs its database."""
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/nowhere", redis_url="")
    return TestClient(create_app(settings))
