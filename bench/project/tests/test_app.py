"""The list of tasks, asked over HTTP."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import app


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """The application, with its pool."""
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("number", range(20))
def test_task_is_found_again(client: TestClient, number: int) -> None:
    added = client.post("/tasks", json={"name": f"task {number}"})
    assert added.status_code == 201
    assert client.get(f"/tasks/{added.json()['id']}").json()["name"] == f"task {number}"


def test_nameless_task_is_refused(client: TestClient) -> None:
    assert client.post("/tasks", json={"name": ""}).status_code == 400


def test_unknown_task_is_not_found(client: TestClient) -> None:
    assert client.get("/tasks/100000").status_code == 404
