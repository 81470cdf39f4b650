"""SPF's questions on the wire: answers of servers good and bad, the cache, and how long anybody waits."""

from __future__ import annotations

import ipaddress
import select
import socket
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.rcode
import dns.rdata
import dns.rrset
import pytest

from hybridgrey.lists.awaited import run
from hybridgrey.lists.resolver import Resolver
from hybridgrey.spf import carrier as carrying
from hybridgrey.spf.cache import Cache
from hybridgrey.spf.carrier import Carrier, Chain
from hybridgrey.spf.evaluate import Identity, Outcome
from hybridgrey.spf.question import Answer, Question, Status
from hybridgrey.spf.record import Result
from parts.base import LOOPBACK, free_port, wait_until
from parts.fakedns import FakeDns, Query
from parts.unbound import Unbound
from spf.test_suite import CASES, identity
from spf.zone import Zone

CLIENT = "192.0.2.7"
LONG = 30.0
"""Seconds that no test waits, unless it is to fail."""


class Told:
    """What a reporter was told."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def failing(self, kind: str, **detail: object) -> None:
        self.kinds.append(f"-{kind}")

    def recovered(self, kind: str) -> None:
        self.kinds.append(f"+{kind}")


@pytest.fixture
def dns_server() -> Iterator[FakeDns]:
    with FakeDns() as server:
        yield server


def carrier(*servers: FakeDns | Unbound | tuple[str, int], timeout: float = LONG, **more: Any) -> Carrier:
    """A worker's carrier, with these nameservers."""
    where = [one if isinstance(one, tuple) else (one.host, one.port) for one in servers]
    return Carrier(Resolver((), where, timeout=timeout), **more)


def begin(by: Carrier, domain: str = "example.org", client: str = CLIENT) -> Chain[Outcome]:
    return by.begin(Identity.of(ipaddress.ip_address(client).packed, domain, "user", "mail.example.net"))


def ended(chain: Chain[Outcome]) -> Outcome:
    """The outcome, waited for; nothing is left open."""
    run(chain.collect())
    chain.close()
    assert chain.outcome is not None
    return chain.outcome


def check(by: Carrier, domain: str = "example.org", client: str = CLIENT) -> Outcome:
    return ended(begin(by, domain, client))


def spf(server: FakeDns, domain: str, text: str) -> None:
    """Serve a record, in strings of at most 255 octets."""
    parts = [text[at : at + 255] for at in range(0, len(text), 255)]
    server.record(domain, "TXT", " ".join(f'"{part}"' for part in parts))


def asked(server: FakeDns, kind: str = "TXT") -> list[str]:
    return [query.name for query in server.queries if query.kind == kind]


def test_every_kind_of_question(dns_server: FakeDns) -> None:
    """TXT, A, AAAA, MX and PTR are asked and read; the outcome names the term."""
    spf(dns_server, "example.org", "v=spf1 a:a.example.org mx:m.example.org ptr:p.example.org -all")
    dns_server.record("a.example.org", "A", "192.0.2.1")
    dns_server.record("a.example.org", "AAAA", "2001:db8::1")
    dns_server.record("m.example.org", "MX", "10 h1.example.org.", "20 H2.Example.ORG.")
    dns_server.record("h2.example.org", "A", "192.0.2.2")
    dns_server.record("3.2.0.192.in-addr.arpa", "PTR", "x.p.example.org.")
    dns_server.record("x.p.example.org", "A", "192.0.2.3")
    by = carrier(dns_server)
    for client, term in {
        "192.0.2.1": "a:a.example.org",
        "2001:db8::1": "a:a.example.org",
        "192.0.2.2": "mx:m.example.org",
        "192.0.2.3": "ptr:p.example.org",
        "192.0.2.4": "-all",
    }.items():
        assert check(by, client=client).term == term


class Served(FakeDns):
    """A server that answers as a zone of the RFC's suite does."""

    world = Zone({})

    def _plain(self, message: dns.message.Message, query: Query) -> dns.message.Message:
        reply = dns.message.make_response(message, recursion_available=True)
        name = message.question[0].name
        raw = ".".join(label.decode("latin-1") for label in name.labels[:-1])
        answer = self.world.answer(Question(raw.lower(), query.kind))
        if answer.status is Status.FAILED:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif answer.status is Status.NXDOMAIN:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif answer.status is Status.FOUND:
            made = [dns.rdata.from_text("IN", query.kind, text) for text in texts(query.kind, answer)]
            reply.answer.append(dns.rrset.from_rdata_list(name, 60, made))
        return reply


