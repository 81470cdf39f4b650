"""Senders that retry from elsewhere, through a real Postfix: what SPF proves passes, all else waits."""

from __future__ import annotations

import pytest

from hybridgrey.greylist.triplets import parse_key
from mta.talk import rcpt
from parts.base import LOOPBACK, free_port, wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.postfix import Postfix
from parts.rbldnsd import Rbldnsd
from parts.redisserver import Redis
from parts.unbound import Unbound

pytestmark = pytest.mark.mta

A, NEAR, B, SIX, STRANGER = "192.0.2.1", "192.0.2.99", "198.51.100.1", "2001:db8:7::1", "203.0.113.1"
PASS, DELAYED = "250 2.1.5 ", "450 4.2.0 "
TO = "b@rcpt.example"

# Fourteen times a /14; both clients are in the first two.
WIDE = " ".join(
    f"ip4:{network}.0.0/14" for network in ("192.0", "198.48", *(f"{n}.4" for n in range(20, 32)))
)
WIDER = " ".join(f"ip4:{n}.8.0.0/14" for n in range(40, 53))
RECORDS = f"""
good TXT "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 ip6:2001:db8:7::/48 -all"
nested TXT "v=spf1 include:good.spf.test -all"
all TXT "v=spf1 +all"
halves TXT "v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all"
eight TXT "v=spf1 ip4:192.0.0.0/8 ip4:198.0.0.0/8 -all"
exists TXT "v=spf1 exists:%{{i}}.x.spf.test -all"
a TXT "v=spf1 a:%{{i}}.x.spf.test -all"
include TXT "v=spf1 include:%{{i}}.i.spf.test -all"
redirect TXT "v=spf1 redirect=%{{l}}.r.spf.test"
forty TXT "v=spf1 include:f1.spf.test include:f2.spf.test include:f3.spf.test -all"
f1 TXT "v=spf1 {WIDE} -all"
f2 TXT "v=spf1 {WIDER} -all"
f3 TXT "v=spf1 {WIDER.replace(".8.", ".16.")} -all"
ptr TXT "v=spf1 ptr -all"
loop TXT "v=spf1 include:loop.spf.test -all"
syntax TXT "v=spf1 ip4:300.1.1.1 ip4:198.51.100.0/24 ip4:192.0.2.0/24 -all"
sorry TXT "v=spf1 -all"
192.0.2.1.x A 192.0.2.1
198.51.100.1.x A 198.51.100.1
192.0.2.1.i TXT "v=spf1 ip4:192.0.2.0/24 -all"
198.51.100.1.i TXT "v=spf1 ip4:198.51.100.0/24 -all"
s.r TXT "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all"
"""
GOOD = ["good", "nested"]
# What the record comes to from the second network; none of them proves anybody.
NO_POOL = {
    "all": "pass",
    "halves": "pass",
    "eight": "pass",
    "exists": "pass",
    "a": "pass",
    "include": "pass",
    "redirect": "pass",
    "forty": "pass",
    "ptr": "fail",
    "loop": "permerror",
    "syntax": "permerror",
    "sorry": "fail",
    "nobody": "none",
}


def settings(redis, nameserver, **more):
    return {
        "store": {"url": redis.url, "timeout": "2s"},
        "dns": {"nameservers": [nameserver], "timeout": "2s"},
        "greylist": {"delay": "1m", "auto_allow_after": 0, **more},
        "rule": [{"name": "the rest", "action": "greylist"}],
    }


@pytest.fixture(autouse=True)
def _empty(redis):
    with redis.client() as client:
        client.flushall()


@pytest.fixture(scope="module")
def resolver():
    """A caching resolver; the nameserver of dead.test is away."""
    with Rbldnsd({"spf.test": ("generic", RECORDS)}) as served:
        stubs = {"spf.test": served.address, "dead.test": f"{LOOPBACK}:{free_port()}"}
        with Unbound(stubs) as running:
            yield running


@pytest.fixture(scope="module")
def host(redis, resolver, with_postfix):
    with Daemon(settings(redis, resolver.address)) as daemon, Postfix(daemon.spec) as mta:
        yield daemon, mta


