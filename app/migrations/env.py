"""Alembic's entry: from the command line with `DATABASE_URL`, or from the service with a URL."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.config import Settings
from app.database import connect_arguments
from app.models import Base

LOCK = 7_336_212_001  # any constant: workers that start together migrate one after the other


def migrate_offline(url: URL) -> None:
    """Print the SQL instead of executing it."""
    context.configure(
        url=url.set(drivername=url.get_backend_name()),
        target_metadata=Base.metadata,
        literal_binds=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def migrate_connected(connection: Connection) -> None:
    """Migrate over an open connection."""
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()


async def migrate_online(url: URL) -> None:
    """Connect and migrate."""
    engine = create_async_engine(url, connect_args=connect_arguments(url), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate_connected)
    await engine.dispose()


target: URL = context.config.attributes.get("url") or Settings().database
if context.is_offline_mode():
    migrate_offline(target)
else:
    asyncio.run(migrate_online(target))
