"""The store that the history is in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from hybridgrey.store.connection import Store
from parts.redisserver import Redis


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as part:
        yield part


@pytest.fixture
def store(server: Redis) -> Iterator[Store]:
    """An empty one."""
    with server.client() as client:
        client.flushall()
    with contextlib.closing(Store.open(server.unix_url, 5.0)) as made:
        yield made
