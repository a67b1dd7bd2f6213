"""What is believed of a registry: nothing that it does not give back.

The registry here is a double, as no real one lies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from penstock import Registry as Ours
from penstock.config import RunInfo
from penstock.errors import RegistryError
from penstock.recipes.registry import _push
from penstock.state import State

HONEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
REFERENCES = ["ghcr.io/o/app:one", "ghcr.io/o/app:latest"]


@dataclass
class Registry:
    """A registry, which is asked as image and as puller; it answers with a digest for each tag."""

    published: dict[str, str] = field(default_factory=dict)
    pulled: dict[str, str] = field(default_factory=dict)
    asked: str = ""

    async def publish(self, reference: str, **_: object) -> str:
        return f"{reference}@{self.published.get(reference, HONEST)}"

    def from_(self, reference: str, **_: object) -> Self:
        self.asked = reference
        return self

    async def sync(self) -> Self:
        return self

    async def image_ref(self) -> str:
        return f"{self.asked}@{self.pulled.get(self.asked, HONEST)}"


async def push(registry: Any) -> list[str]:  # noqa: ANN401 - stands for two classes of the SDK
    return await _push(registry, registry, REFERENCES)


async def test_honest_registry_is_believed() -> None:
    """Every tag leads to what was pushed."""
    assert await push(Registry()) == REFERENCES


async def test_tags_that_lead_to_different_images_are_an_error() -> None:
    """A registry that answers one push with another digest is not believed."""
    with pytest.raises(RegistryError, match="the tags do not lead to one digest"):
        await push(Registry(published={REFERENCES[1]: OTHER}))


async def test_tag_that_gives_another_image_back_is_an_error() -> None:
    """What it said at the push does not count."""
    with pytest.raises(RegistryError, match=rf"app:latest was pushed as {HONEST} and came back as"):
        await push(Registry(pulled={REFERENCES[1]: OTHER}))


@pytest.mark.parametrize(
    ("ci", "default", "left_out", "is_real"),
    [
        (True, True, "", True),
        (False, True, "", False),
        (True, False, "", False),
        (True, True, "REGISTRY", False),
        (True, True, "IMAGE_NAME", False),
        (True, True, "REGISTRY_TOKEN", False),
    ],
)
def test_only_a_push_to_the_default_branch_reaches_the_real_one(
    *, ci: bool, default: bool, left_out: str, is_real: bool
) -> None:
    """On a CI host, with all that it takes; everything else is a rehearsal."""
    run = RunInfo(id="", root=Path(), commit="", branch="", ci=ci, on_default_branch=default)
    environ = dict.fromkeys(("REGISTRY", "IMAGE_NAME", "REGISTRY_TOKEN"), "x")
    nothing: Any = None  # of the engine is asked
    registry = Ours(run, "", nothing, State(Path()), environ | {left_out: ""})
    assert registry.is_real is is_real
