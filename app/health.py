"""Is the process alive, and can it serve?"""

from __future__ import annotations

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

log = structlog.get_logger()
router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """Answer: the process is alive."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(request: Request) -> JSONResponse:
    """Ask the database and, if there is one, Redis; 503 names the culprit."""
    checks = {"database": request.app.state.database.ping}
    if request.app.state.cache.is_configured:
        checks["redis"] = request.app.state.cache.ping
    found: dict[str, str] = {}
    for name, ping in checks.items():
        try:
            await ping()
            found[name] = "ok"
        except Exception as error:  # noqa: BLE001 - whatever a driver raises means the same
            log.warning("not_ready", culprit=name, error=type(error).__name__)
            found[name] = "unreachable"
    is_ready = all(state == "ok" for state in found.values())
    status = "ready" if is_ready else "not ready"
    return JSONResponse({"status": status, "checks": found}, 200 if is_ready else 503)
