"""Real servers, and what a store on one tells."""

from __future__ import annotations

import pytest

from parts.redisserver import Redis


class Changes:
    """What the store told its owner."""

    def __init__(self):
        self.seen = []

    def __call__(self, available, reason):
        self.seen.append((available, reason))


@pytest.fixture(scope="module")
def secured():
    with Redis(tls=True, user="grey", password="p@ss:w/rd%41") as part:  # to be escaped in URLs
        yield part


@pytest.fixture
def server():
    with Redis() as part:
        yield part


@pytest.fixture
def changes():
    return Changes()
