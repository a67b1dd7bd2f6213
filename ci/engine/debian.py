"""Debian packages: what the host lacks, and root file systems for images."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from engine import place, state
from engine.errors import MachineError
from engine.steps import Step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.steps import Log

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LEFT_OUT = ("doc", "man", "locale", "info", "lintian")


def packages_step(programs: dict[str, str]) -> Step:
    """Return the step that installs what the host lacks.

    Args:
        programs: Program to look for, and the package that has it.
    """
    missing = [package for program, package in programs.items() if not shutil.which(program)]
    title = f"Debian packages {', '.join(missing)}"
    return Step("apt", title, lambda log: _install(missing, log), lambda: not missing)


def _install(packages: Sequence[str], log: Log) -> None:
    if not shutil.which("apt-get"):
        message = f"this machine has no apt-get to install {', '.join(packages)}"
        advice = "install Docker by hand, or name a running engine by `--engine URL`"
        raise MachineError(message, advice)
    if os.geteuid() != 0:
        message = f"installing {', '.join(packages)} needs root"
        advice = f"run `apt-get install {' '.join(packages)}` as root once, or run this as root"
        raise MachineError(message, advice)
    before = _installed()
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    _fetch_lists()
    log.run(["apt-get", "install", "-y", "--no-install-recommends", *packages], env=quiet)
    made = state.read().get("apt_installed", [])
    state.remember(apt_installed=sorted({*made, *(_installed() - before)}))


def _fetch_lists() -> None:
    """Bring apt's lists up to date; a foreign source that fails must not stop us."""
    subprocess.run(["apt-get", "update"], capture_output=True, check=False)


def _installed() -> set[str]:
    words = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in listed.splitlines() if line.startswith("ii")}


def purge(log: Log) -> None:
    """Remove the packages that this tool installed, and no others."""
    if made := sorted(set(state.read().get("apt_installed", [])) & _installed()):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        log.run(["apt-get", "purge", "-y", *made], env=quiet)


def make_root(packages: Sequence[str], hooks: Sequence[str], target: Path, log: Log) -> None:
    """Make the file system of an image as a tar file.

    Args:
        packages: Debian packages beyond the minimum.
        hooks: Shell lines run at the end, `$1` being the root.
        target: The tar file.
        log: Takes the output.
    """
    beside = target.with_name(f".{target.stem}.{os.getpid()}.tar")
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    clean = 'rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'
    log.run(
        [
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            '--aptopt=Apt::Install-Recommends "false"',
            *options,
            *(f"--customize-hook={hook}" for hook in (*hooks, clean)),
            SUITE,
            beside,
            "-",
        ],
        text=_sources(),
        env={"TMPDIR": str(_scratch())},
    )
    beside.rename(target)


def _scratch() -> Path:
    scratch = place.home() / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch


def _sources() -> str:
    """Return the machine's own Debian sources, whatever mirror its company uses."""
    shown = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
            "Origin: Debian",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {tuple(line.split()) for line in shown.stdout.splitlines()}
    lines = [
        f"deb [signed-by={KEYRING}] {uri} {release} {component}"
        for uri, release, component in sorted(found)
        if release.startswith(SUITE)
    ]
    if not lines:
        message = f"apt knows no Debian {SUITE} source to build images from"
        raise MachineError(message, "run `apt-get update`; on another system use `--engine URL`")
    return "\n".join(lines) + "\n"
