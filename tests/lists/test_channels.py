"""Sockets that all clients share: answers are those that each has by itself, and forgers get nowhere."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import dns.flags
import dns.message
import pytest

from hybridgrey.lists import channels, lookup
from hybridgrey.lists.awaited import Steps
from hybridgrey.lists.lookup import Lookup
from hybridgrey.lists.recall import Recalled
from hybridgrey.lists.resolver import Resolver
from hybridgrey.policy.judge import Action, Answer
from hybridgrey.spf.carrier import Carrier
from hybridgrey.spf.record import Result
from lists.test_lookup import BEHAVIOURS, CLIENT, LISTED, Told, build, packed, shown
from parts.base import LOOPBACK, free_port
from parts.fakedns import FakeDns
from parts.looped import Looped
from spf.test_carrier import begin, spf

CLIENTS = [f"192.0.2.{i}" for i in range(1, 41)]
MANY = dict.fromkeys(CLIENTS[::3], "127.0.0.2")


@pytest.fixture
def dns_server() -> Iterator[FakeDns]:
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED)
        yield server


@pytest.fixture
def looped() -> Iterator[Looped]:
    with Looped() as made:
        yield made


def resolver(looped: Looped, *servers: tuple[str, int], names=("bl.test",), **options) -> Resolver:
    options.setdefault("timeout", 30)
    return Resolver(
        build(*names, action=Action.ACCEPT), servers, exchange=looped.channels.exchange, **options
    )


def place(server: FakeDns) -> tuple[str, int]:
    return server.host, server.port


def asked(by: Resolver, client: str = CLIENT) -> Lookup | Recalled:
    return lookup.ask(by, packed(client), by.zones)


def gathered(found: Lookup | Recalled, by: Resolver) -> Steps[dict[str, Answer]]:
    """Wait for all lists."""
    while missing := frozenset(by.zones) - found.answers.keys():
        yield from found.collect(missing)
    return dict(found.answers)


def one(looped: Looped, by: Resolver, client: str = CLIENT) -> str:
    """What the only list says."""
    with contextlib.closing(asked(by, client)) as found:
        (answer,) = looped.run(gathered(found, by)).values()
        return shown(answer)


def carriers(found: Lookup | Recalled) -> list[channels.Channel]:
    assert isinstance(found, Lookup)
    return found._exchange._used


# -- the same as alone


@pytest.mark.parametrize(
    ("behaviour", "wanted", "cached"), BEHAVIOURS, ids=[str(row[0]) for row in BEHAVIOURS]
)
def test_answers(looped, behaviour, wanted, cached):
    """What a list may answer is read as on a socket of one's own."""
    with FakeDns() as server:
        server.zone("bl.test", **behaviour)
        by = resolver(looped, place(server), timeout=0.5)
        assert one(looped, by) == wanted
        assert bool(by.cache.get(packed(CLIENT))) is cached


def test_answers_are_read_as_soon_as_the_last_is_there(looped, dns_server):
    """Nobody waits for them, and an idle client is not to hold its questions and datagrams."""
    dns_server.zone("other.test", delay=0.05)
    by = resolver(looped, place(dns_server), names=["bl.test", "other.test"])
    with contextlib.closing(asked(by)) as found:
        looped.until(lambda: len(found.answers) == 2)
        assert found.answers["bl.test"].codes
        assert not found._exchange.open
        assert not carriers(found)
        assert {zone.name for zone, _ in found.heard} == {"bl.test", "other.test"}
    assert not looped.broken


def test_a_bug_in_reading_costs_one_client(looped, dns_server):
    by = resolver(looped, place(dns_server))
    with contextlib.closing(asked(by)) as found, contextlib.closing(asked(by, CLIENTS[0])) as other:

        def broken() -> None:
            raise RuntimeError("a bug")

        found._exchange.when_whole(broken)
        with pytest.raises(RuntimeError, match="a bug"):
            looped.until(lambda: False)
        looped.until(lambda: other.answers)


