"""Debian packages of the host: what is installed, and what goes again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from engine import debian, state
from engine.errors import StepError
from engine.steps import Log

if TYPE_CHECKING:
    from tests.machine.fakes import Machine

PLAN = """
case "$*" in
*--simulate*) echo "Inst docker.io (20.10 Debian:12)"; echo "Inst runc [1.1.4] (1.1.5 Debian:12)" ;;
install*) exit {code} ;;
esac
"""


@pytest.fixture
def apt(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Root on a Debian that has runc, and will have docker.io after an install."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine.program("apt-get", PLAN.format(code=0))
    machine.program("dpkg")
    machine.program("dpkg-query", "echo installed runc")
    return machine


def test_packages_are_noted_before_they_are_installed(apt: Machine) -> None:
    """An install that is killed leaves nothing that `remove` would not find."""
    apt.program("apt-get", PLAN.format(code=137))
    with pytest.raises(StepError):
        debian.packages_step({"no-such-program": "docker.io"}).run(Log("apt"))
    apt.program("dpkg-query", "echo half-configured docker.io")
    debian.purge(Log("remove"))
    assert apt.calls[-1] == "apt-get purge -y docker.io"


def test_package_that_was_there_is_not_ours(apt: Machine) -> None:
    """Even if the install brings a newer version of it."""
    debian.packages_step({"no-such-program": "docker.io"}).run(Log("apt"))
    assert state.read()["apt_installed"] == ["docker.io"]
    apt.program("dpkg-query", "echo installed docker.io; echo installed runc")
    debian.purge(Log("remove"))
    assert apt.calls[-1] == "apt-get purge -y docker.io"


@pytest.mark.usefixtures("apt")
def test_killed_install_is_not_taken_for_done() -> None:
    """The program may be there and its package half-configured."""
    state.remember(apt_unfinished=["docker.io"])
    step = debian.packages_step({"sh": "dash"})
    assert not step.is_done()
    step.run(Log("apt"))
    assert debian.packages_step({"sh": "dash"}).is_done()


def test_dpkg_finishes_what_it_was_killed_in_first(apt: Machine) -> None:
    """Before that apt-get refuses every install."""
    debian.packages_step({"no-such-program": "docker.io"}).run(Log("apt"))
    assert apt.calls[0] == "dpkg --configure -a"


def test_machine_without_our_packages_is_not_asked(apt: Machine) -> None:
    """Removal on a system that has no dpkg works."""
    debian.purge(Log("remove"))
    assert apt.calls == []
