"""The HTTP interface of tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response

from app import repository
from app.cache import Cache
from app.database import Database
from app.models import MAX_ID
from app.schemas import TaskChange, TaskIn, TaskOut, TaskPage

router = APIRouter(prefix="/tasks", tags=["tasks"])

PathId = Annotated[int, Path(ge=1, le=MAX_ID)]


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _cache(request: Request) -> Cache:
    cache: Cache = request.app.state.cache
    return cache


def _require_title(title: str | None) -> None:
    if title is not None and not title.strip():
        raise HTTPException(400, "Title is required")


@router.post("")
async def store(task: TaskIn, request: Request) -> TaskOut:
    """Store a task; one whose id exists is replaced."""
    _require_title(task.title)
    async with _database(request).session() as session:
        stored = TaskOut.model_validate(await repository.store(session, task))
    await _cache(request).forget(stored.id)
    return stored


@router.get("")
async def page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
) -> TaskPage:
    """List tasks by ascending id."""
    async with _database(request).session() as session:
        tasks, total = await repository.page(session, limit=limit, offset=offset)
    items = [TaskOut.model_validate(task) for task in tasks]
    return TaskPage(items=items, total=total, limit=limit, offset=offset)


@router.get("/{task_id}")
async def get(task_id: PathId, request: Request) -> TaskOut:
    """Return a task."""

    async def load() -> TaskOut | None:
        async with _database(request).session() as session:
            task = await repository.get(session, task_id)
        return TaskOut.model_validate(task) if task else None

    task = await _cache(request).read(task_id, load)
    if task is None:
        raise HTTPException(404, "No such task")
    return task


@router.put("/{task_id}")
async def replace(task_id: PathId, task: TaskIn, request: Request) -> TaskOut:
    """Store a task under the id in the path."""
    if task.id not in {None, task_id}:
        raise HTTPException(400, "The id in the body is not the id in the path")
    return await store(task.model_copy(update={"id": task_id}), request)


@router.patch("/{task_id}")
async def change(task_id: PathId, wanted: TaskChange, request: Request) -> TaskOut:
    """Change what is given of a task."""
    _require_title(wanted.title)
    async with _database(request).session() as session:
        task = await repository.change(session, task_id, wanted)
        changed = TaskOut.model_validate(task) if task else None
    if changed is None:
        raise HTTPException(404, "No such task")
    await _cache(request).forget(task_id)
    return changed


@router.delete("/{task_id}", status_code=204)
async def delete(task_id: PathId, request: Request) -> Response:
    """Delete a task."""
    async with _database(request).session() as session:
        found = await repository.delete(session, task_id)
    await _cache(request).forget(task_id)
    if not found:
        raise HTTPException(404, "No such task")
    return Response(status_code=204)