@pytest.mark.parametrize("lossy", [False, True])
def test_forty_clients_at_once(looped, dns_server, lossy):
    """All have the answers that each has by itself, retransmitted where they got lost."""
    names = ["a.test", "b.test", "broken.test"]
    dns_server.zone("a.test", listed=MANY, delay=0.02, drop_first=int(lossy))
    dns_server.zone("b.test")
    dns_server.zone("broken.test", rcode="SERVFAIL")
    by = resolver(looped, place(dns_server), names=names)
    found = {client: asked(by, client) for client in CLIENTS}
    said: dict[str, dict[str, Answer]] = {}
    for client, each in found.items():
        looped.start(gathered(each, by), lambda answers, client=client: said.setdefault(client, answers))
    looped.until(lambda: len(said) == len(CLIENTS))
    for client in CLIENTS:
        wanted = ["127.0.0.2" if client in MANY else "no", "no", "SERVFAIL"]
        assert [shown(said[client][name]) for name in names] == wanted
    for each in found.values():
        used = carriers(each)
        each.close()
        assert each not in [exchange for one in used for exchange in one.asking()]


def test_the_second_nameserver(looped, dns_server):
    """Where the first one has only an error the second is asked, on its own socket."""
    with FakeDns() as broken:
        broken.zone("bl.test", rcode="SERVFAIL")
        by = resolver(looped, place(broken), place(dns_server))
        assert one(looped, by) == "127.0.0.2"
        assert broken.count("bl.test") == dns_server.count("bl.test") == 1


def test_a_nameserver_that_is_not_there(looped, dns_server):
    """What ICMP says of a shared socket sends all who wait there to the next nameserver at once."""
    reports = Told()
    by = resolver(looped, (LOOPBACK, free_port()), place(dns_server), reporter=reports)
    started = time.monotonic()
    found = [asked(by, client) for client in CLIENTS]
    said: list[dict[str, Answer]] = []
    for each in found:
        looped.start(gathered(each, by), said.append)
    looped.until(lambda: len(said) == len(found))
    assert time.monotonic() - started < 10
    assert {shown(answer) for answers in said for answer in answers.values()} <= {"127.0.0.2", "no"}
    assert "refused" in reports.events[0]


def test_alone_and_refused(looped):
    """With one nameserver that is not there the wait ends in its time, without a busy loop."""
    by = resolver(looped, (LOOPBACK, free_port()), timeout=1)
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    looped.loop.each_turn(count)
    assert one(looped, by) == "no answer in time"
    assert turns < 50


def test_a_text(looped, dns_server):
    """A refusal's reason comes over the same sockets."""
    dns_server.zone("bl.test", listed=LISTED, text="because")
    by = Resolver(build("bl.test"), [place(dns_server)], exchange=looped.channels.exchange)
    with contextlib.closing(asked(by)) as found:
        looped.run(gathered(found, by))
        assert looped.run(found.await_text(["bl.test"])) == ("bl.test", "because")


def test_a_late_answer_still_counts(looped, dns_server):
    """What comes when the judgement has gone on is there for the next one, and in the cache."""
    dns_server.zone("bl.test", listed=LISTED, delay=0.5)
    by = resolver(looped, place(dns_server), timeout=0.1)
    found = asked(by)
    assert shown(looped.run(gathered(found, by))["bl.test"]) == "no answer in time"
    looped.turn_for(0.8)
    found.close()
    assert by.cache.get(packed(CLIENT))


# -- sockets


def test_ids_and_sockets_are_not_to_be_guessed(looped, dns_server):
    """Clients are spread over the sockets by chance, and an id is used once on a socket."""
    names = [f"z{i}.test" for i in range(100)]
    for name in names:
        dns_server.zone(name, silent=True)
    by = resolver(looped, place(dns_server), names=names)
    found = [asked(by, client) for client in CLIENTS]
    used = {carrier for each in found for carrier in carriers(each)}
    assert 5 < len(used) <= 40
    ports = {carrier._sock.getsockname()[1] for carrier in used}
    assert len(ports) == len(used)
    for carrier in used:
        asking = sum(carrier in carriers(each) for each in found)
        assert len(carrier.taken) == 100 * asking
    for each in found:
        each.close()


def test_a_socket_is_renewed(looped, dns_server, monkeypatch):
    """After so many questions another socket takes the place; the old one lingers for answers, then goes."""
    monkeypatch.setattr(channels, "CHANNELS", 1)
    monkeypatch.setattr(channels, "MOST_QUESTIONS", 3)
    monkeypatch.setattr(channels, "LINGER", 0.3)
    watched = looped.loop._watchers
    before = len(watched)
    dns_server.zone("bl.test", listed=MANY, delay=0.1)
    by = resolver(looped, place(dns_server))
    said: list[dict[str, Answer]] = []
    for client in CLIENTS:
        looped.start(gathered(asked(by, client), by), said.append)
    assert len(watched) - before == 14
    looped.until(lambda: len(said) == len(CLIENTS))
    looped.turn_for(0.5)
    assert len(watched) - before == 1


