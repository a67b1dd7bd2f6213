"""The pipeline of this repository: read it from top to bottom."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from penstock import Command, Coverage, Health, JUnit, Pipeline, Service, Source
from penstock.recipes import app_image, postgres_service, redis_service, uv_project
from penstock.when import env

if TYPE_CHECKING:  # `--list` must not pay for importing Dagger
    from dagger import Container

    from penstock import Registry

PYTHON = "python:3.11-slim"
# Coverage that is asked of the library, in percent: what decides, and what else needs no engine.
DECIDES = dict.fromkeys(
    ("affected", "causes", "graph", "model", "redact", "runner", "scheduler"), 100
)
PURE = dict.fromkeys(("check", "events", "filter", "folder", "live", "matrix"), 95)
PURE |= dict.fromkeys(("changes", "handover", "pipeline", "plan", "replay", "select", "when"), 95)
LOCK = ["pyproject.toml", "uv.lock"]

pipeline = Pipeline("agent-task-service")

app = Source(include=["app", *LOCK])
tests = Source(include=["app", "tests/app", "tests/conftest.py", "tests/faults.py", *LOCK])
everything = Source(include=["app", "bench", "ci", "tests", *LOCK])
locked = Source(include=LOCK)


@pipeline.container
def python() -> Container:
    """Python with the locked dependencies, the app and its tests."""
    return uv_project(PYTHON, tests, compiled=True)


@pipeline.container
def workspace() -> Container:
    """The same with every Python file of the repository."""
    return uv_project(PYTHON, everything, caches=[".mypy_cache", ".ruff_cache"])


@pipeline.container
def auditor() -> Container:
    """pip-audit, and what it is to look at."""
    return uv_project(PYTHON, locked, groups=["audit"])


@pipeline.service
def postgres(python: Container) -> Service:
    """PostgreSQL with the schema that the migrations make."""
    migration = Command(
        python, "alembic upgrade head --sql", env={"DATABASE_URL": "postgresql://offline/test_db"}
    )
    return postgres_service("15-alpine", database="test_db", schema=migration)


@pipeline.service
def redis() -> Service:
    """Redis, in memory only."""
    return redis_service("7-alpine")


@pipeline.stage
def lint(workspace: Container) -> Command:
    """Lint with ruff"""
    return Command(workspace, "ruff check . && ruff format --check .", shell=True)


# What became known today is no fault of the change that is looked at.
@pipeline.stage(when=env("CI"), allow_failure=True, deadline_s=60)
def audit(auditor: Container) -> Command:
    """Look for known weaknesses in what is locked"""
    return Command(
        auditor,
        "uv export --quiet --frozen --all-groups --no-emit-project --output-file /tmp/locked.txt && "
        "pip-audit --strict --disable-pip --require-hashes --requirement /tmp/locked.txt",
        shell=True,
        env={
            "TODAY": f"{datetime.now(UTC):%F}",  # yesterday's answer is none
            "REQUESTS_CA_BUNDLE": "/etc/ssl/certs/ca-certificates.crt",
        },
    )


@pipeline.stage(needs=[lint])
def types(workspace: Container) -> Command:
    """Check types with mypy"""
    return Command(workspace, "mypy && pytest -q tests/typing", shell=True)


@pipeline.stage(needs=[lint])
def test(python: Container, postgres: Service, redis: Service) -> Command:
    """Run pytest with coverage"""
    return Command(
        python,
        "pytest tests/app --cov=app --cov-report=term-missing --cov-report=html:htmlcov "
        "--cov-report=xml:coverage.xml --junitxml=test/junit.xml",
        services=[postgres, redis],
        reports=[Coverage("coverage.xml", html="htmlcov", at_least=80), JUnit("test/junit.xml")],
    )


@pipeline.stage(needs=[lint])
def library(workspace: Container) -> Command:
    """Test penstock itself"""
    thresholds = {f"ci/penstock/{name}.py": least for name, least in (PURE | DECIDES).items()}
    return Command(
        workspace,
        "pytest tests/penstock --cov=ci/penstock --cov-report=xml:library/coverage.xml "
        "--junitxml=library/junit.xml",
        reports=[
            Coverage("library/coverage.xml", files=thresholds),
            JUnit("library/junit.xml"),
        ],
    )


@pipeline.stage(needs=[types, test, library])
def build(commit: str) -> Container:
    """Build the image"""
    return app_image(
        PYTHON,
        app,
        group="app",
        command=["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000"],  # noqa: S104 - the container's own network
        port=8000,
        health=["python", "-m", "app.probe", "http://127.0.0.1:8000/healthz"],
        labels={"title": pipeline.name, "revision": commit, "licenses": "MIT"},
    )


@pipeline.service
def service(build: Container, postgres: Service, redis: Service) -> Service:
    """The image that was built, started as it will be in production."""
    return Service(
        container=build,
        port=8000,
        services=[postgres, redis],
        health=Health(command=["python", "-m", "app.probe", "http://127.0.0.1:8000/healthz"]),
    )


@pipeline.stage(needs=[build])
def smoke(build: Container, service: Service) -> Command:
    """Start the image and ask /readyz"""
    return Command(build, "python -m app.probe http://service:8000/readyz", services=[service])


@pipeline.stage(needs=[build, smoke])
async def push(build: Container, registry: Registry, commit: str) -> list[str]:
    """Push sha and latest"""
    return await registry.push(build, tags=[commit, "latest"])


if __name__ == "__main__":
    raise SystemExit(pipeline.main())
