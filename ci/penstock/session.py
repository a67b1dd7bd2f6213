"""The session with the engine: connect, notice its loss, close."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.metadata
import json
import os
import socket
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from anyio.streams.buffered import BufferedByteReceiveStream

from penstock.errors import EngineError, plain_words
from penstock.events import EngineConnected, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

ENGINE_VARIABLE = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
# An engine that somebody names is there or not; one that the CLI has to find may be downloaded.
NAMED_S, FOUND_S = 15.0, 600.0
KNOCK_S = 2.0
CLOSE_S = 10.0
LINE_BYTES = 1 << 16
BEAT_S = 1.0
PATIENCE_S = 3.0
SETTLE_S = 0.3


@asynccontextmanager
async def open_session(
    *,
    emit: Callable[[Event], None],
    on_lost: Callable[[str], None],
    connecting: anyio.CancelScope,
    advice: str,
) -> AsyncIterator[None]:
    """Connect to the engine that the surroundings name, and watch that it goes on answering.

    Args:
        emit: Takes `EngineConnected`.
        on_lost: Called once, with the reason, when the engine stops answering.
        connecting: Cancel it to give up while the engine has not answered yet.
        advice: What to do where there is no engine, in words.

    Raises:
        EngineError: When no engine can be reached.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAGGER_NO_NAG", "1")
    began = time.monotonic()
    named = os.environ.get(ENGINE_VARIABLE, "")
    is_there = named and "image" not in urlsplit(named).scheme
    bound_s = NAMED_S if is_there else FOUND_S
    async with AsyncExitStack() as stack:
        try:
            with connecting, anyio.fail_after(bound_s):
                await anyio.to_thread.run_sync(_knock, named)
                await stack.enter_async_context(_cli_session())
                version = await _connect(stack)
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
            tasks.start_soon(_watch, on_lost)
            yield
            tasks.cancel_scope.cancel()


def _knock(engine: str) -> None:
    """Ask the system, which knows at once, whether anybody listens; the CLI would try for long."""
    parts = urlsplit(engine)
    try:
        if parts.scheme == "tcp" and parts.port:
            socket.create_connection((parts.hostname, parts.port), KNOCK_S).close()
        elif parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as door:
                door.connect(parts.path)
    except OSError as error:
        raise ConnectionError((error.strerror or str(error)).lower()) from error


def _import_sdk() -> None:
    """Import Dagger, for over a second: in a thread, where signals are heard meanwhile."""
    gc.disable()
    importlib.import_module("dagger")
    gc.freeze()  # its objects live as long as we do, and are more than all others
    gc.enable()


async def _connect(stack: AsyncExitStack) -> str:
    """Return the version of the engine behind the session that is there."""
    import dagger

    # A request sent twice is a command executed twice: the SDK would, five times.
    config = dagger.Config(retry=dagger.Retry(execute=False))
    try:
        connection = await stack.enter_async_context(_shielded_exit(dagger.connection(config)))
        session = await connection.session.get_session()
        session.execute = partial(_settled, session.execute)
        return await dagger.dag.version()
    except dagger.DaggerError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


async def _settled(
    execute: Callable[..., Awaitable[object]], *words: object, **options: object
) -> object:
    """Send a request, and let no cancel reach it in its first moments.

    A command that is cancelled while its container is being set up is not ended by the engine: it
    runs on, unseen, when the session is long closed. Found with cancels after 4 to 90 ms, none of
    84 after 150 ms or more.
    """
    with anyio.CancelScope(shield=True) as shield:
        loop = asyncio.get_running_loop()
        opening = loop.call_later(SETTLE_S, setattr, shield, "shield", False)  # noqa: FBT003 - setattr
        try:
            answer = await execute(*words, **options)
        finally:
            opening.cancel()
    return answer


@asynccontextmanager
async def _shielded_exit(connection: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
    opened = await connection.__aenter__()
    try:
        yield opened
    finally:
        with anyio.CancelScope(shield=True):
            await connection.__aexit__(None, None, None)


@asynccontextmanager
async def _cli_session() -> AsyncIterator[None]:
    """Start the CLI's session ourselves, in a process group of its own.

    The SDK's start waits ten minutes for an engine, hears no signal meanwhile, and its child dies
    of the terminal's Ctrl-C before anything is cleaned up. Left to the SDK: a session that is
    there already (`dagger run`), and a machine whose CLI has to be downloaded first.
    """
    cli = _cli()
    if cli is None or "DAGGER_SESSION_PORT" in os.environ:
        await anyio.to_thread.run_sync(_import_sdk)
        yield
        return
    words = [str(cli), "session", "--label", "dagger.io/sdk.name:python"]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        with anyio.CancelScope(shield=True):  # else it may run without anybody who ends it
            process = await anyio.open_process(words, stderr=said, start_new_session=True)
        assert process.stdout is not None  # noqa: S101 - what mypy cannot know
        variables: dict[str, str] = {}
        try:
            await anyio.to_thread.run_sync(_import_sdk)
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
            with anyio.move_on_after(CLOSE_S if variables else 0, shield=True):
                await process.aclose()  # and kill it, should it not end by itself


def _cli() -> Path | None:
    """Return the CLI that the SDK would take, if it is there."""
    if named := os.environ.get("_EXPERIMENTAL_DAGGER_CLI_BIN"):
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # The SDK wants the CLI of its own version; asking the SDK itself would mean importing it.
    cli = cache / "dagger" / f"dagger-{importlib.metadata.version('dagger-io')}"
    return cli if cli.exists() else None


async def _watch(on_lost: Callable[[str], None]) -> None:
    """Ask for the engine's version every second; the SDK alone would wait for ever."""
    import dagger

    while True:
        await anyio.sleep(BEAT_S)
        try:
            with anyio.fail_after(PATIENCE_S):
                await dagger.dag.version()
        except Exception as error:  # noqa: BLE001 - whatever the transport raises is the loss
            kind = "no answer" if isinstance(error, TimeoutError) else type(error).__name__
            on_lost(f"the engine stopped answering ({kind})")
            return