def comes(host, client, sender):
    """The answer to a client, and what the log says of it."""
    daemon, mta = host
    seen = len(daemon.events("verdict"))
    answer = rcpt(mta, client, sender, TO)
    wait_until(lambda: len(daemon.events("verdict")) > seen, "the verdict is logged")
    return answer[:10], daemon.events("verdict")[seen]


def a_minute_later(redis):
    """What waits had its first attempt a minute earlier."""
    with redis.client() as client:
        for key in client.scan_iter("hg1:{*"):
            parsed, value = parse_key(key), int(client.get(key))
            if parsed is not None and parsed.sender is not None and value > 0:
                client.set(key, value - 60, keepttl=True)


@pytest.mark.parametrize("domain", GOOD)
@pytest.mark.parametrize("elsewhere", [B, SIX])
def test_a_retry_from_another_authorised_network_passes(host, redis, domain, elsewhere):
    """From another /24, and from IPv6 after IPv4; from where nobody is authorised not."""
    sender = f"s@{domain}.spf.test"
    answer, line = comes(host, A, sender)
    assert (answer, line["spf"], line["proved"]) == (DELAYED, "pass", True)
    a_minute_later(redis)
    answer, line = comes(host, elsewhere, sender)
    assert (answer, line["state"], line["reason"], line["proved"]) == (PASS, "passed", "passed", True)
    answer, line = comes(host, STRANGER, sender)
    assert (answer, line["state"], line["spf"], line["proved"]) == (DELAYED, "new", "fail", False)


def test_what_proves_nobody_makes_no_pool(host, redis):
    """A pass for everybody, an error, a dead nameserver: the retry from elsewhere is a first attempt."""
    senders = {f"s@{name}.spf.test": result for name, result in NO_POOL.items()}
    senders["s@x.dead.test"] = "temperror"
    for sender, result in senders.items():
        answer, line = comes(host, A, sender)
        assert (answer, line["spf"], line["proved"]) == (DELAYED, result, False), sender
    a_minute_later(redis)
    for sender, result in senders.items():
        answer, line = comes(host, B, sender)
        assert (answer, line["state"], line["spf"]) == (DELAYED, "new", result), sender
        answer, line = comes(host, NEAR, sender)
        assert (answer, line["state"]) == (PASS, "passed"), sender


@pytest.fixture
def dns():
    """A nameserver that the test can stop, and of whose answers nothing is kept."""
    with FakeDns() as server:
        server.ttl = 0
        server.record("good.example", "TXT", '"v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all"')
        yield server


@pytest.fixture
def own(redis, dns, with_postfix):
    with Daemon(settings(redis, dns.address, auto_allow_after=1)) as daemon, Postfix(daemon.spec) as mta:
        yield daemon, mta


def test_a_triplet_that_has_passed_asks_for_nothing(own, redis, dns):
    """No question to DNS; neither does one that passes by its network."""
    assert comes(own, A, "s@good.example")[0] == DELAYED
    asked = len(dns.queries)
    assert asked
    a_minute_later(redis)
    for client, state in ((NEAR, "passed"), (A, "known"), (NEAR, "known")):
        answer, line = comes(own, client, "s@good.example")
        assert (answer, line["state"]) == (PASS, state)
        assert "spf" not in line
    assert len(dns.queries) == asked


def test_the_resolver_is_dead_at_the_retry(own, redis, dns):
    """From the same network that costs nothing, from elsewhere a delay, and never a refusal."""
    for sender in ("s@good.example", "t@good.example"):
        assert comes(own, A, sender)[0] == DELAYED
    dns.zone("example", silent=True)
    a_minute_later(redis)
    answer, line = comes(own, B, "t@good.example")
    assert (answer, line["state"], line["spf"]) == (DELAYED, "new", "temperror")
    answer, line = comes(own, NEAR, "s@good.example")
    assert (answer, line["state"]) == (PASS, "passed")


def test_credit_of_a_domain_holds_while_spf_passes(own, redis, dns):
    """One pass allows it here; once the record has gone it allows nobody."""
    comes(own, A, "s@good.example")
    a_minute_later(redis)
    assert comes(own, B, "s@good.example")[0] == PASS
    answer, line = comes(own, B, "new@good.example")
    assert (answer, line["state"], line["reason"]) == (PASS, "network", "domain")
    assert comes(own, STRANGER, "new@good.example")[0] == DELAYED
    dns.record("good.example", "TXT", '"v=spf1 -all"')
    answer, line = comes(own, B, "newer@good.example")
    assert (answer, line["spf"]) == (DELAYED, "fail")


