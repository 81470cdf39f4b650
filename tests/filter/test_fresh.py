"""A connection that stays open: its next message gets what a fresh connection would."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridgrey.config import load
from hybridgrey.envelope import read
from hybridgrey.filter.blocking import Blocking
from hybridgrey.filter.screen import Client, Screen
from hybridgrey.greylist.triplets import State
from hybridgrey.lists import awaited, findings, lookup, zones
from hybridgrey.lists.recall import Recalled
from hybridgrey.lists.resolver import Resolver
from hybridgrey.policy.judge import Action, Policy, Rule
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.store.connection import Call, Script
from lists.test_lookup import sockets
from parts.base import LOOPBACK, free_port, wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

CLIENT = "192.0.2.1"
LISTED = {CLIENT: "127.0.0.2"}


class Open:
    """A greylist that lets all in, and its store."""

    def attempt(self, client: str, sender: str, recipient: str, delay: int, expected: object = None) -> Call:
        return Call(Script(""), (), ())

    def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes | int],
        _seconds: float | None = None,
    ) -> list[int]:
        return [list(State).index(State.KNOWN), 0, 1]


class Clock:
    """Seconds as the look-ups see them, turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (lookup, findings, awaited):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def dns() -> Iterator[FakeDns]:
    with FakeDns() as server:
        yield server


def screen(server: FakeDns, *names: str, flags: bytearray | None = None, timeout: float = 5.0) -> Screen:
    lists = tuple(map(ListEntry.parse, names or ("bl.test",)))
    rules = [Rule("friends", Action.ACCEPT, senders=()), Rule("bl", Action.REJECT, lists=lists)]
    built = zones.build(rules, {})
    flags = bytearray(len(built)) if flags is None else flags
    resolver = Resolver(built, [(server.host, server.port)], timeout=timeout, suspended=flags)
    return Screen(load.default(), Policy(rules), built, resolver, Open())


def verdict(by: Screen, client: Client) -> str:
    """What a recipient gets in a transaction that has begun."""
    transaction = by.mail(client, None, read("a@b.example"), authenticated=False)
    steps = by.judge(transaction, read("c@d.example"))
    return Blocking(Open()).run(steps).verdict.action.value


def mail(by: Screen, client: Client) -> tuple[Client, str]:
    """A transaction of one recipient."""
    client = by.renew(client)
    return client, verdict(by, client)


@pytest.mark.parametrize("listed", [{}, LISTED])
def test_within_the_ttl_nothing_is_asked(dns, clock, listed):
    """However many messages come while all answers are fresh, they cost no datagram and have no socket."""
    dns.zone("bl.test", listed=listed, ttl=30, negative_ttl=30)
    by = screen(dns)
    client = by.connect(CLIENT, None)
    wanted = verdict(by, client)
    before = len(dns.queries)
    for _ in range(29):
        clock.now += 1
        assert mail(by, client) == (client, wanted)
        assert client.lookup._exchange.deaf
    assert len(dns.queries) == before
    clock.now += 2
    renewed, same = mail(by, client)
    assert (renewed is client, same) == (False, wanted)
    assert len(dns.queries) > before


def test_ten_messages_in_a_second_ask_once(dns, clock):
    """Whatever the time to live: an answer that must not be kept is good for a second of one connection."""
    dns.zone("a.test", negative_ttl=0)
    dns.zone("b.test", rcode="SERVFAIL")
    dns.zone("c.test", listed=LISTED, ttl=0)
    by = screen(dns, "a.test", "b.test", "c.test")
    client = by.connect(CLIENT, None)
    for _ in range(10):
        client, said = mail(by, client)
        assert said == "reject"
        clock.now += 0.09
    assert sum(query.kind == "A" for query in dns.queries) == 3


@pytest.mark.parametrize("ttl", [0, 1, 5])
def test_listed_and_delisted(dns, clock, ttl):
    """A client that is listed while it is connected is refused from the next message on, and let in again."""
    dns.zone("bl.test", negative_ttl=ttl)
    by = screen(dns)
    client = by.connect(CLIENT, None)
    assert verdict(by, client) == "accept"
    for listed, before, after in ((LISTED, "accept", "reject"), ({}, "reject", "accept")):
        dns.zone("bl.test", listed=listed, ttl=ttl, negative_ttl=ttl)
        clock.now += max(ttl, 1) - 0.5
        client, said = mail(by, client)
        assert said == before
        clock.now += 1
        # The transaction that has begun keeps its answers.
        assert verdict(by, client) == before
        client, said = mail(by, client)
        assert said == after


def test_the_first_answer_to_expire_counts(dns, clock):
    """Of several lists the one whose time is over is asked again, the others are not."""
    dns.zone("long.test", negative_ttl=100)
    dns.zone("short.test", negative_ttl=10)
    by = screen(dns, "long.test", "short.test")
    client = by.connect(CLIENT, None)
    verdict(by, client)
    clock.now += 11
    client, _ = mail(by, client)
    assert (dns.count("long.test"), dns.count("short.test")) == (1, 2)
    clock.now += 5
    assert by.renew(client) is client


def test_what_the_cache_knew_expires_too(dns, clock):
    """A client whose answers came from the cache is asked about when their time is over, not later."""
    dns.zone("bl.test", negative_ttl=10)
    by = screen(dns)
    verdict(by, by.connect(CLIENT, None))
    clock.now += 8
    client = by.connect(CLIENT, None)
    assert isinstance(client.lookup, Recalled)
    dns.zone("bl.test", listed=LISTED)
    assert mail(by, client) == (client, "accept")
    clock.now += 3
    assert mail(by, client)[1] == "reject"


