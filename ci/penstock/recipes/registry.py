"""Where images go: the team's registry from the default branch in CI, a rehearsal everywhere else."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from penstock.again import patiently
from penstock.causes import cause
from penstock.errors import RegistryError
from penstock.model import Health, Service
from penstock.services import as_dagger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import dagger

    from penstock.config import RunInfo
    from penstock.services import ServicePool
    from penstock.state import State

REHEARSAL_IMAGE = "registry:2"
REHEARSAL_HOST = "localhost:5000"  # under any other name the engine insists on TLS


@dataclass
class Registry:
    """The registry of a run; stages take it as `registry`.

    Args:
        run: Decides whether this is the real thing.
        name: Of the image, when `IMAGE_NAME` does not say another.
        pool: Runs the registry of a rehearsal.
        state: Remembers what was rehearsed.
        environ: `REGISTRY`, `IMAGE_NAME`, `REGISTRY_USER` and `REGISTRY_TOKEN`.
        notes: One line for each reference that was pushed.
        was_rehearsed: This very image was rehearsed before and not again.

    Example:
        >>> pipeline = Pipeline("shop")
        >>> @pipeline.stage
        ... async def push(registry, commit):
        ...     return await registry.push(container, tags=[commit, "latest"])
    """

    run: RunInfo
    name: str
    pool: ServicePool
    state: State
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    notes: list[str] = field(default_factory=list)
    was_rehearsed: bool = False

    @property
    def is_real(self) -> bool:
        """Whether images leave this machine."""
        given = all(self.environ.get(name) for name in ("REGISTRY", "IMAGE_NAME", "REGISTRY_TOKEN"))
        return self.run.ci and self.run.on_default_branch and given

    async def push(self, image: dagger.Container, *, tags: Sequence[str]) -> list[str]:
        """Publish an image under every tag, pull it back by digest, return the references.

        Only the default branch in CI, with `REGISTRY`, `IMAGE_NAME` and `REGISTRY_TOKEN`, reaches
        the real registry. Everywhere else a throw-away registry in the engine takes the push,
        once per image. A registry that is down or busy is asked again; see `retries` of a stage.

        Raises:
            RegistryError: When the registry refuses or breaks off, or the tags do not lead to one
                and the same digest.
        """
        references = await (self._publish if self.is_real else self._rehearse)(image, tags)
        words = "Pushed" if self.is_real else "Pushed (rehearsal)"
        self.notes += [f"{words}: {reference}" for reference in references]
        return references

    async def _publish(self, image: dagger.Container, tags: Sequence[str]) -> list[str]:
        from dagger import dag

        host = self.environ["REGISTRY"]
        user = self.environ.get("REGISTRY_USER") or self.environ.get("GITHUB_ACTOR", "penstock")
        token = dag.set_secret("registry.token", self.environ["REGISTRY_TOKEN"])
        repository = f"{host}/{self.environ['IMAGE_NAME'].lower()}"
        return await _push(
            image.with_registry_auth(host, user, token),
            dag.container().with_registry_auth(host, user, token),
            [f"{repository}:{tag}" for tag in tags],
        )

    async def _rehearse(self, image: dagger.Container, tags: Sequence[str]) -> list[str]:
        from dagger import dag

        content = await patiently(image.rootfs().digest)
        identity = f"{content} {await image.id()} {' '.join(tags)}"
        if known := self.state.rehearsed.get(identity):
            self.was_rehearsed = True
            return known
        service = Service(
            container=dag.container().from_(REHEARSAL_IMAGE),
            port=int(REHEARSAL_HOST.rpartition(":")[2]),
            health=Health(interval_s=5.0),
            name="registry",
        )
        async with self.pool.rehearsing:
            await self.pool.prepare([service])
            await self.pool.start([service])
            try:
                references = await _push(
                    image,
                    dag.container(),
                    [f"{REHEARSAL_HOST}/{self.name}:{tag}" for tag in tags],
                    as_dagger(service, self.pool.live),
                )
            finally:
                self.pool.release(service.key)
        self.state.rehearsed[identity] = references
        return references


async def _push(
    image: dagger.Container,
    puller: dagger.Container,
    references: Sequence[str],
    registry: dagger.Service | None = None,
) -> list[str]:
    """Publish under every reference, then pull each back and compare digests."""

    async def publish(reference: str) -> str:
        with _naming(reference):
            return await image.publish(reference, registry_service=registry)

    digests: dict[str, str] = {}
    for reference in references:
        published = await patiently(partial(publish, reference))
        digests[reference] = published.rpartition("@")[2]
    if len(set(digests.values())) != 1:
        message = f"the tags do not lead to one digest: {digests}"
        raise RegistryError(message)
    repository = references[0].rpartition(":")[0]
    digest = digests[references[0]]
    await patiently(puller.from_(f"{repository}@{digest}", registry_service=registry).sync)
    for reference in references:
        pulled = await patiently(puller.from_(reference, registry_service=registry).image_ref)
        if not pulled.endswith(digest):
            message = f"{reference} was pushed as {digest} and came back as {pulled}"
            raise RegistryError(message)
    return list(references)


@contextmanager
def _naming(reference: str) -> Iterator[None]:
    """Name what was pushed, and where: of some refusals the engine tells neither."""
    import dagger

    try:
        yield
    except dagger.ExecError:
        raise  # a command that the image is made by
    except dagger.QueryError as error:
        why = cause(str(error), pushed=reference)
        if why.words.startswith(f"cannot push {reference}"):
            raise RegistryError(why.words, why.fault) from error
        raise
