"""Through an MTA: a connection that stays open while lists change, and clients that carry an IPv4 address."""

from __future__ import annotations

import pytest

from mta.talk import opened, plain, rcpt
from parts.base import wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = pytest.mark.mta

BLOCKED, ALLOWED, CHANGING, ENTERED = "192.0.2.66", "192.0.2.77", "192.0.2.88", "192.0.2.99"
RULES = [
    {"name": "friends", "clients": [ENTERED], "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "allowlists", "dns": ["wl.test"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]


def inside(network: str, address: str) -> str:
    """An IPv6 client that carries an IPv4 address."""
    a, b, c, d = map(int, address.split("."))
    return network.format(
        hex=f"{a << 8 | b:x}:{c << 8 | d:x}", flipped=f"{~(a << 8 | b) & 65535:x}:{~(c << 8 | d) & 65535:x}"
    )


# Not ::ffff:0:a.b.c.d: XCLIENT takes its head for that of an IPv4-mapped address.
NAT64, OWN = "64:ff9b::{hex}", "2001:db8:64::{hex}"
SIX_TO_FOUR, TEREDO = "2002:{hex}::25", "2001:0:4136:e378:8000:63bf:{flipped}"


@pytest.fixture(scope="module")
def lists():
    with FakeDns() as dns:
        yield dns


@pytest.fixture(scope="module")
def daemon(lists, engine):
    with Redis() as redis:
        lists.zone("bl.test", listed={BLOCKED: "127.0.0.2"}, ttl=1, negative_ttl=1)
        lists.zone("wl.test", listed={ALLOWED: "127.0.5.2"}, ttl=1, negative_ttl=1)
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [lists.address], "nat64": ["64:ff9b::/96", "2001:db8:64::/96"]},
            "greylist": {"delay": "1m", "auto_allow_after": 0},
            "rule": RULES,
        }
        with Daemon(settings, unix=True) as running:
            yield running


def test_two_messages_on_one_connection(mta, lists):
    """Listed after its first message, a client is refused at the next; delisted, it is let in again."""
    with opened(mta, CHANGING) as client:

        def said() -> str:
            client.mail("a@y.example")
            answers = {plain(client.rcpt("open@x.example")) for _ in range(2)}
            client.rset()
            (code,) = {answer[:3] for answer in answers}
            return code

        assert said() == "450"
        for listed, wanted in (((BLOCKED, CHANGING), "554"), ((BLOCKED,), "450")):
            lists.zone("bl.test", listed=dict.fromkeys(listed, "127.0.0.2"), ttl=1, negative_ttl=1)
            wait_until(lambda: said() == wanted, f"the answer {wanted}")  # noqa: B023 (called here)


@pytest.fixture(scope="module")
def postfix(with_postfix, daemon):
    """Its XCLIENT gives a client any address."""
    with Postfix(daemon.spec) as running:
        yield running


@pytest.mark.parametrize(
    ("network", "listed", "allowed", "entered"),
    [
        (NAT64, "554", "250", "250"),
        (OWN, "554", "250", "250"),
        (SIX_TO_FOUR, "554", "450", "450"),
        (TEREDO, "554", "450", "450"),
    ],
)
def test_clients_that_carry_an_address(postfix, daemon, network, listed, allowed, entered):
    """Blocklists refuse all of them by the address inside; only a translated client has its benefits."""
    answer = rcpt(postfix, inside(network, BLOCKED), "a@y.example", "c@x.example")
    assert answer.startswith(f"{listed} 5.7.1 Service unavailable; client [{BLOCKED}] blocked using bl.test")
    assert daemon.verdict("c@x.example")["client"] == inside(network, BLOCKED)
    for address, wanted in ((ALLOWED, allowed), (ENTERED, entered)):
        assert rcpt(postfix, inside(network, address), "a@y.example", "c@x.example")[:3] == wanted


def test_one_network_for_all_ways(postfix, daemon):
    """The greylist has one triplet for the IPv4 network, whichever way its clients come."""
    sender = f"ways@{type(postfix).__name__}.example"
    for network in (NAT64, SIX_TO_FOUR, OWN, TEREDO):
        assert rcpt(postfix, inside(network, "203.0.113.7"), sender, "ways@x.example")[:3] == "450"
    assert rcpt(postfix, "203.0.113.9", sender, "ways@x.example")[:3] == "450"
    states = [one["state"] for one in daemon.events("verdict") if one["sender"] == sender]
    assert states == ["new"] + ["early"] * 4
