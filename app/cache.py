"""Single tasks in Redis. A cache that is down, slow or broken never fails a request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError, WatchError

from app.schemas import TaskOut

TTL_S = 30
TIMEOUT_S = 0.2
REST_S = 1.0  # reads leave a broken Redis alone for this long
TOMBSTONE = b""

log = structlog.get_logger()


class Cache:
    """Reads through Redis, if there is one.

    Args:
        url: Of Redis; empty switches the cache off.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._shared: Redis | None = None
        self._resting_until = 0.0

    @property
    def is_configured(self) -> bool:
        """Whether there is a Redis at all."""
        return bool(self._url)

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[None]:
        """Keep connections between requests while one event loop serves them all."""
        async with self._connect() as client:
            self._shared = client if self._url else None
            try:
                yield
            finally:
                self._shared = None

    def _connect(self) -> Redis:
        return Redis.from_url(
            self._url or "redis://unused",
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=None,
        )

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Redis]:
        if self._shared:
            yield self._shared
        else:
            async with self._connect() as client:
                yield client

    async def ping(self) -> None:
        """Raise when Redis does not answer."""
        async with self._client() as client:
            await client.ping()

    async def read(
        self, task_id: int, load: Callable[[], Awaitable[TaskOut | None]]
    ) -> TaskOut | None:
        """Return a task from the cache, or load and cache it.

        The key is watched while the task is loaded: a writer's tombstone in between makes the
        store fail, so that an old task never overwrites the news of a new one.
        """
        if not self._url or time.monotonic() < self._resting_until:
            return await load()
        outcome: list[TaskOut | Exception | None] = []
        try:
            async with self._client() as client, client.pipeline() as pipe:
                await pipe.watch(_key(task_id))
                cached = await pipe.get(_key(task_id))
                if cached:
                    return TaskOut.model_validate_json(cached)
                outcome.append(loaded := await _attempt(load))
                if isinstance(loaded, TaskOut):
                    pipe.multi()  # type: ignore[no-untyped-call]  # redis leaves it unannotated
                    pipe.set(_key(task_id), loaded.model_dump_json(), ex=TTL_S)
                    await pipe.execute()
        except WatchError:
            pass  # written meanwhile: the next reader loads it
        except (RedisError, OSError, ValidationError) as error:
            self._rest(error)
        task = outcome[0] if outcome else await load()
        if isinstance(task, Exception):
            raise task
        return task

    async def forget(self, task_id: int) -> None:
        """Drop a task after its write was committed.

        A tombstone, not a deletion: deleting a key that is not there would go unnoticed by the
        readers that watch it. Should Redis be away just now, the old task lives for `TTL_S`.
        """
        if not self._url:
            return
        try:
            async with self._client() as client:
                await client.set(_key(task_id), TOMBSTONE, ex=TTL_S)
        except (RedisError, OSError) as error:
            self._rest(error)

    def _rest(self, error: Exception) -> None:
        self._resting_until = time.monotonic() + REST_S
        log.warning("cache_unavailable", error=type(error).__name__)


async def _attempt(load: Callable[[], Awaitable[TaskOut | None]]) -> TaskOut | Exception | None:
    """Return what was loaded, or the error: as a value it is not taken for one of Redis."""
    try:
        return await load()
    except Exception as error:  # noqa: BLE001 - raised again once Redis is left
        return error


def _key(task_id: int) -> str:
    return f"task:{task_id}"
