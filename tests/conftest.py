"""Fixtures of all tests; its presence also puts this folder on the path, so that tests can import `parts`."""

from __future__ import annotations

import os

import pytest

from parts.browser import Browser, missing


@pytest.fixture(scope="session")
def browser():
    """A Chromium, one for all: a thread can have but one.

    Without one the tests are skipped, and in continuous integration they fail.
    """
    if reason := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with Browser() as running:
        yield running
