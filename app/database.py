"""The database: connections that fit the event loop, and the schema on first use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

CONNECT_S = 5
QUERY_S = 15  # no query of ours takes a second: one that does waits for a lost answer


class Database:
    """A database whose schema is made on first use.

    Args:
        url: With its async driver.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        # Without the lifespan each request may have an event loop of its own, which no pooled
        # connection survives: so a connection per request, until `pool` says otherwise.
        self._single = self._engine = self._connect(pooled=False)
        self._migrating = threading.Lock()
        self._is_migrated = False

    def _connect(self, *, pooled: bool) -> AsyncEngine:
        arguments = connect_arguments(self.url)
        if arguments:  # not the migration's own, which may wait long for another one's end
            arguments["command_timeout"] = QUERY_S
        if pooled:
            return create_async_engine(self.url, connect_args=arguments, pool_pre_ping=True)
        return create_async_engine(self.url, connect_args=arguments, poolclass=NullPool)

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[None]:
        """Keep connections between requests while one event loop serves them all."""
        self._engine = self._connect(pooled=True)
        try:
            yield
        finally:
            await self._engine.dispose()
            self._engine = self._single

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed at the end, rolled back by an exception."""
        await self.migrate()
        async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    async def ping(self) -> None:
        """Raise when the database does not answer."""
        with anyio.fail_after(CONNECT_S):
            async with self._engine.connect() as connection:
                await connection.execute(text("select 1"))

    async def migrate(self) -> None:
        """Bring the schema up to date, once per process."""
        if not self._is_migrated:
            await anyio.to_thread.run_sync(self._migrate)

    def _migrate(self) -> None:
        with self._migrating:
            if not self._is_migrated:
                command.upgrade(alembic_config(self.url), "head")
                asyncio.run(_introduce(self._single))
                self._is_migrated = True


async def _introduce(engine: AsyncEngine) -> None:
    """Make an engine's first connection, which two event loops cannot make at the same time."""
    async with engine.connect():
        pass


def alembic_config(url: URL) -> Config:
    """Return Alembic's configuration for one database."""
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))  # it is interpolated
    config.attributes["url"] = url
    return config


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return how to connect: to PostgreSQL by two attempts, which share the time there is."""
    if url.get_backend_name() != "postgresql":
        return {}
    return {"timeout": CONNECT_S / 2, "async_creator_fn": _connect}


async def _connect(*words: Any, **options: Any) -> Any:  # noqa: ANN401 - as asyncpg has them
    """Connect to PostgreSQL; an attempt that hangs, its packets lost, is made once more."""
    try:
        return await asyncpg.connect(*words, **options)
    except TimeoutError:
        return await asyncpg.connect(*words, **options)
