"""The yardstick: the same graph on the Dagger SDK alone, as fast as its author could write it."""

import os
import sys

import anyio
import dagger
from dagger import dag

FILES = ["app", "tests", "pyproject.toml", "requirements.txt"]
CERTIFICATES = "/etc/ssl/certs"
POSTGRES = ["docker-entrypoint.sh", "postgres"]
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "jit=off")
TESTS = "pytest -q -p no:cacheprovider --cov=app --cov-report=term --cov-report=html"
TESTS += " --cov-report=xml --junitxml=r.xml --cov-fail-under=80"
SERVE = ["uvicorn", "app.main:app", "--host", "0.0.0.0"]  # noqa: S104 - the container's own network


def python() -> dagger.Container:
    """Return Python with the requirements, the app and its tests."""
    source = dag.host().directory(".", include=FILES, exclude=["**/__pycache__"])
    return (
        dag.container()
        .from_("python:3.11-slim")
        .with_exec(["pip", "install", "-q", "--no-cache-dir", "uv"])
        .with_mounted_cache("/uv", dag.cache_volume("uv"))
        .with_env_variable("UV_CACHE_DIR", "/uv")
        .with_env_variable("UV_LINK_MODE", "copy")
        .with_env_variable("SSL_CERT_DIR", CERTIFICATES)
        .with_env_variable("SSL_CERT_FILE", f"{CERTIFICATES}/ca-certificates.crt")
        .with_exec(["uv", "venv", "/v"])
        .with_env_variable("VIRTUAL_ENV", "/v")
        .with_env_variable("PATH", "/v/bin:/usr/local/bin:/usr/bin:/bin")
        .with_file("/src/requirements.txt", source.file("requirements.txt"))
        .with_workdir("/src")
        .with_exec(["uv", "pip", "install", "-q", "--compile-bytecode", "-r", "requirements.txt"])
        .without_mount("/uv")
        .with_directory("/src", source)
    )


def database() -> dagger.Service:
    """Return PostgreSQL, initialised in a layer."""
    settings = [word for setting in FAST for word in ("-c", setting)]
    return (
        dag.container()
        .from_("postgres:15-alpine")
        .with_env_variable("POSTGRES_PASSWORD", "postgres")
        .with_env_variable("POSTGRES_DB", "test_db")
        .with_env_variable("PGDATA", "/var/lib/prepared")
        .with_exec([*POSTGRES, "-C", "port"])
        .with_exposed_port(5432)
        .as_service(args=[*POSTGRES, *settings])
    )


async def main() -> None:
    """Lint and test beside each other, then publish the image."""
    async with dagger.connection(dagger.Config(log_output=sys.stderr)):
        source = python()

        async def lint() -> None:
            await source.with_exec(["ruff", "check", "app", "tests"]).sync()

        async def test() -> None:
            url = "postgresql://postgres:postgres@db:5432/test_db"
            tested = (
                source.with_service_binding("db", database())
                .with_env_variable("DATABASE_URL", url)
                .with_exec(TESTS.split())
            )
            kept = dag.directory().with_directory("htmlcov", tested.directory("/src/htmlcov"))
            await kept.with_file("r.xml", tested.file("/src/r.xml")).export("out")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lint)
            tasks.start_soon(test)
        if reference := os.environ.get("BENCH_REFERENCE"):
            print(await source.with_entrypoint(SERVE).publish(reference))


anyio.run(main)