RULES = [
    {"name": "friend", "clients": [NEAR], "action": "accept"},
    {"name": "listed", "dns": ["bl.example"], "action": "reject"},
    {"name": "strict", "recipients": ["strict@rcpt.example"], "spf": ["fail"], "action": "reject"},
    {"name": "bounces", "senders": ["<>"], "spf": ["pass"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]


@pytest.fixture
def ruled(redis, dns, with_postfix):
    config = settings(redis, dns.address) | {"rule": RULES}
    with Daemon(config) as daemon, Postfix(daemon.spec) as mta:
        yield daemon, mta


def test_slow_lists_take_nothing_of_the_time_of_spf(redis, dns, with_postfix):
    """Together they take longer than either may; whom a rule accepts waits for neither."""
    dns.zone("bl.example", delay=2.5)
    dns.zone("good.example", delay=2.5)
    config = settings(redis, dns.address) | {"rule": RULES}
    config["dns"]["timeout"] = "4s"
    with Daemon(config) as daemon, Postfix(daemon.spec) as mta:
        own = daemon, mta
        answer, line = comes(own, A, "s@good.example")
        assert (answer, line["spf"], line["proved"]) == (DELAYED, "pass", True)
        assert line["lists"] == {}
        dns.forget()
        answer, line = comes(own, NEAR, "s@good.example")
        assert (answer, line["rule"]) == (PASS, "friend")
        assert "spf" not in line
        # XCLIENT: the connection was the test's before.
        assert {query.name for query in dns.queries} <= {"1.0.0.127.bl.example"}


def test_two_recipients_with_different_rules(ruled, dns):
    """One result serves both; the one's rule says nothing of the other."""
    _daemon, mta = ruled
    with mta.client(STRANGER) as client:
        client.ehlo()
        client.mail("s@good.example")
        codes = [client.rcpt(to).code for to in ("strict@rcpt.example", TO, "strict@rcpt.example")]
        client.quit()
    assert codes == [554, 450, 554]
    assert [query.kind for query in dns.queries if query.name == "good.example"] == ["TXT"]


def test_each_bounce_is_its_own_helo(ruled):
    """HELO may change between two messages of a connection, and counts for what follows only."""
    _daemon, mta = ruled
    with mta.client(A) as client:
        codes = []
        for name in ("good.example", "other.example", "good.example"):
            client.ehlo(name)
            client.mail("<>")
            codes.append(client.rcpt(TO).code)
            client.rset()
        client.quit()
    assert codes == [250, 450, 250]


def test_the_store_goes_while_spf_is_awaited(dns, with_postfix):
    """What it has said stands: a delay, not a refusal, and the connection goes on."""
    dns.zone("good.example", delay=1.0)
    with Redis() as store, Daemon(settings(store, dns.address)) as daemon, Postfix(daemon.spec) as mta:
        with mta.client(A) as client:
            client.ehlo()
            client.mail("s@good.example")
            client.send(f"RCPT TO:<{TO}>")
            wait_until(lambda: dns.queries, "SPF is asked, after the network")
            store.stop()
            assert client.answer().code == 450
            client.rset()
            client.mail("t@good.example")
            assert client.rcpt(TO).code == 250, "on_failure is accept"
            client.quit()
        line = daemon.verdict(TO)
        assert line["outcome"] == "accepted"
        assert "Traceback" not in daemon.log_text()


def test_the_second_message_of_a_connection_is_judged_alike(own):
    """Its sender has an SPF result of its own, and what was asked for the first is over."""
    daemon, mta = own
    with mta.client(A) as client:
        client.ehlo()
        for sender in ("s@good.example", "s@other.example", "s@good.example"):
            client.mail(sender)
            assert client.rcpt(TO).code == 450
            client.rset()
        client.quit()
    wait_until(lambda: len(daemon.events("verdict")) == 3, "all are logged")
    assert [line["spf"] for line in daemon.events("verdict")] == ["pass", "none", "pass"]
