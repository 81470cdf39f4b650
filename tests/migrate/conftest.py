"""The store that is imported into."""

from __future__ import annotations

import pytest

from parts.redisserver import Redis


@pytest.fixture(scope="module")
def redis():
    """A Redis for all tests of a module."""
    with Redis() as server:
        yield server
