"""The two hosts, started once."""

from __future__ import annotations

import pytest

from page.world import world


@pytest.fixture(scope="session")
def hosts(browser):
    """Two hosts whose pages know of all their traffic."""
    with world() as running:
        running.settled()
        yield running
