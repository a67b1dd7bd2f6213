"""Asks a registry again, unasked, where that repeats nothing of the author's own code."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio

from penstock.causes import cause
from penstock.errors import RegistryError
from penstock.model import Attempt, Result
from penstock.runner import backoff_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from penstock.runner import Tried

T = TypeVar("T")

MOST = 4  # further tries in one attempt of a stage: with all their waits, within eight seconds


@dataclass
class _Patience:
    tried: Tried
    left: int = MOST


_patience: ContextVar[_Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patience(tried: Tried) -> Iterator[None]:
    """Let what is asked in here be asked again; `tried` is told of each try and the wait."""
    token = _patience.set(_Patience(tried))
    try:
        yield
    finally:
        _patience.reset(token)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what the engine answers, asked again when a registry was in its way.

    Only for requests that run no command before they need the registry, or whose commands the
    engine has by then: what a command of the author's did must not happen twice.

    Raises:
        dagger.QueryError: When it is something else, or in vain, or was asked often enough.
        RegistryError: The same, where the request raises it.
    """
    import dagger

    while True:
        began = time.monotonic()
        try:
            return await ask()
        except dagger.ExecError:
            raise
        except (dagger.QueryError, RegistryError) as error:
            words, fault = str(error), getattr(error, "fault", None)
            if isinstance(error, dagger.QueryError):
                why = cause(words)
                words, fault = why.words, why.fault
            mine = _patience.get()
            if fault != "registry" or mine is None or not mine.left:
                raise
        mine.left -= 1
        took = time.monotonic() - began
        delay_s = backoff_s(MOST - mine.left)
        tried = Attempt(result=Result.ERROR, reason=words, fault="registry", duration_s=took)
        mine.tried(tried, delay_s)
        await anyio.sleep(delay_s)
