"""Fixtures of all tests; its presence also puts this folder on the path, so that tests can import `parts`."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

# In the background of a script Ctrl-C is ignored, and would be by all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SUITES = ("mta", "field", "faults", "page", "guides", "install", "upgrade", "harness")
"""Folders whose tests are about real servers."""

_NO_SERVER = r"(?:base|configfile|greyterms)\b"
_SERVERS = re.compile(rf"^from (?:parts|faults)(?:\.(?!{_NO_SERVER})\w+)? import", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--unit`` leaves out all test modules that start servers or processes of their own."""
    parser.addoption("--unit", action="store_true", help="only tests without servers")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``--unit``: what is about servers, and every module that imports a part that is one."""
    if not config.getoption("unit"):
        return None
    if collection_path.is_dir():
        return True if collection_path.name in SUITES else None
    if not collection_path.match("test_*.py"):
        return None
    return True if _SERVERS.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.fixture(scope="session")
def browser():
    """A Chromium, one for all: a thread can have but one.

    Without one the tests are skipped, and in continuous integration they fail.
    """
    from parts.browser import Browser, missing  # only where it is wanted: it loads playwright

    if reason := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with Browser() as running:
        yield running
