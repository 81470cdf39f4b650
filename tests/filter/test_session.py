"""The milter session, spoken to without an MTA: what each step answers, and what a message gets."""

from __future__ import annotations

import pytest

from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import NO_REPLY, MilterPeer
from parts.redisserver import Redis

LISTED = "192.0.2.99"


@pytest.fixture(scope="module")
def daemon(engine):
    with FakeDns() as dns, Redis() as redis:
        dns.zone("bl.test", listed={LISTED: "127.0.0.2"})
        dns.zone("wl.test", listed={"192.0.2.7": "127.0.5.2"})
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
            "greylist": {"delay": "1s"},
            "rule": [
                {"name": "local", "clients": ["127.0.0.1"], "action": "accept"},
                {"name": "trap", "recipients": ["trap@example.net"], "action": "tempfail"},
                {"name": "bl", "dns": ["bl.test"], "action": "reject"},
                {"name": "wl", "dns": ["wl.test=127.0.[0..255].[2..3]"], "action": "accept"},
                {"name": "the rest", "action": "greylist"},
            ],
        }
        with Daemon(settings) as made:
            yield made


@pytest.fixture
def peer(daemon):
    with MilterPeer(daemon.address) as made:
        yield made


def test_steps(peer):
    """CONNECT is answered, for Postfix holds back what is not; HELO and MAIL go without an answer."""
    assert peer.connect("unknown", LISTED).kind == "continue"
    assert peer.helo() == NO_REPLY
    assert peer.mail() == NO_REPLY
    assert peer.rcpt().code == "554"


def test_an_mta_without_these_options_is_answered_at_each_step(daemon):
    """An MTA that offers no way to go without answers, as before milter version 6, gets them all."""
    with MilterPeer(daemon.address, version=2, actions=0x3F, protocol=0x7F) as peer:
        assert peer.connect("unknown", LISTED).kind == "continue"
        assert peer.helo().kind == "continue"
        assert peer.mail().kind == "continue"
        assert peer.rcpt().code == "554"


def test_rcpt_without_mail_is_judged(peer):
    """No rule is evaded by a recipient that comes without a sender, as no MTA sends one."""
    peer.connect("unknown", LISTED)
    peer.helo()
    peer.mail()
    peer.abort()
    assert peer.rcpt().code == "554"


def test_each_recipient_by_itself(peer):
    """A recipient's refusal says nothing about the next one, nor does its pass."""
    peer.connect("unknown", "192.0.2.7", macros={"j": "mx.test", "v": "Postfix 3"})
    peer.mail()
    assert peer.rcpt("<trap@example.net>").code == "451"
    assert peer.rcpt("<b@example.net>").kind == "continue"
    assert peer.rcpt("<trap@example.net>").code == "451"
    message = peer.content()
    assert [" ".join(h.split()) for h in message.header("Authentication-Results")] == [
        "mx.test; dnswl=pass dns.zone=wl.test policy.ip=127.0.5.2"
    ]


@pytest.mark.parametrize("address", ["::ffff:0:192.0.2.99", "64:ff9b::192.0.2.99", "2002:c000:263::1"])
def test_a_client_that_carries_a_listed_address(peer, address):
    """The refusal names the address that the list has."""
    peer.connect("unknown", address)
    peer.mail()
    assert peer.rcpt().text.startswith(
        f"554 5.7.1 Service unavailable; client [{LISTED}] blocked using bl.test"
    )
