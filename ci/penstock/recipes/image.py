"""Images of applications: small, non-root, with a health check and the standard labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.recipes.uv import VENV, uv_project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import dagger

    from penstock.source import Source

USER = "10001:10001"  # numeric, so that a cluster can check that it is not root


def app_image(
    image: str,
    source: Source,
    *,
    group: str,
    command: Sequence[str],
    port: int,
    health: Sequence[str],
    labels: Mapping[str, str],
) -> dagger.Container:
    """Return the image of an application: locked dependencies of one group, and its sources.

    Args:
        image: Python's image, by name.
        source: The application's files; `pyproject.toml` and `uv.lock` must be among them.
        group: Dependency group with what the application needs to run.
        command: What the image runs.
        port: Where it listens.
        health: Command of the image's health check.
        labels: Without their prefix `org.opencontainers.image.`; source: the OCI image spec.
    """
    from dagger import dag

    built = uv_project(image, source, groups=[group], compiled=True)
    container = (
        dag.container()
        .from_(image)
        .with_workdir("/srv")
        .with_directory(VENV, built.directory(VENV))
        .with_env_variable("PATH", f"{VENV}/bin:$PATH", expand=True)
        .with_env_variable("PYTHONUNBUFFERED", "1")
        .with_directory("/srv", source.directory())
        .with_user(USER)
        .with_exposed_port(port)
        .with_docker_healthcheck(list(health), interval="10s", timeout="5s", retries=5)
        .with_entrypoint([])
        .with_default_args(list(command))
    )
    for name, value in labels.items():
        container = container.with_label(f"org.opencontainers.image.{name}", value)
    return container
