"""The team's cache for engines that begin empty: images in a registry, by the hash of their inputs.

Nothing in here is needed: a registry that is down or refuses costs time, never a verdict.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import anyio

from penstock.causes import cause
from penstock.errors import UsageError
from penstock.events import BasePrepared, Event, Warned
from penstock.identity import NoIdentityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import dagger

    from penstock.identity import Identities

VARIABLE = "PENSTOCK_CACHE"
# For an answer, for an image, and for all that a run leaves: an export must never hold up a runner.
ASK_S, PULL_S, EXPORT_S = 10.0, 120.0, 120.0
AT_A_TIME = 4
_NAME = re.compile(r"[a-z0-9.-]+(?::\d+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+")
_MISSING = re.compile(r": not found\b|(?:manifest|name) unknown")
_REFUSED = re.compile(r"\b40[13] |denied|unauthorized|authorization failed", re.IGNORECASE)


@dataclass(frozen=True)
class Repository:
    """Where the cache lies.

    Args:
        name: `HOST/PATH`, without a tag.
        user: Who writes and reads there.
        token: The user's; without one it is whatever login the engine's client has.
    """

    name: str
    user: str = ""
    token: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """The registry's."""
        return self.name.partition("/")[0]

    @classmethod
    def discover(cls, environ: Mapping[str, str]) -> Self | None:
        """Read `PENSTOCK_CACHE`; the login of the registry is for its own host only.

        Raises:
            UsageError: When no image could have such a name.
        """
        if not (name := environ.get(VARIABLE, "")):
            return None
        if not _NAME.fullmatch(name):
            message = (
                f"{VARIABLE} wants a registry's repository in lower case, without a tag, like "
                f"`registry.example/team/app/cache`, not {name!r:.80}"
            )
            raise UsageError(message)
        if name.partition("/")[0] != environ.get("REGISTRY", "").partition("/")[0]:
            return cls(name)
        user = environ.get("REGISTRY_USER") or environ.get("GITHUB_ACTOR", "penstock")
        return cls(name, user, environ.get("REGISTRY_TOKEN", ""))


