"""The application: `uvicorn app.main:app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import errors, health, log, routes
from app.cache import Cache
from app.config import Settings
from app.database import Database


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep connections while one event loop serves every request."""
    async with app.state.database.pool(), app.state.cache.pool():
        yield


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return an application; by default with the settings of the environment."""
    settings = settings or Settings()
    log.configure(settings.log_level)
    app = FastAPI(title="Tasks", lifespan=lifespan)
    app.state.database = Database(settings.database)
    app.state.cache = Cache(settings.redis_url)
    app.add_middleware(log.RequestLog)
    errors.handle(app)
    app.include_router(routes.router)
    app.include_router(health.router)
    return app


app = create_app()