def test_an_answer_that_nobody_has_read_grows_old(dns, clock):
    """Who connects, waits to be listed, and only then begins gains nothing: age counts from the question."""
    dns.zone("bl.test", negative_ttl=60)
    by = screen(dns)
    client = by.connect(CLIENT, None)
    wait_until(lambda: dns.queries, "the question arrived")
    time.sleep(0.05)
    dns.zone("bl.test", listed=LISTED)
    clock.now += 240
    assert mail(by, client)[1] == "reject"


def test_a_failed_list_is_asked_again(dns, clock):
    """A list that failed has no vote for a while, and then is asked again."""
    dns.zone("bl.test", rcode="SERVFAIL")
    by = screen(dns)
    client = by.connect(CLIENT, None)
    assert verdict(by, client) == "accept"
    dns.zone("bl.test", listed=LISTED)
    clock.now += findings.FAILURE_FRESH - 1
    assert mail(by, client) == (client, "accept")
    clock.now += 2
    assert mail(by, client)[1] == "reject"


def test_suspension_counts_from_the_next_message(dns):
    """A list that is suspended loses its vote on open connections too, and gets it back, unasked."""
    flags = bytearray(1)
    dns.zone("bl.test", listed=LISTED)
    by = screen(dns, flags=flags)
    client = by.connect(CLIENT, None)
    assert verdict(by, client) == "reject"
    before = dns.count("bl.test", "A")
    for flag, wanted in ((1, "accept"), (0, "reject")):
        flags[0] = flag
        client, said = mail(by, client)
        assert said == wanted
        assert by.renew(client) is client
    assert dns.count("bl.test", "A") == before


def test_a_list_that_is_found_out(dns):
    """What a list said before it was found to list the world is not held against a client that stayed."""
    dns.zone("bl.test", everything="127.0.0.2")
    by = screen(dns)
    client = by.connect(CLIENT, None)
    assert verdict(by, client) == "reject"
    others = [by.connect(f"198.51.100.{n}", None) for n in range(8)]
    assert verdict(by, others[-1]) == "accept"
    assert mail(by, client)[1] == "accept"


def test_no_descriptor_is_left(dns):
    """Asking again closes the look-up before, also one that still waits for a list."""
    flags = bytearray(2)
    dns.zone("dead.test", silent=True)
    dns.zone("bl.test")
    by = screen(dns, "dead.test", "bl.test", flags=flags, timeout=0.05)
    before = sockets()
    client = by.connect(CLIENT, None)
    for turn in range(50):
        flags[1] = turn % 2
        client, _ = mail(by, client)
        assert sockets() <= before + 1
    client.close()
    assert sockets() == before


def test_who_has_no_look_up_stays(dns):
    """A client that no list is asked about, and one without an address, cost nothing."""
    by = screen(dns)
    client = by.connect("unknown", None)
    assert by.renew(client) is client
    assert not dns.queries


MOVES = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from(["list", "delist", "suspend", "restore", ""]), st.integers(1, 4)
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MOVES)
def test_as_a_fresh_connection(dns, clock, moves):
    """After any course of events a message on an open connection gets what one on a new connection gets."""
    flags = bytearray(2)
    dns.zone("a.test", negative_ttl=3)
    dns.zone("b.test", negative_ttl=2)
    by = screen(dns, "a.test", "b.test", flags=flags)
    client = by.connect(CLIENT, None)
    for seconds, what, ttl in moves:
        clock.now += seconds
        if what in ("list", "delist"):
            dns.zone("a.test", listed=LISTED if what == "list" else {}, ttl=ttl, negative_ttl=ttl)
        elif what:
            flags[0] = what == "suspend"
        client, said = mail(by, client)
        fresh = by.connect(CLIENT, None)
        assert verdict(by, fresh) == said
        fresh.close()
    client.close()


def test_through_the_daemon():
    """Through the milter: listed, delisted, failed and listed again, on one connection."""
    with FakeDns() as server, Redis() as redis:
        server.zone("bl.test", ttl=1, negative_ttl=1)
        port = free_port()
        settings = {
            "workers": 1,
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [server.address]},
            "metrics": {"listen": f"{LOOPBACK}:{port}"},
            "rule": [{"name": "bl", "dns": ["bl.test"], "action": "reject"}],
        }
        with Daemon(settings) as daemon, MilterPeer(daemon.address) as peer:
            peer.connect("unknown", CLIENT)

            def said() -> str:
                peer.mail()
                first, second = peer.rcpt("<a@x.example>"), peer.rcpt("<b@x.example>")
                assert first == second
                return first.code or first.kind

            assert said() == "continue"
            for behaviour, wanted in (
                ({"listed": LISTED}, "554"),
                ({}, "continue"),
                ({"rcode": "SERVFAIL"}, "continue"),
            ):
                server.zone("bl.test", ttl=1, negative_ttl=1, **behaviour)
                wait_until(lambda: said() == wanted, f"the answer {wanted}")  # noqa: B023 (called here)
            wait_until(lambda: said() == "continue" and daemon.events("list failing"), "the failure")
            server.zone("bl.test", listed=LISTED, ttl=1)
            wait_until(lambda: said() == "554", "the list that is back")
            daemon.await_events("list recovered")

            def counted(result: str) -> int:
                with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=20) as answer:
                    name = f'hybridgrey_list_answers_total{{list="bl.test",result="{result}"}} '
                    found = [line for line in answer.read().decode().splitlines() if line.startswith(name)]
                return int(float(found[0].removeprefix(name)))

            # Those of each look-up of the connection, though it is still open: of the last one not yet.
            least = {"unlisted": 2, "listed": 1, "error": 1}
            wait_until(lambda: all(counted(what) >= n for what, n in least.items()), "the counts")
