"""The graph of `bare.py`, as a pipeline: lint and test beside each other, then the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from penstock import Command, Coverage, JUnit, Pipeline, Service, Source
from penstock.recipes import postgres_service, prepared

if TYPE_CHECKING:
    from dagger import Container

pipeline = Pipeline("bench")
source = Source(include=["app", "tests", "pyproject.toml", "requirements.txt"])


@pipeline.container
def python() -> Container:
    """Python with the requirements, the app and its tests."""
    from dagger import dag

    certificates = "/etc/ssl/certs"
    files = source.directory()
    base = (
        dag.container()
        .from_("python:3.11-slim")
        .with_exec(["pip", "install", "-q", "--no-cache-dir", "uv"])
        .with_mounted_cache("/uv", dag.cache_volume("uv"))
        .with_env_variable("UV_CACHE_DIR", "/uv")
        .with_env_variable("UV_LINK_MODE", "copy")
        .with_env_variable("SSL_CERT_DIR", certificates)
        .with_env_variable("SSL_CERT_FILE", f"{certificates}/ca-certificates.crt")
        .with_exec(["uv", "venv", "/v"])
        .with_env_variable("VIRTUAL_ENV", "/v")
        .with_env_variable("PATH", "/v/bin:/usr/local/bin:/usr/bin:/bin")
        .with_file("/src/requirements.txt", files.file("requirements.txt"))
        .with_workdir("/src")
        .with_exec(["uv", "pip", "install", "-q", "--compile-bytecode", "-r", "requirements.txt"])
        .without_mount("/uv")
    )
    return prepared(base).with_directory("/src", files)


@pipeline.service
def db() -> Service:
    """PostgreSQL."""
    return postgres_service("15-alpine", database="test_db")


@pipeline.stage
def lint(python: Container) -> Command:
    """Lint"""
    return Command(python, "ruff check app tests")


@pipeline.stage
def test(python: Container, db: Service) -> Command:
    """Test"""
    return Command(
        python,
        "pytest -q -p no:cacheprovider --cov=app --cov-report=term --cov-report=html "
        "--cov-report=xml --junitxml=r.xml",
        services=[db],
        reports=[Coverage("coverage.xml", html="htmlcov", at_least=80), JUnit("r.xml")],
    )


@pipeline.stage(needs=[lint, test])
async def push(python: Container) -> str:
    """Push"""
    serve = ["uvicorn", "app.main:app", "--host", "0.0.0.0"]  # noqa: S104 - the container's own network
    reference = os.environ.get("BENCH_REFERENCE")
    return await python.with_entrypoint(serve).publish(reference) if reference else ""


if __name__ == "__main__":
    raise SystemExit(pipeline.main())
