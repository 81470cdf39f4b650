"""An unknown sender's way through the greylist, by the clock and through real MTAs."""

from __future__ import annotations

import re
import time

import pytest

from mta.talk import rcpt, send
from parts.daemon import Daemon
from parts.postfix import Postfix

pytestmark = pytest.mark.mta

DELAY, WINDOW = 2, 5
GREY = re.compile(r"450 4\.2\.0 Greylisted, please try again in (\d+) seconds?")
SENDER = "news@sender.example"


def settings(redis, **greylist):
    times = {"delay": f"{DELAY}s", "retry_window": f"{WINDOW}s", "lifetime": f"{WINDOW}s"}
    return {
        "store": {"url": redis.unix_url},
        "dns": {"timeout": "50ms"},  # SPF is asked, and nobody answers
        "greylist": {**times, "auto_allow_after": 0, **greylist},
        "rule": [{"name": "the rest", "action": "greylist"}],
    }


@pytest.fixture(scope="module")
def daemon(redis, engine):
    with Daemon(settings(redis), unix=True) as running:
        yield running


def seconds_left(answer: str) -> int:
    match = GREY.fullmatch(answer)
    assert match, answer
    return int(match[1])


@pytest.mark.parametrize(
    ("client", "neighbour", "stranger"),
    [
        ("192.0.2.1", "192.0.2.200", "198.51.100.1"),
        ("2001:db8:1:1::1", "2001:db8:1:1:ffff::9", "2001:db8:1:2::1"),
    ],
    ids=["ipv4", "ipv6"],
)
def test_first_early_passed_neighbour_and_expired(mta, daemon, client, neighbour, stranger):
    """450 with the seconds left, 450, accepted with X-Greylist, accepted; 450 after window and lifetime."""
    patient, late = (f"{name}-{type(mta).__name__}-{len(client)}@x.example".lower() for name in ("a", "b"))
    assert seconds_left(rcpt(mta, client, SENDER, patient)) == DELAY
    rcpt(mta, client, SENDER, late)
    started = time.monotonic()
    assert 1 <= seconds_left(rcpt(mta, client, SENDER, patient)) <= DELAY
    time.sleep(max(0, started + DELAY + 0.1 - time.monotonic()))
    assert send(mta, client, SENDER, patient).startswith("250 ")
    mail = mta.sink.wait(patient)
    assert re.fullmatch(
        r"delayed [2-9] seconds by hybridgrey at mx\.example\.test", *mail.header("X-Greylist")
    )
    passed = time.monotonic()
    assert send(mta, neighbour, SENDER, patient).startswith("250 ")
    assert mta.sink.wait(patient, 2).header("X-Greylist") == []
    assert seconds_left(rcpt(mta, stranger, SENDER, patient)) == DELAY
    assert daemon.verdict(patient)["state"] == "new"
    time.sleep(max(0, started + WINDOW + 0.3 - time.monotonic()))
    assert seconds_left(rcpt(mta, client, SENDER, late)) == DELAY
    time.sleep(max(0, passed + WINDOW + 1.3 - time.monotonic()))
    assert seconds_left(rcpt(mta, client, SENDER, patient)) == DELAY


def test_two_mx_hosts_share_one_redis(redis, with_postfix):
    """A first attempt at one MX host and the retry at the other is a pass."""
    with (
        Daemon(settings(redis, delay="1s")) as one,
        Daemon(settings(redis, delay="1s")) as two,
        Postfix(one.spec) as mx1,
        Postfix(two.spec) as mx2,
    ):
        assert seconds_left(rcpt(mx1, "192.0.2.1", SENDER, "two@mx.example")) == 1
        time.sleep(1.1)
        assert rcpt(mx2, "192.0.2.1", SENDER, "two@mx.example").startswith("250 ")
        assert two.verdict("two@mx.example")["state"] == "passed"