def texts(kind: str, answer: Answer) -> Iterator[str]:
    """The records of an answer, as master files have them."""
    for data in answer.data:
        if kind == "TXT":
            parts = [data[at : at + 255] for at in range(0, len(data), 255)] or [b""]
            yield " ".join('"' + "".join(f"\\{octet:03d}" for octet in part) + '"' for part in parts)
        else:
            yield str(ipaddress.ip_address(data))
    for number, name in enumerate(answer.names):
        yield f"{number} {name.rstrip('.')}." if kind == "MX" else f"{name.rstrip('.')}."


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as server:
        yield server


@pytest.mark.parametrize(("case", "records"), [one[1:] for one in CASES], ids=[one[0] for one in CASES])
def test_the_suite_over_the_wire(served: Served, case: Any, records: Any) -> None:
    """Each case of the RFC's suite comes out the same through sockets."""
    served.world = Zone(records)
    outcome = ended(carrier(served).begin(identity(case)))
    wanted = case["result"]
    assert outcome.result.value in ([wanted] if isinstance(wanted, str) else wanted), outcome


def test_a_real_resolver(dns_server: FakeDns) -> None:
    """Through unbound: a record of 600 octets, an alias, an include, what does not exist."""
    long = " ".join(f"ip4:198.51.100.{n}" for n in range(30))
    spf(dns_server, "a.test", f"v=spf1 {long} include:b.test -all")
    dns_server.record("b.test", "CNAME", "c.test.")
    spf(dns_server, "c.test", "v=spf1 ip4:192.0.2.0/24 ?all")
    with Unbound({"test": dns_server.address}) as resolver:
        by = carrier(resolver)
        assert check(by, "a.test").proven
        assert check(by, "a.test").term == "ip4:192.0.2.0/24"
        assert check(by, "a.test", "203.0.113.1").result is Result.FAIL
        assert check(by, "gone.test").result is Result.NONE


def test_the_cache_spares_the_question(dns_server: FakeDns) -> None:
    """What has been asked is known at once, for all clients of the domain; what has no TTL is asked again."""
    spf(dns_server, "example.org", "v=spf1 ip4:192.0.2.0/24 -all")
    by = carrier(dns_server)
    assert check(by).proven
    chain = begin(by, client="198.51.100.1")
    assert chain.outcome
    assert chain.outcome.result is Result.FAIL
    assert 0 < chain.outcome.ttl <= 60
    chain.close()
    assert asked(dns_server) == ["example.org"]
    dns_server.ttl = 0
    spf(dns_server, "other.example", "v=spf1 -all")
    assert [check(by, "other.example").result for _ in range(2)] == [Result.FAIL] * 2
    assert asked(dns_server)[1:] == ["other.example"] * 2


def test_a_cache_within_bounds() -> None:
    """By number and by octets; an answer ends with its time."""
    by_number, by_size = Cache(answers=10), Cache(octets=10_000)
    large = Answer(Status.FOUND, 60, (bytes(1000),))
    for n in range(1000):
        question = Question(f"{n}.example", "TXT")
        by_number.keep(question, Answer(Status.EMPTY, 60), 160.5)
        by_size.keep(question, large, 160.5)
        assert by_number.get(question, 100.0) == Answer(Status.EMPTY, 60)
        assert by_number.get(question, 159.9) is None
    assert len(by_number) <= 20
    assert len(by_size) <= 20


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
def test_an_error_is_the_answer_and_remembered(dns_server: FakeDns, rcode: str) -> None:
    """It ends the question at once, at every nameserver; the next message asks nothing."""
    dns_server.zone("example.org", rcode=rcode)
    by = carrier(dns_server)
    assert check(by).result is Result.TEMPERROR
    chain = begin(by)
    assert chain.outcome
    assert chain.outcome.result is Result.TEMPERROR
    assert chain.outcome.ttl <= 30
    assert asked(dns_server) == ["example.org"]


