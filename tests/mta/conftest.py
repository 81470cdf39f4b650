"""What the tests through MTAs need; without it they are skipped, and in continuous integration they fail."""

from __future__ import annotations

import os

import pytest

from mta.cases import ZONES
from parts import postfix, sendmail
from parts.engines import engine as engine  # for all tests of the suite, as is the next
from parts.engines import pytest_generate_tests as pytest_generate_tests
from parts.rbldnsd import Rbldnsd
from parts.redisserver import Redis
from parts.unbound import Unbound

MTAS = {"postfix": (postfix, postfix.Postfix), "sendmail": (sendmail, sendmail.Sendmail)}


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
