"""The session with the engine: connect, notice its loss, close."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import math
import os
import socket
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from anyio.streams.buffered import BufferedByteReceiveStream

from penstock import sdk
from penstock.errors import EngineError, plain_words
from penstock.events import EngineConnected, Event
from penstock.folder import cache_home
from penstock.parent import is_stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ENGINE_VARIABLE = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
# An engine that somebody names is there or not; one that the CLI has to find may be downloaded.
NAMED_S, FOUND_S = 20.0, 600.0
OPEN_S = 8.0  # for the first answers of a session that is there
KNOCK_S = 2.0
RUNTIMES = {"container": "docker", "docker-container": "docker", "podman-container": "podman"}
# The CLI ends within 0.2 s; but where it sends telemetry, and the collector takes none of it, not
# within ten seconds.
CLOSE_S, CLOSE_SENDING_S = 10.0, 0.5
LINE_BYTES = 1 << 16
DYING_S, DYING_TICK_S = 3.0, 0.05
BEAT_S = 1.0
PATIENCE_S, TICK_S = 3.0, 0.25
SETTLE_S = 0.3
SERVER_FAULT = 500  # an HTTP status below tells of a request, not of the engine


@dataclass
class Session:
    """What every request to the engine goes through; none outlives the engine's loss.

    Args:
        on_lost: Called once, with the reason, when the engine stops answering.

    Attributes:
        cut_at: When a run was cut off that another one follows, by the monotonic clock.
    """

    on_lost: Callable[[str], None]
    lost: str = field(default="", init=False)
    is_open: bool = field(default=False, init=False)
    cut_at: float = field(default=-math.inf, init=False)
    _send: Callable[..., Awaitable[object]] = field(init=False)
    _asking: set[anyio.CancelScope] = field(default_factory=set, init=False)

    def take_over(self, client: Any) -> None:  # noqa: ANN401 - a class of gql's that takes attributes
        """Send in place of the SDK's own client."""
        self._send, client.execute = client.execute, self._execute

    async def _execute(self, *words: object, **options: object) -> object:
        """Send a request, and once more what is the same as one that was cut off before.

        The engine takes a command that is asked for while an equal one is being killed to be that
        one, and tells that it was cancelled.
        """
        from gql.transport import exceptions as faults

        while True:
            try:
                return await self._ask_once(*words, **options)
            except faults.TransportQueryError as error:
                is_dying = time.monotonic() - self.cut_at < DYING_S
                if not (is_dying and "context canceled" in str(error)):
                    raise
            await anyio.sleep(DYING_TICK_S)

    async def _ask_once(self, *words: object, **options: object) -> object:
        """Send a request, and let no cancel reach it in its first moments.

        A command that is cancelled while its container is being set up is not ended by the engine:
        it runs on, unseen, when the session is long closed. Found with cancels after 4 to 90 ms,
        none of 84 after 150 ms or more.

        Raises:
            EngineError: When the engine is lost, also where whoever waits is shielded.
        """
        from gql.transport import exceptions as faults

        if self.lost:
            raise self._error()
        with anyio.CancelScope(shield=True) as scope:
            self._asking.add(scope)
            loop = asyncio.get_running_loop()
            opening = loop.call_later(SETTLE_S, setattr, scope, "shield", False)  # noqa: FBT003 - setattr
            try:
                return await self._send(*words, **options)
            except faults.TransportServerError as error:
                if error.code and error.code < SERVER_FAULT:
                    raise
                self._lose(f"HTTP {error.code}" if error.code else str(error))
            except (faults.TransportConnectionFailed, faults.TransportProtocolError) as error:
                self._lose(plain_words(str(error)) or type(error.__cause__ or error).__name__)
            finally:
                opening.cancel()
                self._asking.discard(scope)
        raise self._error()

    def _error(self) -> EngineError:
        """Return what says so, as an error of the SDK too, which wraps others in a group."""
        import dagger

        class _LostError(EngineError, dagger.DaggerError):
            pass

        return _LostError(self.lost)

    def _lose(self, why: str) -> None:
        """Tell it once, and end what waits for an answer."""
        is_news = not self.lost
        self.lost = self.lost or f"the engine stopped answering: {why}"
        for scope in self._asking:
            scope.cancel()
        if is_news:
            self.on_lost(self.lost)

    async def watch(self, parent: int | None) -> None:
        """Ask for the engine's version every second; the SDK alone would wait for ever.

        Args:
            parent: The process that holds the session, if it is not ours.
        """
        while not self.lost:
            await anyio.sleep(BEAT_S)
            async with anyio.create_task_group() as asking:
                asking.start_soon(self._ask, asking.cancel_scope)
                # By ticks, not by the clock: it goes on while this program, or `dagger run`, is
                # stopped by Ctrl-Z, or while the author's code holds everything up.
                ticks = 0
                while ticks * TICK_S < PATIENCE_S:
                    await anyio.sleep(TICK_S)
                    ticks += not (parent and is_stopped(parent))
                self._lose(f"no answer within {PATIENCE_S:g} s")

    async def _ask(self, answered: anyio.CancelScope) -> None:
        import dagger

        try:
            await dagger.dag.version()
        except EngineError:
            pass  # told already
        except dagger.DaggerError as error:
            self._lose(plain_words(str(error)) or type(error).__name__)
        answered.cancel()


