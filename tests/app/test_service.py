from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.config import Settings
from app.main import create_app
from app.probe import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.app.conftest import Servers

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(env: dict[str, str], folder: Path) -> Iterator[str]:
    """Run the service as a process of its own and yield its URL."""
    port = str(free_port())
    words = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", port]
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=base | env, cwd=folder, stdout=subprocess.DEVNULL) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(200):
                try:
                    httpx.get(f"{url}/healthz")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield url
        finally:
            server.terminate()


@pytest.mark.postgres
async def test_row_is_in_the_table_after_a_real_request(postgres_url: str, tmp_path: Path) -> None:
    """Over real HTTP, and read back beside the service."""
    with serving({"DATABASE_URL": postgres_url}, tmp_path) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            answer = await client.post("/tasks", json={"id": 1, "title": "real"})
    assert answer.status_code == 200
    connection = await asyncpg.connect(postgres_url)
    row = await connection.fetchrow("select title, completed from tasks where id = 1")
    await connection.close()
    assert row is not None
    assert tuple(row) == ("real", False)


def test_bare_checkout_serves_from_sqlite(tmp_path: Path) -> None:
    """Without any variable the service works, and keeps its data in one file."""
    with serving({}, tmp_path) as url:
        assert httpx.post(f"{url}/tasks", json={"title": "one"}).json()["id"] == 1
        assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
    assert (tmp_path / "tasks.db").exists()


@pytest.mark.postgres
@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_chapter_passes_twice_in_any_order(postgres_url: str, order: str, tmp_path: Path) -> None:
    """The chapter's own tests hold on one database, repeated, forwards and backwards."""
    source = (Path(__file__).parent / "chapter.py").read_text(encoding="utf-8")
    (tmp_path / "test_chapter.py").write_text(source)
    names = ["test_create_task", "test_create_task_empty_title", "test_database_integration"]
    chosen = [f"test_chapter.py::{n}" for n in (names if order == "forwards" else names[::-1])]
    env = os.environ | {"DATABASE_URL": postgres_url, "PYTHONPATH": str(ROOT)}
    env.pop("REDIS_URL", None)
    for _ in range(2):
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
        done = subprocess.run(
            words, cwd=tmp_path, env=env, check=False, capture_output=True, text=True
        )
        assert "3 passed" in done.stdout, done.stdout


@pytest.mark.postgres
async def test_workers_that_start_together_migrate_once(servers: Servers) -> None:
    """An empty database and three first requests at once: one migration, no error."""
    admin = await asyncpg.connect(servers.database_url)
    name = f"empty_{os.getpid()}"
    await admin.execute(f"create database {name}")
    url = f"{servers.database_url.rpartition('/')[0]}/{name}"
    code = (
        "from fastapi.testclient import TestClient; from app.main import app; "
        "print(TestClient(app).post('/tasks', json={'title': 'x'}).status_code)"
    )
    env = os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    printed = [(await process.communicate())[0].split()[-1] for process in processes]
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()
    assert printed == [b"200"] * 3


def test_probe_answers_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images without curl ask their own health: 0 when it answers 200, 1 otherwise."""
    with serving({}, tmp_path) as url:
        assert probe(f"{url}/healthz") == 0
        assert probe(f"{url}/nowhere") == 1
    assert probe(f"http://127.0.0.1:{free_port()}/") == 1
    assert '200 {"status":"ok"}' in capsys.readouterr().out


def test_ready_names_the_culprit() -> None:
    """A database that cannot be reached is 503, and named; alive is another question."""
    url = f"postgresql://user:hidden-password@127.0.0.1:{free_port()}/x"
    client = TestClient(create_app(Settings(database_url=url, redis_url="")))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready", "checks": {"database": "unreachable"}}
    assert client.get("/healthz").json() == {"status": "ok"}


def test_lost_database_is_503_without_details() -> None:
    """Neither host nor password reach the client."""
    url = f"postgresql://user:hidden-password@127.0.0.1:{free_port()}/x"
    client = TestClient(create_app(Settings(database_url=url, redis_url="")))
    answer = client.get("/tasks/1")
    assert (answer.status_code, answer.json()) == (503, {"detail": "Database unavailable"})


def test_own_fault_is_500_without_details(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What went wrong stands in the log, with the id that the client is told."""
    app = create_app(Settings(database_url="", redis_url="", sqlite_path=tmp_path / "x.db"))

    @app.get("/broken")
    def broken() -> None:
        message = "the innermost secret"
        raise RuntimeError(message)

    answer = TestClient(app).get("/broken")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "Internal server error"
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["request_id"] for line in logged} == {answer.json()["request_id"]}
    assert "innermost" not in answer.text


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("a b\n", False), ("x" * 65, False)])
def test_request_id_is_kept_when_sane(tmp_path: Path, given: str, kept: bool) -> None:
    """A proxy's id is passed on; one that could forge log lines is replaced."""
    app = create_app(Settings(database_url="", redis_url="", sqlite_path=tmp_path / "x.db"))
    answer = TestClient(app).get("/healthz", headers={b"X-Request-ID": given.encode("latin-1")})
    assert (answer.headers["X-Request-ID"] == given) is kept


@pytest.mark.parametrize("url", ["mysql://u:hidden-password@h/x", "no url hidden-password"])
def test_wrong_database_url_names_the_variable_and_no_password(url: str) -> None:
    """The service refuses to start and says which variable is wrong."""
    with pytest.raises(ValidationError, match="DATABASE_URL") as caught:
        Settings(database_url=url)
    assert "hidden-password" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://u:p@h:1/d", "postgres://u:p@h:1/d"])
def test_both_names_of_the_scheme_are_understood(url: str) -> None:
    """Hosting providers still write `postgres://`."""
    assert Settings(database_url=url).database.drivername == "postgresql+asyncpg"
