"""What only Postfix's XCLIENT can set up: SMTP AUTH and mapped addresses."""

from __future__ import annotations

import pytest

from mta.talk import rcpt
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

BLOCKED = "192.0.2.66"
RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "the rest", "action": "greylist"},
]


@pytest.fixture(scope="module")
def settings():
    with Redis() as redis, FakeDns() as dns:
        dns.zone("bl.test", listed={BLOCKED: "127.0.0.2"})
        yield {"store": {"url": redis.unix_url}, "dns": {"nameservers": [dns.address]}, "rule": RULES}


@pytest.fixture(scope="module")
def mta(settings):
    with Daemon(settings) as daemon, Postfix(daemon.spec) as running:
        yield running


def test_an_authenticated_client_is_accepted_though_listed(mta):
    """SMTP AUTH comes before the blocklists, and only for who has it."""
    assert rcpt(mta, BLOCKED, "a@y.example", "auth@x.example", login="joe")[:3] == "250"
    assert rcpt(mta, BLOCKED, "a@y.example", "auth@x.example")[:3] == "554"


def test_a_mapped_address_is_its_ipv4_address(mta):
    """::ffff:192.0.2.66 is asked and greylisted as 192.0.2.66."""
    assert rcpt(mta, f"::ffff:{BLOCKED}", "a@y.example", "mapped@x.example")[:3] == "554"


def test_observe_mode_lets_all_through(settings):
    """In observe mode every answer is a pass, and the log has the verdict all the same."""
    with Daemon({**settings, "mode": "observe"}) as daemon, Postfix(daemon.spec) as mta:
        assert rcpt(mta, BLOCKED, "a@y.example", "observed@x.example")[:3] == "250"
        assert rcpt(mta, "203.0.113.1", "a@y.example", "grey@x.example")[:3] == "250"
        verdict = daemon.verdict("observed@x.example")
        assert (verdict["action"], verdict["enforced"]) == ("reject", False)
        assert daemon.verdict("grey@x.example")["action"] == "greylist"
