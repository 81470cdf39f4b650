"""Fixtures of all tests; its presence also puts this folder on the path, so that tests can import `parts`."""

from __future__ import annotations

import os
import signal

import pytest

from parts.browser import Browser, missing

# In the background of a script Ctrl-C is ignored, and would be by all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def browser():
    """A Chromium, one for all: a thread can have but one.

    Without one the tests are skipped, and in continuous integration they fail.
    """
    if reason := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with Browser() as running:
        yield running
