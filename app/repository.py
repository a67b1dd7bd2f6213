"""Every query on tasks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Insert,
    Integer,
    ScalarSelect,
    cast,
    exists,
    func,
    literal_column,
    select,
    text,
    union,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.models import MAX_ID, Task
from app.schemas import TaskChange, TaskIn


def _number(column: str, source: str) -> ScalarSelect[int]:
    """Return the query of a number that the database keeps for itself."""
    return select(literal_column(column, Integer)).select_from(text(source)).scalar_subquery()


ATTEMPTS = 10
# The last id that SQLite gave, in the header of its file: written with the transaction.
GIVEN_BY_SQLITE = _number("user_version", "pragma_user_version")
GIVEN_BY_POSTGRESQL = _number("last_value", "tasks_id_seq")
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
    statement = _insert_statement(session).values(**values)
    if session.get_bind().dialect.name == "sqlite":
        # Left to itself, SQLite gives the id of a deleted task again, and none past the largest.
        statement = statement.values(id=_first_free_after(GIVEN_BY_SQLITE))
        task = await _returned(session, statement)
        await session.execute(text(f"pragma user_version = {_in_range(task.id)}"))
        return task
    for _ in range(ATTEMPTS):
        try:
            async with session.begin_nested():
                return await _returned(session, statement)
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
    free = await session.scalar(select(_first_free_after(GIVEN_BY_POSTGRESQL)))
    await session.execute(FORWARD, {"id": _in_range(free or 1) - 1})


def _first_free_after(given: ScalarSelect[int]) -> ScalarSelect[int]:
    """Return the query of the least id past the last one given that no task has."""
    floor = cast(given, BigInteger)
    taken = aliased(Task)
    before = union(select(floor.label("id")), select(taken.id).where(taken.id > floor)).subquery()
    following = exists().where(Task.id == before.c.id + 1)
    return select(func.min(before.c.id) + 1).where(~following).scalar_subquery()


def _in_range(task_id: int) -> int:
    if task_id > MAX_ID:
        message = "every id is taken"
        raise OverflowError(message)
    return task_id


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