def test_a_socket_ages(looped, dns_server, monkeypatch):
    """One that has been open for its time is not asked on again."""
    monkeypatch.setattr(channels, "CHANNELS", 1)
    by = resolver(looped, place(dns_server))
    first, second = asked(by), asked(by, CLIENTS[1])
    assert carriers(first) == carriers(second)
    carriers(first)[0].expires = time.monotonic()
    third = asked(by, CLIENTS[2])
    assert carriers(third) != carriers(first)
    for each in (first, second, third):
        each.close()


def test_questions_outlive_their_socket(looped, dns_server, monkeypatch):
    """A question that is open when its socket goes is asked again from the next one."""
    monkeypatch.setattr(channels, "CHANNELS", 1)
    monkeypatch.setattr(channels, "LINGER", 0.1)
    dns_server.zone("bl.test", listed=LISTED, drop_first=1)
    by = resolver(looped, place(dns_server))
    found = asked(by)
    (old,) = carriers(found)
    old.expires = time.monotonic()
    other = asked(by, CLIENTS[1])
    answers = looped.run(gathered(found, by))
    assert shown(answers["bl.test"]) == "127.0.0.2"
    assert old not in looped.channels._sets[by.servers.addresses[0]]
    found.close()
    other.close()


def test_out_of_descriptors(looped, dns_server):
    """Without a descriptor one of the open sockets is taken; without any there is nothing to wait for."""
    by = resolver(looped, place(dns_server), timeout=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        alone = asked(by)
        assert alone._exchange.deaf
        assert shown(looped.run(gathered(alone, by))["bl.test"]) == "no answer in time"
        alone.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        first = asked(by, CLIENTS[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        others = [asked(by, client) for client in CLIENTS[2:10]]
        assert {carrier for each in others for carrier in carriers(each)} == set(carriers(first))
        looped.run(gathered(others[0], by))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for each in (first, *others):
        each.close()


# -- forgers


class Forger:
    """A nameserver's socket, so that what it sends has the right address; it answers as a test wants."""

    def __init__(self) -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((LOOPBACK, free_port()))
        self.udp.settimeout(20)
        self.place = self.udp.getsockname()

    def question(self) -> tuple[bytes, tuple[str, int]]:
        """The next question, and where it comes from."""
        return self.udp.recvfrom(512)

    def forge(self, wire: bytes, peer: tuple[str, int], times: int = 1, first: int = 1) -> None:
        """Answers to a question under wrong ids."""
        reply = dns.message.make_response(dns.message.from_wire(wire))
        for number in range(first, first + times):
            reply.id = int.from_bytes(wire[:2], "big") ^ number
            self.udp.sendto(reply.to_wire(), peer)

    def answer(self, wire: bytes, peer: tuple[str, int]) -> None:
        """The honest one: not listed."""
        self.udp.sendto(dns.message.make_response(dns.message.from_wire(wire)).to_wire(), peer)


@pytest.fixture
def forger() -> Iterator[Forger]:
    made = Forger()
    with contextlib.closing(made.udp):
        yield made


def test_a_socket_that_is_guessed_at_goes(looped, forger):
    """Eight datagrams that answer nothing, and the question comes again from another port."""
    by = resolver(looped, forger.place)
    found = asked(by)
    said: list[dict[str, Answer]] = []
    looped.start(gathered(found, by), said.append)
    wire, peer = forger.question()
    forger.forge(wire, peer, channels.MOST_BAD)
    looped.turn_for(0.1)
    again, other = forger.question()
    assert other != peer
    assert again[12:] == wire[12:]
    with contextlib.suppress(ConnectionRefusedError):
        forger.answer(wire, peer)  # right, but to a socket that is closed
    forger.answer(again, other)
    looped.until(lambda: said)
    assert shown(said[0]["bl.test"]) == "no"
    found.close()


def test_fewer_are_borne(looped, forger):
    """Seven do no harm, nor do answers that come twice or after their client has gone, however many."""
    by = resolver(looped, forger.place)
    found = asked(by)
    said: list[dict[str, Answer]] = []
    looped.start(gathered(found, by), said.append)
    (carrier,) = carriers(found)
    wire, peer = forger.question()
    forger.forge(wire, peer, channels.MOST_BAD - 1)
    for _ in range(3 * channels.MOST_BAD):
        forger.answer(wire, peer)
    looped.until(lambda: said)
    found.close()
    for _ in range(3 * channels.MOST_BAD):
        forger.answer(wire, peer)
    looped.turn_for(0.1)
    assert carrier.usable
    assert said[0]["bl.test"].error == ""


def besieged(looped: Looped, forger: Forger, by: Resolver) -> None:
    """Guess at sockets until the questions are to go elsewhere."""
    found = asked(by)
    looped.start(gathered(found, by), lambda _answers: None)
    for _ in range(channels.MOST_REPLACED):
        wire, peer = forger.question()
        forger.forge(wire, peer, channels.MOST_BAD)
        looped.turn_for(0.05)
    found.close()


class Tcp:
    """A nameserver over TCP beside a forger: it answers some questions of a connection, then closes it."""

    def __init__(self, place: tuple[str, int], each: int) -> None:
        self.questions = self.connections = 0
        self._listening = socket.create_server(place)
        self._each = each
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                with connection, connection.makefile("rwb") as stream:
                    for _ in range(self._each):
                        size = stream.read(2)
                        if not size:
                            break
                        wire = stream.read(int.from_bytes(size, "big"))
                        self.questions += 1
                        reply = dns.message.make_response(dns.message.from_wire(wire)).to_wire()
                        framed = len(reply).to_bytes(2, "big") + reply
                        for at in range(0, len(framed), 7):
                            stream.write(framed[at : at + 7])
                            stream.flush()

    def close(self) -> None:
        self._listening.close()


@pytest.mark.parametrize("each", [1, 7, 1000])
def test_a_siege_is_sat_out_over_tcp(looped, forger, each):
    """When sockets are guessed at again and again, questions go over TCP, as many connections as it takes."""
    reports = Told()
    by = resolver(looped, forger.place, reporter=reports)
    with contextlib.closing(Tcp(forger.place, each)) as tcp:
        besieged(looped, forger, by)
        said: list[dict[str, Answer]] = []
        for client in CLIENTS:
            looped.start(gathered(asked(by, client), by), said.append)
        looped.until(lambda: len(said) == len(CLIENTS))
        assert {shown(answers["bl.test"]) for answers in said} == {"no"}
        assert tcp.questions >= len(CLIENTS)
    assert any("as from a forger" in event for event in reports.events)
    assert reports.events[-1].endswith("recovered")


def test_a_siege_ends(looped, forger, monkeypatch):
    """After its time questions go over UDP again."""
    monkeypatch.setattr(channels, "SIEGE", 0.5)
    by = resolver(looped, forger.place)
    with contextlib.closing(Tcp(forger.place, 1000)):
        besieged(looped, forger, by)
        time.sleep(0.5)
        found = asked(by)
        assert isinstance(carriers(found)[0], channels.Channel)
        found.close()


def test_a_siege_without_tcp(looped, forger):
    """A nameserver that does not take TCP is asked over UDP all the same: better that than no list."""
    reports = Told()
    by = resolver(looped, forger.place, reporter=reports)
    besieged(looped, forger, by)
    assert any("as from a forger" in event for event in reports.events)
    found = asked(by)
    said: list[dict[str, Answer]] = []
    looped.start(gathered(found, by), said.append)
    forger.udp.settimeout(0.01)

    def answered() -> bool:
        with contextlib.suppress(TimeoutError):
            forger.answer(*forger.question())
        return bool(said)

    looped.until(answered)
    assert shown(said[0]["bl.test"]) == "no"
    found.close()


def test_a_socket_that_cannot_be_had(looped):
    """A nameserver without a route is an error, not an exception."""
    by = resolver(looped, ("255.255.255.255", 53), timeout=0.3)
    assert one(looped, by) == "no answer in time"
    assert errno.EACCES  # what connect(2) says to a broadcast address


def test_spf_over_the_same_sockets(looped, dns_server):
    """Evaluations of several senders at once, over the wire of the look-ups."""
    by = Carrier(resolver(looped, place(dns_server)))
    for number in range(20):
        spf(dns_server, f"d{number}.example.org", f"v=spf1 a:h{number}.example.org -all")
        dns_server.record(f"h{number}.example.org", "A", CLIENT if number % 2 else "192.0.2.200")
    chains = [begin(by, f"d{number}.example.org", CLIENT) for number in range(20)]
    over: list[None] = []
    for chain in chains:
        looped.start(chain.collect(), over.append)
    looped.until(lambda: len(over) == len(chains))
    assert [chain.outcome.result for chain in chains if chain.outcome] == [Result.FAIL, Result.PASS] * 10
    for chain in chains:
        chain.close()
