"""What every test may take."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, which the Dagger SDK needs."""
    return "asyncio"