def test_another_nameserver_may_know_better(dns_server: FakeDns) -> None:
    """One that is not there and one that refuses cost no result."""
    spf(dns_server, "example.org", "v=spf1 ip4:192.0.2.0/24 -all")
    with FakeDns() as bad:
        bad.zone("example.org", rcode="REFUSED")
        assert check(carrier((LOOPBACK, free_port()), bad, dns_server)).proven


def test_lost_datagrams(dns_server: FakeDns) -> None:
    """Questions are sent again, each of a chain's steps by the schedule from its beginning."""
    spf(dns_server, "example.org", "v=spf1 include:b.example.org -all")
    spf(dns_server, "b.example.org", "v=spf1 include:c.example.org -all")
    spf(dns_server, "c.example.org", "v=spf1 ip4:192.0.2.0/24 -all")
    dns_server.zone("example.org", drop_first=1)
    assert check(carrier(dns_server)).proven
    assert asked(dns_server) == [
        name for name in ("example.org", "b.example.org", "c.example.org") for _ in "12"
    ]


@pytest.mark.parametrize("behaviour", [{"forged_first": True}, {"duplicate": True}])
def test_forged_and_duplicate_answers(dns_server: FakeDns, behaviour: dict[str, bool]) -> None:
    """Datagrams of another id or question are no answers, and the second of two is none."""
    spf(dns_server, "example.org", "v=spf1 ip4:192.0.2.0/24 -all")
    dns_server.zone("example.org", **behaviour)
    assert check(carrier(dns_server)).proven


def test_a_dead_nameserver_costs_its_time_and_gives_temperror() -> None:
    """Nobody answers: temperror; the domain is asked again by the next message, for we may be at fault."""
    with FakeDns() as silent:
        silent.zone("example.org", silent=True)
        by = carrier(silent, timeout=0.2)
        assert check(by).result is Result.TEMPERROR
        spf(silent, "example.org", "v=spf1 ip4:192.0.2.0/24 -all")
        silent.zone("example.org")
        by.timeout = LONG
        assert check(by).proven


def test_a_silent_domain_is_waited_for_once(dns_server: FakeDns) -> None:
    """A question that has had more than a second is not waited for again; a late answer ends that."""
    dns_server.zone("example.org", silent=True)
    by = carrier(dns_server, timeout=carrying.SILENCE + 0.2)
    assert check(by).result is Result.TEMPERROR
    chain = begin(by)
    assert chain.outcome
    assert chain.outcome.result is Result.TEMPERROR


def test_silence_of_all_is_paid_for_by_three() -> None:
    """Then chains are short, until something answers; both are told once."""
    told = Told()
    with FakeDns() as server:
        spf(server, "good.test", "v=spf1 ip4:192.0.2.0/24 -all")
        server.zone("dead.test", silent=True)
        by = carrier(server, timeout=0.05, reporter=told)
        for n in range(3):
            assert by.patience == 0.05
            assert check(by, f"{n}.dead.test").result is Result.TEMPERROR
        by.timeout = LONG
        assert by.patience == carrying.HASTE
        assert check(by, "3.dead.test").result is Result.TEMPERROR
        chain = begin(by, "good.test")
        wait_until(lambda: asked(server)[-1] == "good.test", "the question")
        ended(chain)
        assert by.patience == LONG
    assert told.kinds == ["-spf", "-spf", "+spf"]


def test_a_long_record_comes_over_tcp(dns_server: FakeDns) -> None:
    """What EDNS has room for comes at once; what is longer is asked over TCP."""
    for count, transports in {50: ["udp"], 100: ["udp", "tcp"]}.items():
        dns_server.forget()
        terms = " ".join(f"ip4:198.51.100.{n}" for n in range(count))
        spf(dns_server, f"n{count}.test", f"v=spf1 {terms} ip4:192.0.2.0/24 -all")
        assert check(carrier(dns_server), f"n{count}.test").proven
        assert [query.transport for query in dns_server.queries] == transports


def test_tcp_that_hangs(dns_server: FakeDns) -> None:
    """The time is over with it: temperror."""
    dns_server.zone("example.org", truncate=True, truncate_hangs=True)
    assert check(carrier(dns_server, timeout=0.3)).result is Result.TEMPERROR


