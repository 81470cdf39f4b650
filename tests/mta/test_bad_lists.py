"""A list that answers anything but the truth is never a listing; mail goes on by the healthy ones."""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from mta.talk import opened, rcpt
from parts.base import LOOPBACK, free_port
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.postfix import Postfix

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

BLOCKED, ALLOWED, UNKNOWN = "192.0.2.66", "192.0.2.77", "192.0.2.88"
LISTED = {BLOCKED: "127.0.0.2"}

# behaviour of the zone; whether the client that it lists is rejected for all that
BEHAVIOURS = {
    "refused, Spamhaus": ({"everything": "127.255.255.254"}, False),
    "over quota, dnswl": ({"everything": "127.0.0.255"}, False),
    "over quota, dnswl too": ({"everything": "127.0.10.3"}, False),
    "a parking page": ({"everything": "91.195.240.117"}, False),
    "everything is listed": ({"everything": "127.0.0.2"}, False),
    "SERVFAIL": ({"rcode": "SERVFAIL"}, False),
    "REFUSED": ({"rcode": "REFUSED"}, False),
    "truncated": ({"truncate": True, "listed": LISTED}, True),
    "duplicate": ({"duplicate": True, "listed": LISTED}, True),
    "forgeries first": ({"forged_first": True, "listed": LISTED}, True),
    "first query lost": ({"drop_first": 1, "listed": LISTED}, True),
    "unrelated records": ({"extra": True, "listed": LISTED}, True),
    "by way of a CNAME": ({"cname": "target.test", "listed": LISTED}, True),
    "several codes": ({"listed": {BLOCKED: ["127.0.0.4", "127.0.0.2", "127.0.0.10"]}}, True),
    "no test points": ({"test_points": False, "listed": LISTED}, True),
}

# No readable answer in time; together, for each costs the daemon's whole patience.
UNREADABLE = {
    "nothing.test": {"silent": True},
    "late.test": {"delay": 3.0, "listed": LISTED},
    "wrong-id.test": {"wrong_id": True, "listed": LISTED},
    "wrong-question.test": {"wrong_question": True, "listed": LISTED},
    "garbage.test": {"garbage": True},
    "tcp-hangs.test": {"truncate": True, "truncate_hangs": True, "listed": LISTED},
}


def settings(redis, *nameservers, reject="bad.test", accept="good.test", timeout="1s"):
    return {
        "store": {"url": redis.unix_url},
        "dns": {"nameservers": list(nameservers), "timeout": timeout},
        "greylist": {"delay": "1m", "auto_allow_after": 0},
        "rule": [
            {"name": "blocklists", "dns": [reject], "action": "reject"},
            {"name": "allowlists", "dns": [accept], "action": "accept"},
            {"name": "the rest", "action": "greylist"},
        ],
    }


