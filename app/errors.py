"""What clients are told when something goes wrong: never how the service is built inside."""

from __future__ import annotations

import structlog
from asyncpg import PostgresError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

log = structlog.get_logger()

AWAY = (OperationalError, InterfaceError)


async def invalid(_request: Request, error: Exception) -> JSONResponse:
    """Tell what is wrong with the input, without repeating it."""
    details = error.errors() if isinstance(error, RequestValidationError) else []
    kept = [{name: detail[name] for name in ("type", "loc", "msg")} for detail in details]
    return JSONResponse({"detail": kept}, 422)


async def database_unavailable(_request: Request, error: Exception) -> JSONResponse:
    """Tell that the database is away, and the reason to the log only."""
    if isinstance(error, DBAPIError) and not isinstance(error, AWAY):
        raise error  # a wrong query of ours is no outage
    log.error("database_unavailable", error=type(error).__name__)
    return JSONResponse({"detail": "Database unavailable"}, 503)


def handle(app: FastAPI) -> None:
    """Register every handler."""
    app.add_exception_handler(RequestValidationError, invalid)
    for kind in (DBAPIError, PostgresError, OSError):
        app.add_exception_handler(kind, database_unavailable)
