"""Services: prepared, started, watched until healthy, and surely stopped.

The engine leaves a service running, unseen, when the task that starts it is cancelled. So every
start happens in a task of the pool's own, and every task ends in a shielded stop.
"""

from __future__ import annotations

import re
import shlex
import time
from collections import defaultdict
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from penstock.again import patiently
from penstock.causes import cause
from penstock.errors import EngineError, ServiceError
from penstock.events import ServiceFailed, ServicePrepared, ServiceStarted, ServiceStopped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import dagger
    from anyio.abc import TaskGroup

    from penstock.live import Live
    from penstock.model import Service

STOP_S = 5.0
# What has never become healthy the engine does not stop before its start is over: for a port that
# nobody opens, or a check that hangs, not before the session is. So it is not waited for.
UNSTARTED_STOP_S = 1.0
# The engine tells what the last check printed if it is the one to give up: it is given the time
# by which it starts to count later than we do.
LAST_CHECK_S = 3.0
FIRST_POLL = "100ms"
_DEATH = re.compile(
    r"bound service \S+ \(aliased as (?P<name>[^)]+)\) exited(?:: exit code: (?P<code>\d+))?"
)


@dataclass
class _Server:
    """A service of this run."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    settled: anyio.Event = field(default_factory=anyio.Event)
    stopped: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None

    @property
    def is_ending(self) -> bool:
        """Whether it serves nobody any more."""
        return self.scope.cancel_called or self.error is not None


class ServicePool:
    """The services of a run, each started at most once.

    Args:
        tasks: Outlives every stage.
        live: Knows what the engine does for a service as that service's.
    """

    def __init__(self, tasks: TaskGroup, live: Live) -> None:
        self._tasks = tasks
        self.live = live
        self._servers: dict[str, _Server] = {}
        self._prepared: set[str] = set()
        self._preparing: dict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self.rehearsing = anyio.Lock()  # the rehearsals of a run share one registry

    @property
    def is_at_work(self) -> bool:
        """Whether any service of it is there."""
        return bool(self._servers)

    async def prepare(self, services: Iterable[Service]) -> None:
        """Make what the services need before they can start: their images, a schema.

        Raises:
            dagger.ExecError: When a command in there failed.
        """
        for service in services:
            await self.prepare(service.services)
            async with self._preparing[service.key]:
                if service.key not in self._prepared:
                    await self._prepare(service)
                    self._prepared.add(service.key)

    async def start(self, services: Sequence[Service]) -> None:
        """Return when the services, and all that they need, are healthy.

        Raises:
            ServiceError: When one cannot be started, died or never became healthy.
            dagger.ExecError: When preparing one (its schema, say) failed.
        """
        servers = [await self._begin(service) for service in services]
        for server in servers:
            await server.settled.wait()
            if server.error:
                raise server.error

    async def _begin(self, service: Service) -> _Server:
        while (server := self._servers.get(service.key)) and server.is_ending:
            await server.stopped.wait()  # whoever comes now gets another one
        if server is None:
            server = self._servers[service.key] = _Server()
            self._tasks.start_soon(self._serve, service, server)
        return server

    def release(self, key: str) -> None:
        """Stop a service, in the background, if it was started."""
        if server := self._servers.get(key):
            server.scope.cancel()

    async def stop_all(self, *, spared: Collection[str] = ()) -> None:
        """Stop every service but those that are spared, and return when nothing of them is left."""
        ending = [server for key, server in self._servers.items() if key not in spared]
        for server in ending:
            server.scope.cancel()
        for server in ending:
            await server.stopped.wait()

    async def sweep(self, services: Iterable[Service]) -> None:
        """Stop what the engine may have started by itself for a command that was cut short."""
        for service in services:
            if service.key not in self._servers:
                await _stop(as_dagger(service, self.live), STOP_S)
            await self.sweep(service.services)

    async def _serve(self, service: Service, server: _Server) -> None:
        """Start a service, keep it until it is released, stop it."""
        running = as_dagger(service, self.live)
        try:
            with server.scope, self.live.under(service=service.key):
                await self.start(service.services)
                await self._become_healthy(service, running)
                server.settled.set()
                await anyio.sleep_forever()
        except Exception as error:  # noqa: BLE001 - handed to every stage that waits for it
            server.error = error
        finally:
            if server.error is None and not server.settled.is_set():
                server.error = ServiceError(service.key, "was stopped before it was ready")
            server.settled.set()
            await _stop(running, STOP_S if server.error is None else UNSTARTED_STOP_S)
            self._servers.pop(service.key, None)
            server.stopped.set()
            self.live.emit(ServiceStopped(service=service.key))

    async def _prepare(self, service: Service) -> None:
        began = time.monotonic()
        what = service.prepares or "image"
        try:
            with self.live.under(service=service.key):
                await patiently(service.container.sync)
        except Exception as error:
            reason = cause(str(error)).words or type(error).__name__
            self.live.emit(ServiceFailed(service=service.key, what=what, reason=reason))
            raise
        took = time.monotonic() - began
        self.live.emit(ServicePrepared(service=service.key, what=what, duration_s=took))

    async def _become_healthy(self, service: Service, running: dagger.Service) -> None:
        import dagger

        began = time.monotonic()
        check = shlex.join(service.health.command)
        late = f"never became healthy within {service.patience_s:g} s"
        self.live.forget_lines(service.key)
        try:
            # By our own clock: the engine lets a port closed, or a check hang, for ever.
            with anyio.fail_after(service.patience_s + (LAST_CHECK_S if check else 0.0)):
                await running.start()
        except TimeoutError as error:
            output = await self.live.last_lines(service.key)
            why = "its last check did not end" if check else f"port {service.port} stayed closed"
            raise self._failed(service, f"{late} ({why})", output) from error
        except dagger.ExecError as error:
            output = f"{error.stdout}\n{error.stderr}".strip()
            if "health" not in str(error):
                words = f"exited with exit code {error.exit_code} before it was healthy"
                raise self._failed(service, words, output) from error
            said = await self.live.last_lines(service.key)
            words = f"{late} (its check ended with exit code {error.exit_code})"
            output = f"{said}\n$ {check}\n{output}".strip()
            raise self._failed(service, words, output) from error
        except dagger.QueryError as error:
            words = f"could not be started: {cause(str(error)).words}"
            raise self._failed(service, words) from error
        self.live.emit(ServiceStarted(service=service.key, duration_s=time.monotonic() - began))

    def _failed(self, service: Service, reason: str, output: str = "") -> ServiceError:
        self.live.emit(ServiceFailed(service=service.key, what="health check", reason=reason))
        return ServiceError(service.key, reason, output)


def as_dagger(service: Service, live: Live | None = None) -> dagger.Service:
    """Return the engine's form of a service; equal services are one within a session.

    The engine tells of a service's output below the request that spoke of it last before its start,
    so all of them are known as the service's, those that are made for a stage included.
    """
    health = service.health
    container = service.container.with_exposed_port(
        service.port, experimental_skip_healthcheck=bool(health.command)
    )
    if health.command:
        container = container.with_docker_healthcheck(
            list(health.command),
            interval=f"{health.interval_s:g}s",
            timeout=f"{health.timeout_s:g}s",
            start_period=f"{service.patience_s:g}s",
            start_interval=FIRST_POLL,
            retries=1,
        )
    if service.cell:  # constant, so that the cache holds; equal services would be one
        container = container.with_label("penstock.cell", service.cell)
    container = bind(container, service.services, live)
    if service.args is not None:
        running = container.as_service(args=list(service.args))
    else:
        running = container.as_service(use_entrypoint=True)
    ask = running.id

    async def own_id() -> str:
        with live.under(service=service.key) if live else nullcontext():
            return await ask()

    running.id = own_id  # type: ignore[method-assign]  # the SDK asks for it where it is an argument
    return running


def bind(
    container: dagger.Container, services: Iterable[Service], live: Live | None
) -> dagger.Container:
    """Return the container with each service under its own name, and its variables."""
    for service in services:
        container = container.with_service_binding(service.name, as_dagger(service, live))
        for name, value in service.variables.items():
            container = container.with_env_variable(name, value.replace("{host}", service.name))
    return container


async def _stop(running: dagger.Service, within_s: float) -> None:
    """Kill a service, whatever is cancelled meanwhile; one that never ran is no error."""
    import dagger

    with anyio.move_on_after(within_s, shield=True), suppress(dagger.DaggerError, EngineError):
        await running.stop(kill=True)


def death(text: str) -> tuple[str, str] | None:
    """Return which service died, and how, if that is what the engine complains of.

    Example:
        >>> death("bound service 7enff7q4b1ma0 (aliased as db) exited: exit code: 3")
        ('db', 'exited with exit code 3 while it was in use')
    """
    if not (found := _DEATH.search(text)):
        return None
    how = f" with exit code {found['code']}" if found["code"] else ""
    return found["name"], f"exited{how} while it was in use"