@pytest.mark.parametrize(("behaviour", "rejected"), BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_a_bad_blocklist(redis, behaviour, rejected, request):
    """Unknown clients are greylisted, allowlisted ones accepted; a true listing counts if it can be read."""
    person = re.sub(r"\W+", "-", request.node.callspec.id) + "@x.example"
    zone = "list.dnswl.org" if "dnswl" in request.node.name else "bad.test"
    with FakeDns() as dns:
        dns.zone(zone, **behaviour)
        dns.zone("good.test", listed={ALLOWED: "127.0.0.3"})
        config = settings(redis, dns.address, reject=zone)
        with Daemon(config) as daemon, Postfix(daemon.spec) as mta:
            assert rcpt(mta, UNKNOWN, "a@y.example", person)[:3] == "450"
            assert rcpt(mta, ALLOWED, "a@y.example", person)[:3] == "250"
            wanted = "554" if rejected else "450"
            assert rcpt(mta, BLOCKED, "a@y.example", person)[:3] == wanted


def test_unreadable_blocklists(redis):
    """Lists that are silent, late, forged or garbled list nobody, and the allowlist is still heard."""
    with FakeDns() as dns:
        for zone, behaviour in UNREADABLE.items():
            dns.zone(zone, **behaviour)
        dns.zone("good.test", listed={ALLOWED: "127.0.0.3"})
        config = settings(redis, dns.address)
        config["rule"][0]["dns"] = list(UNREADABLE)
        with Daemon(config) as daemon, Postfix(daemon.spec) as mta:
            assert rcpt(mta, UNKNOWN, "a@y.example", "unreadable@x.example")[:3] == "450"
            assert rcpt(mta, BLOCKED, "a@y.example", "unreadable@x.example")[:3] == "450"
            assert rcpt(mta, ALLOWED, "a@y.example", "unreadable@x.example")[:3] == "250"
            assert set(daemon.verdict("unreadable@x.example")["lists"]) == {"good.test", *UNREADABLE}
        assert all(dns.count(zone) for zone in UNREADABLE)


@pytest.mark.parametrize(
    "code", ["127.0.0.255", "127.0.10.3", "127.255.255.254", "91.195.240.117", "127.0.5.2"]
)
def test_a_bad_allowlist(redis, code):
    """An allowlist that answers an error code for everybody accepts nobody."""
    with FakeDns() as dns:
        dns.zone("bl.test", listed={BLOCKED: "127.0.0.2"})
        dns.zone("list.dnswl.org", everything=code)
        config = settings(redis, dns.address, reject="bl.test", accept="list.dnswl.org")
        with Daemon(config) as daemon, Postfix(daemon.spec) as mta:
            assert rcpt(mta, UNKNOWN, "a@y.example", f"bad-{code}@x.example")[:3] == "450"
            assert rcpt(mta, BLOCKED, "a@y.example", f"bad-{code}@x.example")[:3] == "554"


def test_a_rejects_text_that_comes_late_is_left_out(redis):
    """The reply does not wait for the TXT record beyond the patience for one client."""
    with FakeDns() as dns:
        dns.zone("bad.test", listed=LISTED, text="never seen", text_delay=5.0)
        with Daemon(settings(redis, dns.address)) as daemon, Postfix(daemon.spec) as mta:
            answer = rcpt(mta, BLOCKED, "a@y.example", "text@x.example")
            assert answer.startswith(
                f"554 5.7.1 Service unavailable; client [{BLOCKED}] blocked using bad.test"
            )
            assert "never seen" not in answer


@pytest.mark.parametrize("text", ["line\\010feed", "per%cent %s %n", "€uro and \x7f", "x" * 240, "tab\there"])
def test_a_rejects_text_cannot_harm_the_reply(redis, text):
    """Control characters, percent signs, 8-bit and long texts end up in one safe line."""
    with FakeDns() as dns:
        dns.zone("bad.test", listed=LISTED, text=text)
        with Daemon(settings(redis, dns.address)) as daemon, Postfix(daemon.spec) as mta:
            answer = rcpt(mta, BLOCKED, "a@y.example", "harm@x.example")
            assert answer.startswith("554 5.7.1 ")
            assert answer.isascii()
            assert answer.isprintable()
            assert len(answer) < 512
            assert ("%cent %s %n" in answer) == ("%cent" in text)


def test_a_dead_first_nameserver_is_left_for_the_next(redis):
    """With the first nameserver silent or not there, the second one's listing still counts."""
    with FakeDns() as silent, FakeDns() as dns:
        for zone in ("bad.test", "good.test"):
            silent.zone(zone, silent=True)
        dns.zone("bad.test", listed=LISTED)
        for first in (silent.address, f"{LOOPBACK}:{free_port()}"):
            config = settings(redis, first, dns.address, timeout="3s")
            with Daemon(config) as daemon, Postfix(daemon.spec) as mta:
                assert rcpt(mta, BLOCKED, "a@y.example", "next@x.example")[:3] == "554"


FAR = 0.4


@pytest.fixture
def far(redis):
    """A Postfix whose three lists are each `FAR` seconds away."""
    with contextlib.ExitStack() as stack:
        dns = stack.enter_context(FakeDns())
        for zone in ("one.test", "two.test", "three.test"):
            dns.zone(zone, delay=FAR)
        config = settings(redis, dns.address, timeout="5s")
        config["rule"][0]["dns"] = ["one.test", "two.test"]
        config["rule"][1]["dns"] = ["three.test"]
        daemon = stack.enter_context(Daemon(config))
        yield stack.enter_context(Postfix(daemon.spec)), daemon


def test_three_far_lists_cost_one_round_trip(far):
    """RCPT of a fresh client waits for all three at once."""
    mta, daemon = far
    rcpt(mta, UNKNOWN, "a@y.example", "fresh@x.example")
    waited = daemon.verdict("fresh@x.example")["wait_ms"] / 1000
    assert FAR / 2 < waited < 2 * FAR


def test_a_slow_dialogue_waits_for_nothing(far):
    """When the answers came while the client was talking, RCPT does not wait."""
    mta, daemon = far
    with opened(mta, "192.0.2.99") as client:
        client.mail("a@y.example")
        time.sleep(2 * FAR)
        client.rcpt("slow@x.example")
    assert daemon.verdict("slow@x.example")["wait_ms"] / 1000 < FAR / 2
