"""The session with the engine: connect, notice its loss, close."""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from penstock.errors import EngineError
from penstock.events import EngineConnected, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BEAT_S = 1.0
PATIENCE_S = 3.0
ADVICE = "`python3 -m ci doctor` says what is wrong with the engine, `python3 -m ci setup` mends it"


@asynccontextmanager
async def open_session(
    *, emit: Callable[[Event], None], on_lost: Callable[[str], None]
) -> AsyncIterator[None]:
    """Connect to the engine that the surroundings name, and watch that it goes on answering.

    Args:
        emit: Takes `EngineConnected`.
        on_lost: Called once, with the reason, when the engine stops answering.

    Raises:
        EngineError: When no engine can be reached.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAGGER_NO_NAG", "1")
    began = time.monotonic()
    import dagger

    connection = dagger.connection()
    try:
        await connection.__aenter__()
    except (dagger.DaggerError, OSError) as error:
        message = f"cannot reach the Dagger engine: {_first_lines(error)}; {ADVICE}"
        raise EngineError(message) from error
    try:
        version = await dagger.dag.version()
        emit(EngineConnected(version=version, duration_s=time.monotonic() - began))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch, on_lost)
            yield
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await connection.__aexit__(None, None, None)


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
