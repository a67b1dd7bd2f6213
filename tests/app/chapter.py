"""The chapter's own tests, run in a process of their own by `test_service.py`."""

from __future__ import annotations

import os

import asyncpg
import pytest
from fastapi.testclient import TestClient

from app.main import app

client = TestClient(app)


def test_create_task() -> None:
    response = client.post("/tasks", json={"id": 1, "title": "Test Task", "completed": False})
    assert response.status_code == 200
    assert response.json()["title"] == "Test Task"


def test_create_task_empty_title() -> None:
    response = client.post("/tasks", json={"id": 2, "title": "", "completed": False})
    assert response.status_code == 400
    assert response.json()["detail"] == "Title is required"


@pytest.mark.anyio
async def test_database_integration() -> None:
    response = client.post("/tasks", json={"id": 1, "title": "DB Task", "completed": False})
    assert response.status_code == 200
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    row = await connection.fetchrow("SELECT title FROM tasks WHERE id = 1")
    await connection.close()
    assert row is not None
    assert row["title"] == "DB Task"
