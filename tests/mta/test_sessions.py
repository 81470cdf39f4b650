"""Each recipient is judged by itself, whatever came before it on the connection."""

from __future__ import annotations

import pytest

from mta.talk import opened, plain, rcpt
from parts.base import wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

pytestmark = pytest.mark.mta

BLOCKED, ALLOWED, UNKNOWN = "192.0.2.66", "192.0.2.77", "192.0.2.88"
GREY = "450 4.2.0 Greylisted, please try again in"
REJECTED = "554 5.7.1 Service unavailable; client [192.0.2.66] blocked using bl.test; spam"
RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept"},
    {"name": "required", "recipients": ["postmaster@", "open@x.example"], "action": "accept"},
    {"name": "friends", "senders": ["friend@y.example"], "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "allowlists", "dns": ["wl.test"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]


@pytest.fixture(scope="module")
def daemon(engine):
    with Redis() as redis, FakeDns() as dns:
        dns.zone("bl.test", listed={BLOCKED: "127.0.0.2"}, text="spam")
        dns.zone("wl.test", listed={ALLOWED: "127.0.5.2"})
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
            "greylist": {"delay": "1m", "auto_allow_after": 0},
            "rule": RULES,
        }
        # One worker, whose cache is warm: a text that is late would be left out of the reply.
        with Daemon({**settings, "workers": 1}, unix=True) as running, MilterPeer(running.address) as peer:
            peer.connect("warm.example", BLOCKED)
            peer.mail()
            wait_until(lambda: "spam" in peer.rcpt().text, "the list's text")
            yield running


def test_recipients_of_one_message_are_judged_apart(mta):
    """A pass for the first does not let the second through, nor does a reject stop the third."""
    with opened(mta, BLOCKED) as client:
        client.mail("a@y.example")
        answers = [plain(client.rcpt(f"{name}@x.example")) for name in ("open", "joe", "open", "postmaster")]
        assert [answer[:3] for answer in answers] == ["250", "554", "250", "250"]
        assert answers[1] == REJECTED
        assert client.data().code == 250
    assert sorted(set(mta.sink.wait("open@x.example").recipients)) == [
        "open@x.example",
        "postmaster@x.example",
    ]


def test_a_repeated_recipient_gets_the_same_answer(mta, daemon):
    """The same recipient twice in one message is one first attempt."""
    sender = f"twice@{type(mta).__name__}.example"
    with opened(mta, UNKNOWN) as client:
        client.mail(sender)
        assert all(plain(client.rcpt("twice@x.example")).startswith(GREY) for _ in range(3))
    assert [one["state"] for one in daemon.events("verdict")[-3:]] == ["new", "early", "early"]


def test_rset_and_further_messages_start_afresh(mta, daemon):
    """RSET, a second message and a sender of another rule are judged as on a new connection."""
    with opened(mta, BLOCKED) as client:
        client.mail("friend@y.example")
        assert client.rcpt("joe@x.example").code == 250
        client.rset()
        client.mail("a@y.example")
        assert plain(client.rcpt("joe@x.example")) == REJECTED
        client.rset()
        client.mail("friend@y.example")
        assert client.rcpt("second@x.example").code == 250
        assert client.data().code == 250
        client.mail("a@y.example")
        assert plain(client.rcpt("second@x.example")) == REJECTED
    assert daemon.verdict("second@x.example")["rule"] == "blocklists"


def test_an_aborted_message_leaves_nothing_behind(mta):
    """A connection cut after RCPT changes no answer for the next."""
    with opened(mta, UNKNOWN) as client:
        client.mail("friend@y.example")
        assert client.rcpt("cut@x.example").code == 250
    assert rcpt(mta, UNKNOWN, "a@y.example", "cut@x.example").startswith(GREY)


def test_the_null_sender_is_greylisted_and_comes_back(mta):
    """MAIL FROM:<> waits like others, and on its own triplet."""
    assert rcpt(mta, UNKNOWN, "", "bounce@x.example").startswith(GREY)
    assert rcpt(mta, UNKNOWN, "some@y.example", "bounce@x.example").startswith(GREY)
    assert rcpt(mta, ALLOWED, "", "bounce@x.example")[:3] == "250"


def test_a_second_helo_keeps_the_client(mta):
    """EHLO in mid-session resets the message, not the client's listing."""
    with opened(mta, BLOCKED) as client:
        client.mail("friend@y.example")
        client.rcpt("helo@x.example")
        client.ehlo("again.example")
        client.mail("a@y.example")
        assert plain(client.rcpt("helo@x.example")) == REJECTED


def test_allowlisted_mail_says_so_in_a_header(mta):
    """RFC 8904: Authentication-Results with dnswl, zone and code; and none for other mail."""
    with opened(mta, ALLOWED) as client:
        assert client.transaction("a@y.example", ["rfc8904@x.example"])[-1].code == 250
    (value,) = mta.sink.wait("rfc8904@x.example").header("Authentication-Results")
    assert value.startswith("mx.example.test")
    for part in ("dnswl=pass", "dns.zone=wl.test", "policy.ip=127.0.5.2"):
        assert part in value
    with opened(mta, BLOCKED) as client:
        assert client.transaction("friend@y.example", ["no8904@x.example"])[-1].code == 250
    assert mta.sink.wait("no8904@x.example").header("Authentication-Results") == []
