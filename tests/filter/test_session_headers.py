"""Headers of a message, spoken to without an MTA: which are asked for, taken out, and when."""

from __future__ import annotations

import pytest

from hybridgrey.filter import forged
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import ALL_ACTIONS, ALL_STEPS, COMMANDS, NO_REPLY, MilterPeer, strings
from parts.redisserver import Redis

ALLOWED = "192.0.2.7"
OURS = ("Authentication-Results", "mx.test; dkim=pass")
OTHERS = ("Authentication-Results", "other.test; dkim=pass")
GREY = ("X-Greylist", "delayed 5 seconds by hybridgrey at mx.test")
MACROS = {"j": "mx.test", "v": "Postfix 3"}
NO_HEADERS, SILENT = COMMANDS["header"][1:]


@pytest.fixture(scope="module")
def world():
    with FakeDns() as dns, Redis() as redis:
        dns.zone("wl.test", listed={ALLOWED: "127.0.5.2"})
        yield {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
            "rule": [
                {"name": "wl", "dns": ["wl.test=127.0.[0..255].[2..3]"], "action": "accept"},
                # Without it nothing would wait for the list.
                {"name": "the rest", "action": "greylist"},
            ],
        }


@pytest.fixture(scope="module")
def daemon(world, engine):
    with Daemon(world) as made:
        yield made


def opened(daemon, **options):
    peer = MilterPeer(daemon.address, **options)
    peer.connect("unknown", ALLOWED, macros=MACROS)
    peer.helo()
    return peer


def sent(peer, *fields):
    """What a message with these headers gets."""
    peer.mail()
    assert peer.rcpt().passes
    return peer.content([("Subject", "x"), *fields])


def test_forged_headers_go_from_the_last_to_the_first(daemon):
    """Each is named by its place among those of its name, whatever the case; then ours is added."""
    with opened(daemon) as peer:
        low = ("authentication-RESULTS", OURS[1])
        message = sent(peer, OURS, OTHERS, GREY, low, OTHERS, ("X-Greylist", "by postgrey"), OURS)
    assert message.deleted == [
        ("authentication-results", 5),
        ("authentication-results", 3),
        ("x-greylist", 1),
        ("authentication-results", 1),
    ]
    assert message.reply.kind == "continue"
    [added] = message.header("Authentication-Results")
    assert added.startswith("mx.test;")
    assert daemon.await_events("forged headers removed")[-1]["count"] == 4


def test_a_header_in_no_encoding_is_counted(daemon):
    """Bytes that are no UTF-8 in a value, and in other headers' names, move no index."""
    with opened(daemon) as peer:
        bad = ("Authentication-Results", b"\xff\xfe; dkim=pass")
        message = sent(peer, bad, ("X-A", b"\xff"), bad, (b"X-\xff", "x"), OURS)
        assert message.deleted == [("authentication-results", 3)]
        assert message.reply.kind == "continue"


def test_each_message_begins_anew(daemon):
    """Headers of a message before, or of one that was given up halfway, do not count."""
    with opened(daemon) as peer:
        assert sent(peer, OTHERS, OURS).deleted == [("authentication-results", 2)]
        assert sent(peer, OTHERS).deleted == []
        peer.mail()
        peer.rcpt()
        peer._command("data", b"", {})
        for field in (OURS, OURS):
            assert peer._command("header", strings(*field), {}) == NO_REPLY
        peer.abort()
        assert sent(peer, OTHERS, OTHERS, OURS).deleted == [("authentication-results", 3)]


def test_headers_come_without_an_answer(daemon):
    """They cost no round trip; an MTA that must have an answer gets one for each."""
    with opened(daemon) as peer:
        assert peer.steps & SILENT
        assert not peer.steps & NO_HEADERS
    with opened(daemon, protocol=ALL_STEPS & ~SILENT) as peer:
        assert sent(peer, OURS).deleted == [("authentication-results", 1)]


def test_an_mta_that_lets_nobody_change_headers(daemon):
    """Without the right to take them out they are not asked for, and ours is added all the same."""
    with opened(daemon, actions=ALL_ACTIONS & ~0x10) as peer:
        assert peer.steps & NO_HEADERS
        message = sent(peer, OURS)
        assert (message.deleted, len(message.headers)) == ([], 1)
    with opened(daemon, actions=ALL_ACTIONS & ~0x10, protocol=ALL_STEPS & ~NO_HEADERS) as peer:
        message = sent(peer, OURS)
        assert (message.deleted, len(message.headers)) == ([], 1)


def test_more_forged_headers_than_anybody_honest_has(daemon):
    """They would keep the MTA busy for hours: the message is refused."""
    with opened(daemon) as peer:
        assert len(sent(peer, *[GREY] * forged.MOST).deleted) == forged.MOST
        refused = sent(peer, *[GREY] * (forged.MOST + 1))
        assert refused.reply.text == "554 5.7.1 Too many header fields that claim to be this site's"
        assert refused.deleted == []
        assert sent(peer, OURS).deleted == [("authentication-results", 1)]


@pytest.mark.parametrize(
    ("settings", "asked", "deleted"),
    [
        ({"headers": {"remove_forged": False}}, False, []),
        ({"headers": {"authentication_results": False, "greylist": False}}, True, [1]),
        ({"mode": "observe"}, True, [1]),
        ({"hostname": "other.test"}, True, [2]),
    ],
    ids=["off", "nothing added", "observe", "hostname"],
)
def test_settings(world, settings, asked, deleted):
    """Off asks for no headers; it needs nothing else to be on; our name is `hostname` where that is set."""
    with Daemon({**world, **settings}) as daemon, opened(daemon) as peer:
        assert bool(peer.steps & NO_HEADERS) is not asked
        message = sent(peer, OURS, OTHERS)
        assert message.deleted == [("authentication-results", index) for index in deleted]


def test_observe_mode_refuses_nothing(world):
    """Of too many forged headers it takes out what it may, and lets the message through."""
    with Daemon({**world, "mode": "observe"}) as daemon, opened(daemon) as peer:
        message = sent(peer, *[GREY] * (forged.MOST + 1))
        assert message.reply.kind == "continue"
        assert len(message.deleted) == forged.MOST
