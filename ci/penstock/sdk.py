"""Dagger's SDK, imported and connected without what a run does not need: half of a warm run.

Nothing of the SDK's own files is changed, and nothing of what it checks: only when it does so.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.metadata
import json
import os
import sys
from contextlib import contextmanager, suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any

from penstock.folder import cache_home, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dagger.client._session import SharedConnection

# Both are left out where they are missing: an SDK for modules, a command line of a library.
UNNEEDED = ("dagger.mod", "httpx._main")
PLAIN_VARIABLE = "PENSTOCK_PLAIN_SDK"  # imports and connects as the SDK itself does


def load() -> None:
    """Import Dagger; in a thread, so that signals are heard meanwhile."""
    gc.disable()
    with _lean():
        importlib.import_module("dagger")
    gc.freeze()  # its objects live as long as we do, and are more than all others
    gc.enable()


async def connect() -> tuple[SharedConnection, str]:
    """Connect to the session that the environment names; return the engine's version too.

    The engine takes a third of a second to describe its own language. It is asked for that once
    for each version.

    Raises:
        dagger.DaggerError: When it does not answer.
    """
    import dagger
    from dagger import telemetry
    from dagger.client._config import ConnectConfig
    from dagger.client._session import ConnectParams, SharedConnection

    # A request sent twice is a command executed twice: the SDK would, five times.
    config = ConnectConfig(retry=None)
    connection = SharedConnection().with_config(config)
    if there := ConnectParams.from_env():
        connection.with_params(there)
    client: Any = connection.session.client
    kept = _Schema.of_sdk()
    if not is_plain():
        client.schema = kept.read()
    telemetry.initialize()
    await connection.connect()
    version = await dagger.dag.version()
    if version != kept.version and not is_plain():
        if not client.introspection:
            await client.session.fetch_schema()
        kept.keep(version, client.introspection)
    return connection, version


def is_plain() -> bool:
    """Return whether the SDK is to do everything its own way, to compare."""
    return bool(os.environ.get(PLAIN_VARIABLE))


class _Schema:
    """What the engine said of its language, for one version of the SDK.

    Args:
        file: Where it is kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.version = ""

    @classmethod
    def of_sdk(cls) -> _Schema:
        parts = (importlib.metadata.version(name) for name in ("dagger-io", "graphql-core"))
        return cls(cache_home() / "penstock" / f"schema-{'-'.join(parts)}.json")

    def read(self) -> Any:  # noqa: ANN401 - a class of graphql's, which is not imported for its name
        """Return the schema, if it is here whole."""
        from graphql import build_client_schema

        with suppress(Exception):  # whatever is wrong with it, it is made again
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            schema = build_client_schema(kept["introspection"])
            self.version = kept["version"]
            return schema
        return None

    def keep(self, version: str, introspection: Any) -> None:  # noqa: ANN401 - as graphql types it
        """Keep it for the next run, if that is possible here."""
        text = json.dumps({"version": version, "introspection": introspection}, default=_name)
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, text)


def _name(constant: Any) -> str:  # noqa: ANN401 - an enum of graphql's
    return str(constant.name)


@contextmanager
def _lean() -> Iterator[None]:
    """Have what is imported in here do without what a run does not need."""
    if is_plain() or "dagger" in sys.modules:
        yield
        return
    import beartype

    before = beartype.beartype
    missing = [name for name in UNNEEDED if name not in sys.modules]
    beartype.beartype = _lazy(before)
    sys.modules |= dict.fromkeys(missing)  # type: ignore[arg-type]  # Python's way to say "there is none"
    try:
        yield
    finally:
        beartype.beartype = before
        for name in missing:
            sys.modules.pop(name, None)


def _lazy(beartype: Any) -> Callable[..., Any]:  # noqa: ANN401 - its overloads are beartype's own
    """Return a decorator of classes that makes a method's checks when it is first called.

    The SDK has 800 methods, a run calls thirty.
    """

    def configured(*function: Any, **options: Any) -> Any:  # noqa: ANN401 - beartype's own
        check = beartype(*function, **options)
        if function:
            return check

        def decorate(cls: type) -> type:
            for name, member in list(vars(cls).items()):
                if isinstance(member, FunctionType):
                    setattr(cls, name, _checked_at_first(cls, name, member, check))
            return cls

        return decorate

    return configured


def _checked_at_first(
    cls: type, name: str, method: FunctionType, check: Callable[[Any], Any]
) -> Callable[..., Any]:
    from typing import Self

    checked: Callable[..., Any] | None = None

    @functools.wraps(method)
    def first(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the method takes
        nonlocal checked
        if checked is None:
            # Outside its class, beartype cannot know what `Self` is.
            hints = method.__annotations__.items()
            method.__annotations__ = {key: cls if hint is Self else hint for key, hint in hints}
            checked = check(method)
            if vars(cls).get(name) is first:  # nobody has put another one in its place
                setattr(cls, name, checked)
        return checked(*args, **kwargs)

    return first
