"""A list of tasks, kept in PostgreSQL."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

TABLE = "create table if not exists task (id serial primary key, name text not null, done bool)"


class Task(BaseModel):
    """What has to be done."""

    name: str
    done: bool = False


@asynccontextmanager
async def pooled(app: FastAPI) -> AsyncIterator[None]:
    """Hold connections as long as the application lives."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool:
        await pool.execute(TABLE)
        app.state.pool = pool
        yield


app = FastAPI(lifespan=pooled)


@app.post("/tasks", status_code=201)
async def add(task: Task) -> dict[str, object]:
    """Add a task that has a name."""
    if not task.name:
        raise HTTPException(400, "a task wants a name")
    query = "insert into task (name, done) values ($1, $2) returning *"
    return dict(await app.state.pool.fetchrow(query, task.name, task.done))


@app.get("/tasks/{number}")
async def read(number: int) -> dict[str, object]:
    """Return a task."""
    found = await app.state.pool.fetchrow("select * from task where id = $1", number)
    if found is None:
        raise HTTPException(404, "no such task")
    return dict(found)
