"""Fixtures of all tests; its presence also puts this folder on the path, so that tests can import `parts`."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# In the background of a script Ctrl-C is ignored, and would be by all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent

SUITES = ("mta", "field", "faults", "page", "guides", "install", "upgrade", "harness")
"""Folders whose tests are about real servers."""

NO_SERVERS = frozenset({"base", "configfile", "forked", "greyterms", "laws"})
"""The parts that start none."""

SKIPPED = ("program", "slow")
"""Marks of tests that `--unit` leaves out (pyproject.toml says what they mean)."""

HOSTS = Path("/var/lib/hybridgrey")
"""Where the daemon of a host keeps its state."""

TOGETHER = ("tests/field", "tests/install")
"""Folders whose modules share what is dear: a row of hosts, the built package."""

_IMPORT = re.compile(r"^from (\w+)(?:\.([\w.]+))? import (.+)", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--unit`` leaves out all tests that start servers or programs, or take seconds."""
    parser.addoption("--unit", action="store_true", help="only tests without servers, in seconds")


def pytest_configure(config: pytest.Config) -> None:
    """No law has a time limit, for no test is timed; with ``--unit`` each is tried on a few examples."""
    settings.register_profile("laws", deadline=None)
    settings.register_profile("unit", deadline=None, max_examples=25)
    settings.load_profile("unit" if config.getoption("unit") else "laws")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``--unit``: what is about servers, and every module that imports a part that is one."""
    if not config.getoption("unit"):
        return None
    if collection_path.is_dir():
        return True if collection_path.name in SUITES else None
    if not collection_path.match("test_*.py"):
        return None
    return True if _parts(collection_path) - NO_SERVERS else None


def _parts(file: Path) -> set[str]:
    """The parts that a module imports, itself or by way of another module of the tests."""
    parts = set()
    for package, module, names in _IMPORT.findall(file.read_text(encoding="utf-8")):
        if package in ("parts", "faults"):
            parts |= {module} if module else set(names.split(", "))
        elif (other := TESTS / package / f"{module.replace('.', '/')}.py").is_file():
            parts |= _parts(other)
    return parts


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--unit``: no test that starts a program or needs seconds."""
    if config.getoption("unit"):
        left_out = [item for item in items if any(map(item.get_closest_marker, SKIPPED))]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="module", autouse=True)
def _no_state_in_the_hosts_folder() -> Iterator[None]:
    """A test may run on a host that has a hybridgrey: what it keeps is its own."""
    before = HOSTS.exists()
    yield
    assert before or not HOSTS.exists(), f"a test of this module, or of one at the same time, made {HOSTS}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A worker is given whole modules, for their fixtures, and some folders whole."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            folder = module.rpartition("/")[0]
            return folder if folder in TOGETHER else module

    return Scheduling(config, log)


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
