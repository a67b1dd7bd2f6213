"""Redis, in memory only."""

from __future__ import annotations

from penstock.model import Health, Service


def redis_service(tag: str) -> Service:
    """Return a Redis service; commands that list it get `REDIS_URL`.

    Args:
        tag: Of the `redis` image.
    """
    from dagger import dag

    return Service(
        container=dag.container().from_(f"redis:{tag}"),
        port=6379,
        args=["redis-server", "--save", "", "--appendonly", "no", "--protected-mode", "no"],
        health=Health(command=["redis-cli", "ping"]),
        variables={"REDIS_URL": "redis://{host}:6379/0"},
    )
