"""Every query on tasks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Insert, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import MAX_ID, Task
from app.schemas import TaskChange, TaskIn

ATTEMPTS = 10
FIRST_FREE = text(
    "select min(ids.id) + 1 from (select cast(:floor as bigint) as id"
    " union select id from tasks where id > cast(:floor as bigint))"
    " as ids where not exists (select 1 from tasks where tasks.id = ids.id + 1)"
)

FORWARD = text(
    "select setval('tasks_id_seq', greatest(cast(:id as bigint), last_value)) from tasks_id_seq"
)


async def store(session: AsyncSession, task: TaskIn) -> Task:
    """Insert a task; one whose id the client chose replaces the task that has it."""
    values = task.model_dump(exclude={"id"} if task.id is None else None)
    if task.id is None:
        return await _insert(session, values)
    statement = _insert_statement(session).values(**values)
    statement = statement.on_conflict_do_update(index_elements=[Task.id], set_=values)
    return await _returned(session, statement)


async def _insert(session: AsyncSession, values: dict[str, Any]) -> Task:
    """Insert under an id that the database gives, past all that clients chose."""
    for _ in range(ATTEMPTS):
        if session.get_bind().dialect.name == "sqlite":
            # SQLite would go on behind the largest id, out of range once a client chose the last.
            values |= {"id": await _first_free(session, 0)}
        try:
            async with session.begin_nested():
                return await _returned(session, _insert_statement(session).values(**values))
        except IntegrityError:
            await _skip_chosen_ids(session)
    message = f"no free id after {ATTEMPTS} attempts"
    raise RuntimeError(message)


async def _returned(session: AsyncSession, statement: Insert) -> Task:
    # The identity map may hold the row as it was before it was replaced.
    row = await session.execute(
        statement.returning(Task), execution_options={"populate_existing": True}
    )
    task: Task = row.scalar_one()
    return task


async def _skip_chosen_ids(session: AsyncSession) -> None:
    """Move PostgreSQL's sequence behind the run of chosen ids that it has reached."""
    if session.get_bind().dialect.name == "postgresql":
        reached = await session.scalar(text("select last_value from tasks_id_seq"))
        free = await _first_free(session, int(reached or 0))
        await session.execute(FORWARD, {"id": free - 1})


async def _first_free(session: AsyncSession, floor: int) -> int:
    free = int(await session.scalar(FIRST_FREE, {"floor": floor}) or 1)
    if free > MAX_ID:
        message = "every id is taken"
        raise OverflowError(message)
    return free


def _insert_statement(session: AsyncSession) -> Any:  # noqa: ANN401 - either dialect's Insert
    dialects = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
    statement: Insert = dialects[session.get_bind().dialect.name](Task)
    return statement


async def get(session: AsyncSession, task_id: int) -> Task | None:
    """Return a task, or nothing."""
    return await session.get(Task, task_id)


async def page(session: AsyncSession, *, limit: int, offset: int) -> tuple[list[Task], int]:
    """Return tasks by ascending id, and how many there are in all."""
    rows = await session.scalars(select(Task).order_by(Task.id).limit(limit).offset(offset))
    total = await session.scalar(select(func.count()).select_from(Task))
    return list(rows), total or 0


async def change(session: AsyncSession, task_id: int, wanted: TaskChange) -> Task | None:
    """Change what is given of a task; return it, or nothing when there is none."""
    task = await session.get(Task, task_id, with_for_update=True)
    if task is not None:
        for name, value in wanted.model_dump(exclude_none=True).items():
            setattr(task, name, value)
        await session.flush()
    return task


async def delete(session: AsyncSession, task_id: int) -> bool:
    """Delete a task; return whether it was there."""
    task = await session.get(Task, task_id)
    if task is not None:
        await session.delete(task)
    return task is not None
