"""What the tests through MTAs need; without it they are skipped, and in continuous integration they fail."""

from __future__ import annotations

import os
from unittest import mock

import pytest

from mta.cases import ZONES
from parts import postfix, sendmail
from parts.base import ENGINE
from parts.daemon import DEFAULTS
from parts.rbldnsd import Rbldnsd
from parts.redisserver import Redis
from parts.unbound import Unbound

BOTH = {
    "test_correspondents",
    "test_dialogues",
    "test_forged_headers",
    "test_lifecycle",
    "test_odd_text",
    "test_open_connections",
    "test_postfix_protocol",
    "test_sender_pools",
    "test_sessions",
    "test_store_down",
    "test_stores",
}
"""What depends on how sessions are carried: run with each engine."""
NATIVE = {
    "test_addresses",
    "test_greylisting",
    "test_hierarchy",
    "test_postfix_default_action",
    "test_postfix_opendkim",
    "test_postfix_sessions",
    "test_sendmail_field",
}
"""Run with the native engine, others with what `auto` chooses; all with HYBRIDGREY_ENGINE if it is set."""
MTAS = {"postfix": (postfix, postfix.Postfix), "sendmail": (sendmail, sendmail.Sendmail)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The engines of a module."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if ENGINE == "auto" and name in BOTH | NATIVE:
        engines = ["libmilter", "native"] if name in BOTH else ["native"]
        metafunc.parametrize("engine", engines, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def engine(request):
    """The engine of the daemons that say nothing of it themselves."""
    wanted = getattr(request, "param", ENGINE)
    with mock.patch.dict(DEFAULTS, engine=wanted):
        yield wanted


def require(reason: str) -> None:
    """Skip for `reason`, when there is one; in continuous integration that is a failure."""
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def with_postfix():
    require(postfix.missing())


@pytest.fixture(scope="session")
def with_sendmail():
    require(sendmail.missing())


@pytest.fixture(scope="module", params=MTAS)
def mta(request, engine):
    """Each MTA in turn, in front of the module's `daemon`, which goes when the engine does."""
    module, part = MTAS[request.param]
    require(module.missing())
    # Asked for only now: what cannot be tested need not be started.
    with part(request.getfixturevalue("daemon").spec) as running:
        yield running


@pytest.fixture(scope="module")
def redis(engine):
    """A store for the daemons of a module, an empty one for each engine."""
    with Redis() as running:
        yield running


@pytest.fixture(scope="module")
def resolver():
    """The lists of the table of cases."""
    with Rbldnsd(ZONES) as lists, Unbound(dict.fromkeys(ZONES, lists.address)) as running:
        yield running
