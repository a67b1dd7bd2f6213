"""Stages of another module, as a team would share them."""

from __future__ import annotations


def shared_lint(nowhere: object) -> None:
    """Lint as everywhere."""
    del nowhere