@dataclass
class Cache:
    """The cache, as one run uses it.

    Args:
        repository: Where it lies.
        identities: Tell what is the same thing.
        emit: Takes what people should know.
    """

    repository: Repository
    identities: Identities
    emit: Callable[[Event], None]
    news: dict[str, dagger.Container] = field(default_factory=dict)
    """What this run has made, by the tag under which it is to be kept."""
    _reads: bool = True
    _writes: bool = True
    _bases: dict[str, dagger.Container] = field(default_factory=dict)
    _locks: dict[str, anyio.Lock] = field(default_factory=lambda: defaultdict(anyio.Lock))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let `prepared` look here."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    async def find(self, tag: str) -> dagger.Container | None:
        """Return an image of the cache, if it is there and can be had."""
        import dagger
        from dagger import dag

        if not self._reads:
            return None
        image = self._known(dag.container()).from_(f"{self.repository.name}:{tag}")
        try:
            with anyio.fail_after(ASK_S):
                await image.image_ref()
        except TimeoutError:
            self._give_up(f"no answer within {ASK_S:g} s")
        except dagger.QueryError as error:
            if not _MISSING.search(str(error)):
                self._give_up(cause(str(error)).words, refused=bool(_REFUSED.search(str(error))))
        else:
            return image
        return None

    async def base(self, container: dagger.Container) -> dagger.Container:
        """Return a container from the cache; else make it, for the cache to keep."""
        try:
            tag = f"base-{await self.identities.of(container)}"
        except NoIdentityError:
            return container
        async with self._locks[tag]:
            if tag not in self._bases:
                self._bases[tag] = await self._pulled(tag) or await self._made(tag, container)
            return self._bases[tag]

    async def _pulled(self, tag: str) -> dagger.Container | None:
        import dagger

        began = time.monotonic()
        if not (image := await self.find(tag)):
            return None
        try:
            with anyio.fail_after(PULL_S):
                # Whole, and now: what breaks off in the middle of a stage would be the stage's end.
                pulled = await image.sync()
        except TimeoutError:
            self._give_up(f"{tag} was not there within {PULL_S:g} s")
        except dagger.QueryError as error:
            self._give_up(cause(str(error)).words)
        else:
            self._say(tag, began, is_pulled=True)
            return pulled
        return None

    async def _made(self, tag: str, container: dagger.Container) -> dagger.Container:
        began = time.monotonic()
        self.news[tag] = made = await container.sync()
        self._say(tag, began, is_pulled=False)
        return made

    def _say(self, tag: str, began: float, *, is_pulled: bool) -> None:
        took = time.monotonic() - began
        self.emit(BasePrepared(base=tag[:17], is_pulled=is_pulled, duration_s=took))

    def _give_up(self, why: str, *, refused: bool = False) -> None:
        """Ask no more; who may not read may still be the one who is to write first."""
        if self._reads:
            self._reads, self._writes = False, refused
            self.emit(Warned(message=f"the cache {self.repository.name} is not used: {why}"))

    async def export(self) -> str:
        """Keep what is new, within bounds, and return what became of it in words."""
        if not (self.news and self._writes):
            return ""
        began = time.monotonic()
        kept: list[str] = []
        words = ""
        slots = anyio.Semaphore(AT_A_TIME)

        async def keep(tag: str, image: dagger.Container) -> None:
            async with slots:
                await self._publish(tag, image)
                kept.append(tag)

        with anyio.move_on_after(EXPORT_S) as scope:
            try:
                async with anyio.create_task_group() as tasks:
                    # The small ones first, so that they are there when time runs out.
                    for tag, image in sorted(self.news.items(), reverse=True):
                        tasks.start_soon(keep, tag, image)
            except* Exception as errors:  # noqa: BLE001 - the verdict is said, and stands
                text = str(_first(errors))
                words = "no access to write" if _REFUSED.search(text) else cause(text).words
        if scope.cancelled_caught:
            words = f"not done within {EXPORT_S:g} s"
        done = ", ".join(
            f"{sum(kind in tag for tag in kept)} of {many} {kind}s kept"
            for kind in ("base", "verdict")
            if (many := sum(kind in tag for tag in self.news))
        )
        took = time.monotonic() - began
        return f"cache {self.repository.name}: {done}, {took:.1f} s{words and '; '}{words}"

    async def _publish(self, tag: str, image: dagger.Container) -> None:
        """Publish with Zstandard's layers, or as the registry likes it."""
        import dagger

        name = f"{self.repository.name}:{tag}"
        image = self._known(image)
        packed = dagger.ImageLayerCompression
        oci = dagger.ImageMediaTypes.OCIMediaTypes
        try:
            await image.publish(name, forced_compression=packed.Zstd, media_types=oci)
        except dagger.QueryError as error:
            why = cause(str(error), pushed=name)
            if why.fault == "registry" or _REFUSED.search(str(error)):
                raise
            # Said, as the engine would send what it has packed already.
            await image.publish(name, forced_compression=packed.Gzip)

    def _known(self, container: dagger.Container) -> dagger.Container:
        """Return a container with the login that the registry wants."""
        from dagger import dag

        if not (token := self.repository.token):
            return container
        secret = dag.set_secret("cache.token", token)
        return container.with_registry_auth(self.repository.host, self.repository.user, secret)


_active: ContextVar[Cache | None] = ContextVar("cache", default=None)


def prepared(container: dagger.Container) -> dagger.Container:
    """Return a container that the team's cache keeps, with all that was done to it.

    Where `PENSTOCK_CACHE` names a repository, and has the image under the hash of its inputs, that
    image is pulled when the container is first needed; else it is made, and kept for the next engine.
    What is mounted, a cache volume say, is no part of an image: take it off before.

    Args:
        container: What takes long to make, and changes seldom.
    """
    import dagger

    if not (cache := _active.get()):
        return container
    chosen = dagger.Container(container._ctx)  # noqa: SLF001 - there is no other way to a query

    async def chosen_id() -> str:
        return await (await cache.base(container)).id()

    # The SDK asks an argument for its id when the query that it is in is sent, and not before.
    chosen.id = chosen_id  # type: ignore[method-assign]  # see `services.as_dagger`
    return dagger.Container(container._ctx.select_id("Container", chosen))  # type: ignore[arg-type]  # noqa: SLF001 - as above


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first of several errors, at whatever depth."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
