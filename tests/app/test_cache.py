from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from redis.asyncio import Redis

from app.cache import Cache
from app.config import Settings
from app.main import create_app
from app.schemas import TaskOut

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD = TaskOut(id=1, title="old", completed=False)
NEW = TaskOut(id=1, title="new", completed=False)


class Table:
    """A table of one row, which counts how often it is read."""

    def __init__(self, row: TaskOut | None) -> None:
        self.row = row
        self.reads = 0

    async def load(self) -> TaskOut | None:
        self.reads += 1
        return self.row


@pytest.mark.postgres
async def test_second_read_comes_from_the_cache(redis_url: str) -> None:
    """The table is read once, and again after a write."""
    cache, table = Cache(redis_url), Table(OLD)
    assert [await cache.read(1, table.load) for _ in range(3)] == [OLD] * 3
    table.row = NEW
    await cache.forget(1)
    assert [await cache.read(1, table.load) for _ in range(2)] == [NEW] * 2
    assert table.reads == 2


@pytest.mark.postgres
async def test_absent_task_is_not_cached(redis_url: str) -> None:
    """A task that appears later is found at once."""
    cache, table = Cache(redis_url), Table(None)
    assert await cache.read(1, table.load) is None
    table.row = NEW
    assert await cache.read(1, table.load) == NEW


@pytest.mark.postgres
async def test_write_during_a_read_is_not_overwritten(redis_url: str) -> None:
    """A reader that loaded the old task does not store it over a writer's news."""
    cache, table = Cache(redis_url), Table(NEW)

    async def slow() -> TaskOut:
        await cache.forget(1)  # a writer commits between our load and our store
        return OLD

    assert await cache.read(1, slow) == OLD
    assert await cache.read(1, table.load) == NEW


@pytest.mark.postgres
async def test_garbage_in_redis_is_read_past(redis_url: str) -> None:
    """What another version left is no answer."""
    async with Redis.from_url(redis_url) as client:
        await client.set("task:1", b"{garbage")
    assert await Cache(redis_url).read(1, Table(NEW).load) == NEW


@pytest.mark.postgres
async def test_lost_database_is_not_taken_for_a_lost_redis(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the loader raises goes to its caller, once, and the cache goes on."""
    cache, table, attempts = Cache(redis_url), Table(OLD), 0

    async def fail() -> TaskOut:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await cache.read(1, fail)
    assert attempts == 1
    assert [await cache.read(1, table.load) for _ in range(2)] == [OLD] * 2
    assert table.reads == 1
    assert "cache_unavailable" not in capsys.readouterr().out


@pytest.mark.postgres
def test_writes_invalidate_what_was_read(postgres_url: str, redis_url: str) -> None:
    """Over HTTP: after each kind of write the next read sees it."""
    app = create_app(Settings(database_url=postgres_url, redis_url=redis_url))
    with TestClient(app) as client:
        client.post("/tasks", json={"id": 1, "title": "one"})
        assert [client.get("/tasks/1").json()["title"] for _ in range(2)] == ["one"] * 2
        client.patch("/tasks/1", json={"title": "two"})
        assert client.get("/tasks/1").json()["title"] == "two"
        client.post("/tasks", json={"id": 1, "title": "three"})
        assert client.get("/tasks/1").json()["title"] == "three"
        client.delete("/tasks/1")
        assert client.get("/tasks/1").status_code == 404
        assert client.get("/readyz").json()["checks"] == {"database": "ok", "redis": "ok"}


@contextmanager
def bad_redis(kind: str) -> Iterator[str]:
    """Yield the URL of a Redis that refuses, hangs or talks nonsense."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if kind == "refuses":
            listener.close()
        elif kind == "talks nonsense":

            def talk() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.close()

            threading.Thread(target=talk, daemon=True).start()
        yield f"redis://127.0.0.1:{port}/0"


@pytest.mark.parametrize("kind", ["refuses", "hangs", "talks nonsense"])
def test_broken_redis_fails_no_request(tmp_path: Path, kind: str) -> None:
    """Reads and writes go on, slowed by a fraction of a second at most; readiness tells."""
    with bad_redis(kind) as url:
        settings = Settings(database_url="", redis_url=url, sqlite_path=tmp_path / "tasks.db")
        client = TestClient(create_app(settings))
        assert client.post("/tasks", json={"id": 1, "title": "one"}).status_code == 200
        began = time.monotonic()
        assert [client.get("/tasks/1").status_code for _ in range(5)] == [200] * 5
        assert time.monotonic() - began < 2
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"database": "ok", "redis": "unreachable"}