@asynccontextmanager
async def open_session(
    *,
    emit: Callable[[Event], None],
    on_lost: Callable[[str], None],
    connecting: anyio.CancelScope,
    advice: str,
    above: int | None,
) -> AsyncIterator[Session]:
    """Connect to the engine that the surroundings name, and watch that it goes on answering.

    Args:
        emit: Takes `EngineConnected`.
        on_lost: Called once, with the reason, when the engine stops answering.
        connecting: Cancel it to give up while the engine has not answered yet.
        advice: What to do where there is no engine, in words.
        above: The process that holds the session, if it is not ours.

    Raises:
        EngineError: When no engine can be reached.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAGGER_NO_NAG", "1")
    began = time.monotonic()
    named = os.environ.get(ENGINE_VARIABLE, "")
    bound_s = _bound_s(named)
    session = Session(on_lost)
    async with AsyncExitStack() as stack:
        try:
            with connecting, anyio.fail_after(bound_s):
                await anyio.to_thread.run_sync(_knock, named)
                async with _knocking(named):
                    await stack.enter_async_context(_cli_session(session))
                    bound_s = OPEN_S  # now there is an engine, downloaded or not
                    with anyio.fail_after(bound_s):
                        version = await _connect(stack, session)
        except (OSError, ValueError) as error:
            which = f" {named}" if named else ""
            words = plain_words(str(error)) or f"no answer within {bound_s:g} s"
            message = f"cannot reach the Dagger engine{which}: {words}; {advice}"
            raise EngineError(message) from error
        if connecting.cancelled_caught:
            message = "interrupted before the engine answered"
            raise EngineError(message)
        emit(EngineConnected(version=version, duration_s=time.monotonic() - began))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.watch, above)
            yield session
            tasks.cancel_scope.cancel()


def _bound_s(engine: str) -> float:
    """Return how long an engine may take to answer."""
    is_named = engine and "image" not in engine.partition("://")[0]
    return NAMED_S if is_named or "DAGGER_SESSION_PORT" in os.environ else FOUND_S


@asynccontextmanager
async def _knocking(engine: str) -> AsyncIterator[None]:
    """Knock again every second while something waits for the engine, and give up when it is gone."""
    gone: list[OSError] = []

    async def knock(waiting: anyio.CancelScope) -> None:
        while not gone:
            await anyio.sleep(BEAT_S)
            try:
                await anyio.to_thread.run_sync(_knock, engine)
            except OSError as error:
                gone.append(error)
        waiting.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(knock, tasks.cancel_scope)
            yield
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:  # of one, what was raised in here
        raise group.exceptions[0] from None
    if gone:
        raise gone[0]


def _knock(engine: str) -> None:
    """Ask the system, which knows at once, whether anybody listens; the CLI would try for long."""
    try:
        parts = urlsplit(engine)
        if parts.scheme == "tcp" and parts.port:
            socket.create_connection((parts.hostname, parts.port), KNOCK_S).close()
        elif parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as door:
                door.connect(parts.path)
        elif parts.scheme in RUNTIMES:
            _look(RUNTIMES[parts.scheme], parts.netloc)
    except OSError as error:
        raise ConnectionError((error.strerror or str(error)).lower()) from error


def _look(runtime: str, container: str) -> None:
    """Look whether a container runs; what cannot be found out is left to the CLI."""
    words = [runtime, "container", "inspect", "--format", "{{.State.Status}}", container]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=KNOCK_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return
    state = done.stdout.strip() if done.returncode == 0 else done.stderr.strip()
    if state != "running":
        message = f"its container is {state}" if done.returncode == 0 else state
        raise ConnectionError(message)


async def _connect(stack: AsyncExitStack, session: Session) -> str:
    """Return the version of the engine behind the session that is there."""
    import dagger

    try:
        connection, version = await sdk.connect()
    except dagger.DaggerError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
    stack.push_async_callback(_shielded, connection.close)
    session.take_over(await connection.session.get_session())
    session.is_open = True
    return version


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await close()


@asynccontextmanager
async def _cli_session(opened: Session) -> AsyncIterator[None]:
    """Start the CLI's session ourselves, in a process group of its own.

    The SDK's start waits ten minutes for an engine, hears no signal meanwhile, and its child dies
    of the terminal's Ctrl-C before anything is cleaned up. Left to the SDK: to download the CLI.
    """
    if "DAGGER_SESSION_PORT" in os.environ:  # `dagger run`
        await anyio.to_thread.run_sync(sdk.load)
        yield
        return
    cli = _cli() or await _downloaded()
    words = [str(cli), "session", "--label", "dagger.io/sdk.name:python"]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        with anyio.CancelScope(shield=True):  # else it may run without anybody who ends it
            process = await anyio.open_process(words, stderr=said, start_new_session=True)
        assert process.stdout is not None  # noqa: S101 - what mypy cannot know
        variables: dict[str, str] = {}
        try:
            await anyio.to_thread.run_sync(sdk.load)
            try:
                line = await BufferedByteReceiveStream(process.stdout).receive_until(
                    b"\n", LINE_BYTES
                )
            except anyio.IncompleteRead:
                await process.wait()
                said.seek(0)
                raise ConnectionError(said.read() or f"{cli} ended without a word") from None
            parameters = json.loads(line)
            variables = {
                "DAGGER_SESSION_PORT": str(parameters["port"]),
                "DAGGER_SESSION_TOKEN": parameters["session_token"],
            }
            os.environ |= variables
            yield
        finally:
            for name in variables:
                os.environ.pop(name, None)
            # What never connected, or lost its engine, has nothing to close; and kill it, should it
            # not end by itself.
            is_useful = opened.is_open and not opened.lost
            with anyio.move_on_after(_close_s() if is_useful else 0, shield=True):
                await process.aclose()


def _close_s() -> float:
    """Return how long the CLI has for its end, in seconds."""
    sends = (f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT" for kind in ("", "TRACES_", "METRICS_", "LOGS_"))
    return CLOSE_SENDING_S if any(map(os.environ.get, sends)) else CLOSE_S


def _cli() -> Path | None:
    """Return the CLI that the SDK would take, if it is there."""
    if named := os.environ.get("_EXPERIMENTAL_DAGGER_CLI_BIN"):
        return Path(named)
    # The SDK wants the CLI of its own version; asking the SDK itself would mean importing it.
    cli = cache_home() / "dagger" / f"dagger-{importlib.metadata.version('dagger-io')}"
    return cli if cli.exists() else None


async def _downloaded() -> Path:
    await anyio.to_thread.run_sync(sdk.load)
    import dagger
    from dagger.provisioning._download import Downloader

    try:
        return Path(await Downloader())
    except dagger.DaggerError as error:
        raise ConnectionError(str(error)) from error
