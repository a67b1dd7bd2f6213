from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from app.repository import ATTEMPTS

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

LAST = 2**31 - 1


def test_stored_task_is_returned_and_found(client: TestClient) -> None:
    """What is stored comes back, at once and later."""
    task = {"id": 1, "title": "Write tests", "completed": False}
    stored = client.post("/tasks", json=task)
    assert (stored.status_code, stored.json()) == (200, task)
    assert client.get("/tasks/1").json() == task


def test_existing_id_is_replaced(client: TestClient) -> None:
    """Ids chosen by the client make the call repeatable."""
    for title in ("one", "two", "two"):
        answer = client.post("/tasks", json={"id": 7, "title": title, "completed": True})
        assert answer.status_code == 200
    assert client.get("/tasks/7").json() == {"id": 7, "title": "two", "completed": True}
    assert client.get("/tasks").json()["total"] == 1


def test_given_ids_never_collide_with_chosen_ones(client: TestClient) -> None:
    """The database's own ids step over all that clients took, however long the run."""
    chosen = [1, 2, 3, 4, 6, *range(8, 9 + ATTEMPTS), LAST]
    for task_id in chosen:
        assert client.post("/tasks", json={"id": task_id, "title": "chosen"}).status_code == 200
    given = [client.post("/tasks", json={"title": "given"}).json()["id"] for _ in range(4)]
    assert len({*given, *chosen}) == len(given) + len(chosen)
    assert client.get("/tasks?limit=100").json()["total"] == len(chosen) + 4


def test_last_id_chosen_does_not_exhaust_the_rest(client: TestClient) -> None:
    """A client that takes the largest id leaves all others to give."""
    client.post("/tasks", json={"id": LAST, "title": "last"})
    assert client.post("/tasks", json={"title": "given"}).json()["id"] < LAST


def test_deleted_id_is_not_given_again(client: TestClient) -> None:
    """Who remembers an id never meets another task under it, whichever database serves."""
    given = [client.post("/tasks", json={"title": "given"}).json()["id"] for _ in range(3)]
    for task_id in given[1:]:
        client.delete(f"/tasks/{task_id}")
    client.post("/tasks", json={"id": 5, "title": "chosen"})
    given += [client.post("/tasks", json={"title": "given"}).json()["id"] for _ in range(2)]
    assert given == [1, 2, 3, 4, 6]


@pytest.mark.parametrize("title", ["", " ", "\t\n"])
def test_title_is_required(client_without_database: TestClient, title: str) -> None:
    """An empty or blank title is the client's mistake, in words."""
    answer = client_without_database.post("/tasks", json={"title": title})
    assert (answer.status_code, answer.json()) == (400, {"detail": "Title is required"})


@pytest.mark.parametrize(
    "body",
    [
        '{"title": 1}',
        '{"id": "1", "title": "x"}',
        '{"id": true, "title": "x"}',
        '{"id": 0, "title": "x"}',
        '{"id": 2147483648, "title": "x"}',
        '{"title": "x", "completed": "yes"}',
        '{"title": "a\\u0000b"}',
        '{"title": "\\ud800"}',
        "{}",
        "[]",
        "{",
        "",
    ],
)
def test_wrong_types_are_refused_without_an_echo(
    client_without_database: TestClient, body: str
) -> None:
    """Every kind of wrong input is 422, and the answer does not repeat it."""
    headers = {"content-type": "application/json"}
    answer = client_without_database.post("/tasks", content=body, headers=headers)
    assert answer.status_code == 422
    assert all(set(detail) == {"type", "loc", "msg"} for detail in answer.json()["detail"])


@pytest.mark.parametrize("path", ["/tasks/0", "/tasks/-1", f"/tasks/{LAST + 1}", "/tasks/x"])
def test_ids_out_of_range_are_refused(client_without_database: TestClient, path: str) -> None:
    """No id reaches the database that it could not hold."""
    assert client_without_database.get(path).status_code == 422


def test_absent_task_is_404(client: TestClient) -> None:
    """Nothing there to read, change or delete."""
    bodies = {"get": None, "patch": {"completed": True}, "delete": None}
    answers = [client.request(method, "/tasks/5", json=body) for method, body in bodies.items()]
    assert [answer.status_code for answer in answers] == [404] * 3


def test_pages_are_stable_and_complete(client: TestClient) -> None:
    """Page by page every task is seen once, by ascending id."""
    for task_id in (3, 1, 2, 5, 4):
        client.post("/tasks", json={"id": task_id, "title": f"t{task_id}"})
    pages = [client.get(f"/tasks?limit=2&offset={offset}").json() for offset in (0, 2, 4)]
    assert [task["id"] for page in pages for task in page["items"]] == [1, 2, 3, 4, 5]
    assert {page["total"] for page in pages} == {5}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "offset=-1", "limit=x"])
def test_page_bounds_are_checked(client_without_database: TestClient, query: str) -> None:
    """Nobody asks for a million rows."""
    assert client_without_database.get(f"/tasks?{query}").status_code == 422


def test_change_keeps_what_is_left_out(client: TestClient) -> None:
    """PATCH changes only what is given, PUT all of it."""
    client.post("/tasks", json={"id": 1, "title": "one"})
    assert client.patch("/tasks/1", json={"completed": True}).json()["title"] == "one"
    assert client.patch("/tasks/1", json={"title": "two"}).json()["completed"] is True
    assert client.patch("/tasks/1", json={"title": " "}).status_code == 400
    replaced = client.put("/tasks/1", json={"title": "three"})
    assert replaced.json() == {"id": 1, "title": "three", "completed": False}
    assert client.put("/tasks/1", json={"id": 2, "title": "three"}).status_code == 400


def test_deleted_task_is_gone(client: TestClient) -> None:
    """Deleting answers 204 once, then 404."""
    client.post("/tasks", json={"id": 1, "title": "one"})
    assert [client.delete("/tasks/1").status_code for _ in range(2)] == [204, 404]


def test_concurrent_writers_lose_nothing(client: TestClient) -> None:
    """Twenty clients that choose and are given ids at once all succeed."""
    bodies: list[dict[str, object]] = [{"title": "given"} for _ in range(10)]
    bodies += [{"title": "chosen", "id": task_id} for task_id in range(1, 11)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda body: client.post("/tasks", json=body), bodies))
    assert {answer.status_code for answer in answers} == {200}
    given = [answer.json()["id"] for answer in answers[:10]]
    assert len(set(given)) == 10
