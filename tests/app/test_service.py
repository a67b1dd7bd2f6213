from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import asyncpg
import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.config import Settings
from app.main import create_app
from app.probe import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.app.conftest import Databases

ROOT = Path(__file__).parents[2]
# PYTHONDONTWRITEBYTECODE is left out: the first process compiles for all that follow.
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
CHAPTER = ["test_create_task", "test_create_task_empty_title", "test_database_integration"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def listening(settings: Settings) -> Iterator[str]:
    """Serve real HTTP from a thread and yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def bare_service(checkout: Path) -> Iterator[str]:
    """Run what the README says in a checkout, yield its URL, leave its output in `log`."""
    port = free_port()
    words = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    env = ENVIRONMENT | {"PYTHONPATH": str(checkout)}
    with (
        (checkout / "log").open("w") as log,
        subprocess.Popen(words, env=env, cwd=checkout, stdout=log, stderr=log) as server,
    ):
        try:
            for _ in range(400):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.mark.postgres
async def test_row_is_in_the_table_after_a_real_request(postgres_url: str) -> None:
    """Over real HTTP, and read back beside the service."""
    with listening(Settings(database_url=postgres_url, redis_url="")) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            answer = await client.post("/tasks", json={"id": 1, "title": "real"})
    assert answer.status_code == 200
    connection = await asyncpg.connect(postgres_url)
    row = await connection.fetchrow("select title, completed from tasks where id = 1")
    await connection.close()
    assert row is not None
    assert tuple(row) == ("real", False)


def test_bare_checkout_serves_from_sqlite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it lies, without any variable: it works, keeps one file and logs JSON only."""
    checkout = tmp_path / "50% of a path"
    shutil.copytree(ROOT / "app", checkout / "app", ignore=shutil.ignore_patterns("__pycache__"))
    with bare_service(checkout) as url:
        with httpx.Client(base_url=url) as client:
            assert client.post("/tasks", json={"title": "one"}).json()["id"] == 1
            assert client.get("/readyz").json()["status"] == "ready"
        assert [probe(f"{url}/healthz"), probe(f"{url}/nowhere")] == [0, 1]
    assert '200 {"status":"ok"}' in capsys.readouterr().out
    assert (checkout / "tasks.db").exists()
    logged = [json.loads(line) for line in (checkout / "log").read_text().splitlines()]
    requests = [line["path"] for line in logged if line["event"] == "request"]
    assert requests == ["/tasks", "/readyz", "/healthz", "/nowhere"]
    others = [line["event"] for line in logged if line["event"] != "request"]
    assert "Application startup complete." in others
    assert not [event for event in others if "/tasks" in event]


async def run_chapter(database_url: str, folder: Path, names: list[str]) -> str:
    """Run the chapter's tests in one order, then in the other, and return what was printed."""
    # Hypothesis would cost as much as all the rest of the start.
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    tests = [f"test_chapter.py::{name}" for name in names]
    tests += [f"test_again.py::{name}" for name in reversed(names)]
    words = [sys.executable, "-m", "pytest", *options, *tests]
    env = ENVIRONMENT | {"DATABASE_URL": database_url}
    done = await anyio.run_process(words, cwd=folder, env=env, check=False)
    return done.stdout.decode()


@pytest.mark.postgres
async def test_chapter_passes_twice_in_any_order(databases: Databases, tmp_path: Path) -> None:
    """The chapter's own tests hold on one database, at first empty, forwards and backwards."""
    for name in ("test_chapter.py", "test_again.py"):
        shutil.copyfile(Path(__file__).parent / "chapter.py", tmp_path / name)
    async with databases.new() as one, databases.new() as another:
        printed = await asyncio.gather(
            run_chapter(one, tmp_path, CHAPTER), run_chapter(another, tmp_path, CHAPTER[::-1])
        )
    for output in printed:
        assert "6 passed" in output, output


WORKERS = """
import os, traceback
import alembic.command, asyncpg, redis.asyncio, sqlalchemy.ext.asyncio  # once for all three
from fastapi.testclient import TestClient
for _ in range(3):
    if os.fork() == 0:
        status = 0
        try:
            from app.main import app
            status = TestClient(app).post("/tasks", json={"title": "x"}).status_code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status != 200)  # at once: to tidy up a copied interpreter takes seconds
print("exit codes:", *sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(3)))
"""


@pytest.mark.postgres
async def test_workers_that_start_together_migrate_once(databases: Databases) -> None:
    """An empty database and three first requests at once: one migration, no error."""
    async with databases.new() as url:
        words = [sys.executable, "-c", WORKERS]
        done = await anyio.run_process(words, env=ENVIRONMENT | {"DATABASE_URL": url})
        connection = await asyncpg.connect(url)
        stored = await connection.fetchval("select count(*) from tasks")
        await connection.close()
    assert done.stdout.decode().splitlines()[-1] == "exit codes: 0 0 0", done.stderr.decode()
    assert stored == 3


def test_probe_of_nobody_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens the exit code is 1, and the reason is said."""
    assert probe(f"http://127.0.0.1:{free_port()}/") == 1
    assert "refused" in capsys.readouterr().err


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


def test_connection_that_hangs_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that says nothing costs two attempts, and is 503 within the same bound."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("app.database.CONNECT_S", 0.4)
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/x"
        client = TestClient(create_app(Settings(database_url=url, redis_url="")))
        assert client.get("/readyz").status_code == 503
        assert client.get("/tasks/1").status_code == 503
        silent.settimeout(1)
        attempts = [silent.accept()[0] for _ in range(3)]
    assert len(attempts) == 3
    for attempt in attempts:
        attempt.close()
