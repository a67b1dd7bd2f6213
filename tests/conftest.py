"""What every test may take, and the page of faults that they measure."""

from __future__ import annotations

import pytest

from tests.faults import FaultPage, measured

__all__ = ["measured"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, which the Dagger SDK needs."""
    return "asyncio"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes `docs/faults.md`."""
    parser.addoption("--faults", metavar="FILE", help="write what the tests of faults measured")


def pytest_configure(config: pytest.Config) -> None:
    """Have the faults that tests measure collected."""
    config.pluginmanager.register(FaultPage(config), "fault-page")
