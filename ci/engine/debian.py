"""Debian packages: what the host lacks, and root file systems for images."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from engine import place, state
from engine.errors import MachineError, StepError
from engine.steps import Step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.steps import Log

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
QUIET = {"DEBIAN_FRONTEND": "noninteractive"}
LEFT_OUT = ("doc", "man", "locale", "info", "lintian")


def packages_step(programs: dict[str, str]) -> Step:
    """Return the step that installs what the host lacks.

    Args:
        programs: Program to look for, and the package that has it.
    """
    missing = {package for program, package in programs.items() if not shutil.which(program)}
    missing |= {*state.read().get("apt_unfinished", [])}
    title = f"Debian packages {', '.join(sorted(missing))}"
    return Step(
        "apt", title, lambda log: _install(sorted(missing), log), lambda: not missing, usual_s=20
    )


def _install(packages: Sequence[str], log: Log) -> None:
    if not shutil.which("apt-get"):
        message = f"this machine has no apt-get to install {', '.join(packages)}"
        advice = "install Docker by hand, or name a running engine by `--engine URL`"
        raise MachineError(message, advice)
    if os.geteuid() != 0:
        message = f"installing {', '.join(packages)} needs root"
        advice = f"run `apt-get install {' '.join(packages)}` as root once, or run this as root"
        raise MachineError(message, advice)
    _finish_killed(log)
    with suppress(StepError):  # a foreign source that fails must not stop us
        log.run(["apt-get", "update"])
    words = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    made = {*state.read().get("apt_installed", []), *_new_ones(words)}
    state.remember(apt_installed=sorted(made), apt_unfinished=packages)
    log.run(words, env=QUIET)
    state.remember(apt_unfinished=[])


def _finish_killed(log: Log) -> None:
    """Let dpkg finish what it was killed in; until then apt-get refuses everything."""
    log.run(["dpkg", "--configure", "-a"], env=QUIET)


def _new_ones(install: Sequence[str]) -> set[str]:
    """Return what a call of apt-get would add to this machine."""
    plan = subprocess.run([*install, "--simulate"], capture_output=True, text=True, check=False)
    named = {line.split()[1] for line in plan.stdout.splitlines() if line.startswith("Inst ")}
    return named - _installed()


def _installed() -> set[str]:
    """Return the packages that are there, whole or not."""
    words = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    pairs = (line.split() for line in listed.splitlines())
    return {name for status, name in pairs if status not in {"not-installed", "config-files"}}


def installed_by_us() -> list[str]:
    """Return the packages that this tool installed, whole or not, and that are still there."""
    made = {*state.read().get("apt_installed", [])}
    return sorted(made & _installed()) if made else []


def purge(log: Log) -> None:
    """Remove the packages that this tool installed, and no others."""
    if made := installed_by_us():
        _finish_killed(log)
        log.run(["apt-get", "purge", "-y", *made], env=QUIET)


def make_root(packages: Sequence[str], hooks: Sequence[str], target: Path, log: Log) -> None:
    """Make the file system of an image as a tar file.

    Args:
        packages: Debian packages beyond the minimum.
        hooks: Shell lines run at the end, `$1` being the root.
        target: The tar file.
        log: Takes the output.
    """
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
            target,
            "-",
        ],
        text=_sources(),
        env={"TMPDIR": str(place.scratch())},
    )


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
