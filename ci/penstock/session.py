"""The session with the engine: connect, notice its loss, close."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from penstock.errors import EngineError
from penstock.events import EngineConnected, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

ENGINE_VARIABLE = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
# An engine that somebody names is there or not; one that the CLI has to find may be downloaded.
NAMED_S, FOUND_S = 15.0, 600.0
CLOSE_S = 10.0
BEAT_S = 1.0
PATIENCE_S = 3.0
ADVICE = "`python3 -m ci doctor` says what is wrong with the engine, `python3 -m ci setup` mends it"


@asynccontextmanager
async def open_session(
    *,
    emit: Callable[[Event], None],
    on_lost: Callable[[str], None],
    connecting: anyio.CancelScope,
) -> AsyncIterator[None]:
    """Connect to the engine that the surroundings name, and watch that it goes on answering.

    Args:
        emit: Takes `EngineConnected`.
        on_lost: Called once, with the reason, when the engine stops answering.
        connecting: Cancel it to give up while the engine has not answered yet.

    Raises:
        EngineError: When no engine can be reached.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAGGER_NO_NAG", "1")
    began = time.monotonic()
    import dagger

    named = os.environ.get(ENGINE_VARIABLE)
    async with AsyncExitStack() as stack:
        try:
            with connecting, anyio.fail_after(NAMED_S if named else FOUND_S):
                await stack.enter_async_context(_cli_session())
                # A request sent twice is a command executed twice: the SDK would, five times.
                config = dagger.Config(retry=dagger.Retry(execute=False))
                await stack.enter_async_context(_shielded_exit(dagger.connection(config)))
                version = await dagger.dag.version()
        except (dagger.DaggerError, OSError) as error:
            which = f" {named}" if named else ""
            words = _first_lines(error) if str(error) else "no answer"
            message = f"cannot reach the Dagger engine{which}: {words}; {ADVICE}"
            raise EngineError(message) from error
        if connecting.cancelled_caught:
            message = "interrupted before the engine answered"
            raise EngineError(message)
        emit(EngineConnected(version=version, duration_s=time.monotonic() - began))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch, on_lost)
            yield
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def _shielded_exit(connection: AbstractAsyncContextManager[object]) -> AsyncIterator[None]:
    await connection.__aenter__()
    try:
        yield
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
        yield
        return
    words = [str(cli), "session", "--label", "dagger.io/sdk.name:python"]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = await anyio.open_process(words, stderr=said, start_new_session=True)
        assert process.stdin is not None  # noqa: S101 - what mypy cannot know
        assert process.stdout is not None  # noqa: S101 - what mypy cannot know
        variables: dict[str, str] = {}
        try:
            line = await _first_line(process.stdout)
            if not line:
                said.seek(0)
                raise ConnectionError(said.read() or f"{cli} ended without a word")
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
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(CLOSE_S if variables else 0):
                    await process.stdin.aclose()
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                await process.aclose()


def _cli() -> Path | None:
    """Return the CLI that the SDK would take, if it is there."""
    from dagger._engine._version import CLI_VERSION

    if named := os.environ.get("_EXPERIMENTAL_DAGGER_CLI_BIN"):
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cli = cache / "dagger" / f"dagger-{CLI_VERSION}"
    return cli if cli.exists() else None


async def _first_line(stream: anyio.abc.ByteReceiveStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        try:
            line += await stream.receive()
        except anyio.EndOfStream:
            break
    return line


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


def _first_lines(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:400] or type(error).__name__
