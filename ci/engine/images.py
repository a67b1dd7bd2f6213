"""The images that are made from Debian packages: the engine's own root and honest stand-ins."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from engine import debian, docker, place, state
from engine.steps import Step

if TYPE_CHECKING:
    from engine.steps import Log

STANDARD_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def table() -> dict[str, dict[str, Any]]:
    """Return the table of images."""
    return tomllib.loads((place.HERE / "images.toml").read_text())


def references(name: str) -> list[str]:
    """Return the official names that an image stands in for."""
    found: list[str] = table()[name].get("references", [])
    return found


def wanted(name: str) -> str:
    """Return the stamp of an image that is up to date."""
    return place.digest(json.dumps(table()[name]), STANDARD_PATH, place.HERE / "files")


def local(name: str) -> str:
    """Return an image's name in Docker."""
    return f"penstock/{name}:built"


def step(name: str) -> Step:
    """Return the step that makes an image."""

    def is_done() -> bool:
        return state.stamp(f"image-{name}") == wanted(name) and _is_there(name)

    return Step(
        f"image-{name}",
        f"Image {name}, from Debian packages",
        lambda log: _make(name, log),
        is_done,
        ("dockerd",),
        usual_s=100,
        disk_bytes=500_000_000,
    )


def _is_there(name: str) -> bool:
    """Return whether Docker has an image; while it is down, believe the stamp.

    Steps are looked at again once those that they need are done, the daemon among them.
    """
    return docker.image_exists(local(name)) or not docker.is_alive()


def _make(name: str, log: Log) -> None:
    entry = table()[name]
    root = place.scratch() / f"{name}.tar"
    hooks = [
        f'install -D -m755 "{place.HERE / "files" / source}" "$1/{target}"'
        for source, target in entry.get("files", {}).items()
    ]
    debian.make_root(entry["packages"], [*hooks, *entry.get("hooks", ())], root, log)
    official = entry.get("references", ["the Dagger engine"])[0].removeprefix("library/")
    words = f"Debian stand-in for {official}, built by penstock"
    changes = (
        f'LABEL org.opencontainers.image.description="{words}"',
        f"ENV PATH={STANDARD_PATH}",
        *entry.get("changes", ()),
    )
    options = [word for change in changes for word in ("--change", change)]
    log.run(["docker", "import", *options, root, local(name)])
    remember(local(name))
    root.unlink()
    state.set_stamp(f"image-{name}", wanted(name))


def remember(reference: str) -> None:
    """Note what was made, for its removal: a newer image takes only its name."""
    state.add("images", **{docker.image_id(reference): reference})
