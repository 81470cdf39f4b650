"""The browser and the two hosts, started once."""

from __future__ import annotations

import os

import pytest

from page.world import world
from parts.browser import Browser, missing


@pytest.fixture(scope="session")
def browser():
    """A Chromium; without one the tests are skipped, and in continuous integration they fail."""
    if reason := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with Browser() as running:
        yield running


@pytest.fixture(scope="session")
def hosts(browser):
    """Two hosts whose pages know of all their traffic."""
    with world() as running:
        running.settled()
        yield running