def test_aliases(dns_server: FakeDns) -> None:
    """A chain of CNAMEs is followed; a loop, and one that is too long, fail; one to nowhere is no record."""
    for n in range(10):
        dns_server.record(f"a{n}.test", "CNAME", f"a{n + 1}.test.")
    spf(dns_server, "a10.test", "v=spf1 ip4:192.0.2.0/24 -all")
    dns_server.record("loop.test", "CNAME", "pool.test.")
    dns_server.record("pool.test", "CNAME", "loop.test.")
    dns_server.record("lost.test", "CNAME", "nowhere.test.")
    by = carrier(dns_server)
    assert check(by, "a2.test").proven
    assert check(by, "a1.test").result is Result.TEMPERROR
    assert check(by, "loop.test").result is Result.TEMPERROR
    assert check(by, "lost.test").result is Result.NONE


def test_what_comes_next_goes_out_at_once(dns_server: FakeDns) -> None:
    """The second include is asked together with the first; its answer is used when its turn comes."""
    spf(dns_server, "example.org", "v=spf1 include:a.test include:b.test a:c.test -all")
    spf(dns_server, "b.test", "v=spf1 ip4:192.0.2.0/24 -all")
    dns_server.zone("a.test", silent=True)
    chain = begin(carrier(dns_server))
    readable(chain)
    chain.peek()
    wait_until(lambda: len(dns_server.queries) == 4, "four questions")
    assert {(query.name, query.kind) for query in dns_server.queries[1:]} == {
        ("a.test", "TXT"),
        ("b.test", "TXT"),
        ("c.test", "A"),
    }
    assert chain.outcome is None
    chain.close()


def readable(chain: Chain[Outcome]) -> None:
    """Wait until something has come."""
    exchange = chain._exchange
    assert exchange
    assert select.select(exchange.filenos(), [], [], LONG)[0]


def test_what_comes_late_is_for_the_next(dns_server: FakeDns) -> None:
    """A chain that nobody waits for still fills the cache when it is closed."""
    spf(dns_server, "example.org", "v=spf1 ip4:192.0.2.0/24 -all")
    by = carrier(dns_server)
    chain = begin(by)
    readable(chain)
    chain.close()
    again = begin(by)
    assert again.outcome
    assert again.outcome.proven
    again.close()


def test_a_slow_dialogue_is_not_our_wait(dns_server: FakeDns) -> None:
    """A chain of three steps, looked at for the first time when its time would be over."""
    spf(dns_server, "example.org", "v=spf1 include:b.test -all")
    spf(dns_server, "b.test", "v=spf1 include:c.test -all")
    spf(dns_server, "c.test", "v=spf1 ip4:192.0.2.0/24 -all")
    chain = begin(carrier(dns_server, timeout=2.0))
    chain._seen -= 60
    chain._deadline -= 60
    assert ended(chain).proven


def test_no_domain_costs_nothing(dns_server: FakeDns) -> None:
    """No socket, no question."""
    for domain in ("", "localhost", "[192.0.2.1]", "a..b", "x" * 64 + ".test"):
        chain = carrier(dns_server).begin(Identity.of(b"\xc0\0\2\7", domain, "", "localhost"))
        assert chain.outcome
        assert chain.outcome.result is Result.NONE
        assert chain._exchange is None
    assert dns_server.queries == []


def test_no_descriptor_is_left(dns_server: FakeDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """temperror at once, and the domain is not held to have failed."""
    spf(dns_server, "example.org", "v=spf1 ip4:192.0.2.0/24 -all")
    by = carrier(dns_server)

    def none_left(*args: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", none_left)
        assert check(by).result is Result.TEMPERROR
    assert check(by).proven


def test_pools_by_the_same_way(dns_server: FakeDns) -> None:
    """The networks of a domain, with the time for which they hold."""
    spf(dns_server, "example.org", "v=spf1 ip4:192.0.2.0/24 include:b.test -all")
    spf(dns_server, "b.test", "v=spf1 ip6:2001:db8::/32 -all")
    chain = carrier(dns_server).pool("example.org")
    run(chain.collect())
    chain.close()
    assert chain.outcome
    assert list(map(str, chain.outcome.networks)) == ["192.0.2.0/24", "2001:db8::/32"]
    assert chain.outcome.ttl == pytest.approx(60, abs=5)