def test_a_network_that_has_passed_often_is_known(redis, with_postfix):
    """After so many distinct passes the network's next triplet is accepted at once."""
    bounds = {"auto_allow_after": 2, "auto_allow_interval": "0s"}
    with (
        Daemon(settings(redis, delay="1s", lifetime="1h", **bounds)) as daemon,
        Postfix(daemon.spec) as mta,
    ):
        people = ["p1@auto.example", "p2@auto.example"]
        for person in people:
            assert seconds_left(rcpt(mta, "203.0.113.1", SENDER, person)) == 1
        time.sleep(1.1)
        for person in people:
            assert rcpt(mta, "203.0.113.7", SENDER, person).startswith("250 ")
        assert rcpt(mta, "203.0.113.9", "other@sender.example", "p3@auto.example").startswith("250 ")
        assert daemon.verdict("p3@auto.example")["state"] == "network"
        assert seconds_left(rcpt(mta, "198.51.100.9", SENDER, "p3@auto.example")) == 1


def test_one_burst_and_one_retry_buy_nothing(redis, with_postfix):
    """Five recipients and one retry, without any DATA: each passes, and the network is not allowed by it."""
    with Daemon(settings(redis, delay="1s", auto_allow_after=5)) as daemon, Postfix(daemon.spec) as mta:
        people = [f"b{number}@burst.example" for number in range(6)]
        for person in people:
            assert seconds_left(rcpt(mta, "203.0.113.1", SENDER, person)) == 1
        time.sleep(1.1)
        for person in people:
            assert rcpt(mta, "203.0.113.1", SENDER, person).startswith("250 ")
        assert seconds_left(rcpt(mta, "203.0.113.9", SENDER, "else@burst.example")) == 1
        assert daemon.verdict("else@burst.example")["state"] == "new"


def of_the_greylist(redis):
    """All keys but those of the history and the probe."""
    return list(filter(re.compile(rb"hg1:\{").match, redis.keys()))


def test_one_connection_cannot_fill_the_store(redis, with_postfix):
    """Beyond the bound a client gets the usual reply, and nothing of it is kept; a neighbour's mail is."""
    with (
        Daemon(settings(redis, delay="1m", retry_window="1h", lifetime="1h", max_waiting=20)) as daemon,
        Postfix(daemon.spec) as mta,
        mta.client("203.0.113.1") as client,
    ):
        client.ehlo("flood.example")
        client.mail(SENDER)
        replies = [str(client.rcpt(f"{number}@flood.example")) for number in range(20)]
        kept = of_the_greylist(redis)
        replies += [str(client.rcpt(f"{number}@flood.example")) for number in range(20, 50)]
        assert {seconds_left(reply) for reply in replies} == {60}
        assert of_the_greylist(redis) == kept
        assert daemon.verdict("49@flood.example")["state"] == "full"
        assert seconds_left(rcpt(mta, "203.0.113.2", SENDER, "neighbour@flood.example")) == 60
        assert daemon.verdict("neighbour@flood.example")["state"] == "new"


def test_senders_that_change_with_each_message_are_one(redis, with_postfix):
    """A VERP sender's retry under another number is the same triplet."""
    with Daemon(settings(redis, delay="1s")) as daemon, Postfix(daemon.spec) as mta:
        first, second = "bounce-1001-joe=x.example@list.example", "bounce-1002-joe=x.example@list.example"
        assert seconds_left(rcpt(mta, "192.0.2.1", first, "joe@x.example")) == 1
        time.sleep(1.1)
        assert rcpt(mta, "192.0.2.1", second, "JOE@x.example").startswith("250 ")


def test_a_rule_has_its_own_delay_and_text(redis, with_postfix):
    """A greylist rule's delay and text stand before the general ones."""
    dynamic = {"name": "dynamic", "helo": [".dsl.example"], "action": "greylist", "delay": "90s"}
    dynamic["text"] = "4.7.1 Come back in {seconds} seconds"
    rules = [dynamic, {"name": "the rest", "action": "greylist"}]
    config = {**settings(redis, retry_window="1h"), "rule": rules}
    with Daemon(config) as daemon, Postfix(daemon.spec) as mta, mta.client("192.0.2.1") as client:
        client.ehlo("host7.dsl.example")
        client.mail(SENDER)
        assert str(client.rcpt("own@x.example")) == "450 4.7.1 Come back in 90 seconds"
