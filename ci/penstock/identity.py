"""What would be the same thing on another machine: one digest of all that a result can depend on.

Files count by their content, images by their digest, everything else by what the author wrote. A
value that depends on something beyond that has no identity.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import penstock
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.query import Queries

# Where a query may begin. Of what begins elsewhere (a secret, a socket, a module) the query does not
# tell all; of its files and folders (of the host, from git) the content does.
BEGINNINGS = frozenset({"container", "directory", "file", "cacheVolume"})
VOLATILE = "withVolatileVariable"  # its value is none that a result may depend on
_PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")


class NoIdentityError(PenstockError):
    """Raised when a value depends on more than can be told.

    Args:
        reason: On what.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass
class Identities:
    """The identities of one run's containers and commands.

    Args:
        queries: What they were made from.
    """

    queries: Queries
    _digests: dict[tuple[object, ...], str] = field(default_factory=dict)
    _images: dict[str, str] = field(default_factory=dict)

    async def of(self, *values: object) -> str:
        """Return the identity of some values, taken together.

        Raises:
            NoIdentityError: When they have none.
        """
        from dagger import dag

        # How the engine digests files may be another way in its next version.
        around = [penstock.__version__, await dag.version(), await dag.default_platform()]
        tree = [*around, await self._told(list(values))]
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    async def _told(self, value: object) -> Any:  # noqa: ANN401 - what JSON knows
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list() | tuple():
                return [await self._told(each) for each in value]
            case Mapping():
                return [[name, await self._told(each)] for name, each in sorted(value.items())]
            case _ if hasattr(value, "_ctx"):
                return await self._query(value)
            case _ if is_dataclass(value):
                named = {f.name: getattr(value, f.name) for f in fields(value)}
                return [type(value).__name__, await self._told(named)]
        message = f"it was given a {type(value).__name__}"
        raise NoIdentityError(message)

    async def _query(self, value: Any) -> Any:  # noqa: ANN401 - an object of the SDK
        import dagger

        steps = list(value._ctx.selections)  # noqa: SLF001 - there is no other way to a query
        begins = steps[0].name
        if begins == "node":
            return await self._loaded(value, steps)
        if begins in BEGINNINGS:
            return [type(value).__name__, *[await self._step(step) for step in steps]]
        if isinstance(value, dagger.Directory | dagger.File):
            return await self._content(value, steps)
        message = f"it takes a {type(value).__name__} by `{begins}`"
        raise NoIdentityError(message)

    async def _loaded(self, value: object, steps: list[Any]) -> Any:  # noqa: ANN401 - what JSON knows
        """Return what tells an object that the engine gave back: what it was made from."""
        import dagger

        origin = self.queries.given(steps[0])["id"]
        if not isinstance(origin, str):
            return [await self._told(origin), *[await self._step(step) for step in steps[1:]]]
        if isinstance(value, dagger.Directory | dagger.File):
            return await self._content(value, steps)
        message = "it takes what was evaluated outside a stage"
        raise NoIdentityError(message)

    async def _step(self, step: Any) -> Any:  # noqa: ANN401 - a class of the SDK's own
        from dagger import dag

        given = self.queries.given(step)
        schema: Any = await dag._ctx.conn.session.get_schema()  # noqa: SLF001 - as the SDK has it
        kinds = schema.type_map[step.type_name].fields[step.name].args
        ids = [given[name] for name, kind in kinds.items() if name in given and _is_id(kind)]
        if any(isinstance(one, str) for each in ids for one in _several(each)):
            message = "it takes what was evaluated before it was seen"
            raise NoIdentityError(message)
        if given.get("experimentalPrivilegedNesting"):
            message = "it may ask the engine itself"
            raise NoIdentityError(message)
        if step.name == VOLATILE:
            given = {"name": given["name"]}
        elif step.name == "from":
            given = {**given, "address": await self._pinned(given["address"])}
        return [step.name, await self._told(given)]

    async def _content(self, value: Any, steps: list[Any]) -> str:  # noqa: ANN401 - files of the SDK
        import dagger
        from dagger import dag

        self.queries.keep(value)
        key = tuple((step.name, id(step.args)) for step in steps)
        if key not in self._digests:
            if isinstance(
                value, dagger.File
            ):  # whose own digest is a weak one, or without its mode
                value = dag.directory().with_file("file", value)
            try:
                self._digests[key] = await value.digest()
            except dagger.QueryError as error:
                message = f"its files cannot be read: {error}"
                raise NoIdentityError(message) from error
        return self._digests[key]

    async def _pinned(self, address: str) -> str:
        """Return an image's name with the digest that it has today."""
        import dagger
        from dagger import dag

        if _PINNED.search(address):
            return address
        if address not in self._images:
            try:
                self._images[address] = await dag.container().from_(address).image_ref()
            except dagger.QueryError as error:
                message = f"the image {address} cannot be looked up"
                raise NoIdentityError(message) from error
        return self._images[address]


def _is_id(kind: Any) -> bool:  # noqa: ANN401 - of the schema
    return str(kind.type).strip("[]!") == "ID"


def _several(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]
