"""Look-ups over sockets that all clients share, driven by one loop: the exchange is all that differs."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import pytest

from hybridgrey.lists import lookup, question, zones
from hybridgrey.lists.awaited import Answers, Steps, run
from hybridgrey.lists.exchange import Came, Exchange
from hybridgrey.lists.lookup import Lookup
from hybridgrey.lists.question import Form
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.upstream import Nameservers
from hybridgrey.lists.zones import Zone
from hybridgrey.policy.judge import Action, Rule
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.spf.cache import Cache
from hybridgrey.spf.carrier import Carrier
from hybridgrey.spf.evaluate import Identity
from parts.fakedns import FakeDns

CLIENTS = [f"192.0.2.{i}" for i in range(1, 41)]
LISTED = dict.fromkeys(CLIENTS[::3], "127.0.0.2")


class Channel:
    """A connected socket, and whose the ids of its open questions are."""

    def __init__(self, server: FakeDns) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.connect((server.host, server.port))
        self.open: dict[bytes, Shared] = {}

    def read(self) -> Iterator[Shared]:
        """Hand on what has come; the exchanges that it is for."""
        with contextlib.suppress(BlockingIOError):
            while True:
                datagram = self.sock.recv(4096)
                if (exchange := self.open.get(datagram[:2])) is not None:
                    exchange.inbox.append(datagram)
                    yield exchange


class Shared(Exchange[Any]):
    """The wire of one client over a channel of many."""

    __slots__ = ("channel", "inbox")

    def __init__(
        self, channels: Iterator[Channel], servers: Nameservers, now: float, form: Form = question.LISTS
    ) -> None:
        super().__init__(servers, now, form)
        self.channel = next(channels)
        self.inbox: list[bytes] = []

    @property
    def deaf(self) -> bool:
        return False

    def filenos(self) -> list[int]:
        return []

    def ask(self, name: bytes, wanted: Sequence[tuple[Any, bytes]], purpose: int) -> None:
        for zone, tail in wanted:
            while (ident := os.urandom(2)) in self.channel.open:
                pass
            self.open[ident] = zone, name + tail, purpose
            self._transmit(0, ident, name + tail)

    def _transmit(self, server: int, ident: bytes, ask: bytes) -> None:
        self.channel.open[ident] = self
        self.channel.sock.send(ident + self._form.head + ask + self._form.foot)

    def receive(self) -> Iterator[Came[Any]]:
        while self.inbox:
            datagram = self.inbox.pop(0)
            if (came := self.answered(0, datagram)) is not None:
                del self.channel.open[datagram[:2]]
                yield came

    def close(self) -> None:
        for ident in self.open:
            self.channel.open.pop(ident, None)
        super().close()


class Loop:
    """One thread for all: channels, and what is awaited until when."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.selector = selectors.DefaultSelector()
        self.waiting: dict[Exchange[Any], tuple[Steps[None], float]] = {}
        for channel in channels:
            self.selector.register(channel.sock, selectors.EVENT_READ, channel)

    def resume(self, steps: Steps[None]) -> None:
        with contextlib.suppress(StopIteration):
            awaited = next(steps)
            assert isinstance(awaited, Answers)
            self.waiting[awaited.exchange] = steps, awaited.until

    def run(self) -> None:
        """Until nobody waits any more."""
        while self.waiting:
            first = min(until for _, until in self.waiting.values())
            for key, _ in self.selector.select(max(0.0, first - time.monotonic())):
                for exchange in list(key.data.read()):
                    self.wake(exchange)
            now = time.monotonic()
            for exchange in [e for e, (_, until) in self.waiting.items() if until <= now]:
                self.wake(exchange)

    def wake(self, exchange: Exchange[Any]) -> None:
        if (waiting := self.waiting.pop(exchange, None)) is not None:
            self.resume(waiting[0])


@pytest.fixture
def dns() -> Iterator[FakeDns]:
    with FakeDns() as server:
        yield server


def built(*names: str) -> tuple[Zone, ...]:
    lists = tuple(map(ListEntry.parse, names))
    return zones.build([Rule(name="x", action=Action.ACCEPT, lists=lists)], {})


def test_spf_over_the_same_sockets(dns: FakeDns) -> None:
    """Forty chains of two steps on an exchange of their own each, in the sockets of all."""
    dns.record("example.test", "TXT", '"v=spf1 include:more.test -all"')
    dns.record("more.test", "TXT", '"v=spf1 ip4:192.0.2.0/28 -all"')
    channels = [Channel(dns), Channel(dns)]
    loop = Loop(channels)
    by = Carrier(
        Resolver((), [(dns.host, dns.port)], timeout=30, exchange=partial(Shared, cycle(channels))),
        cache=Cache(answers=0, octets=0),
    )
    packed = {client: ipaddress.ip_address(client).packed for client in CLIENTS}
    chains = {client: by.begin(Identity.of(packed[client], "example.test")) for client in CLIENTS}
    for chain in chains.values():
        loop.resume(chain.collect())
    loop.run()
    for number, chain in enumerate(chains.values(), 1):
        assert chain.outcome is not None
        assert chain.outcome.proven is (number < 16)
        chain.close()
    assert not any(channel.open for channel in channels)
    for channel in channels:
        channel.sock.close()


def said(found: Lookup) -> dict[str, tuple[tuple[bytes, ...], str]]:
    """Codes and errors, by list."""
    return {name: (answer.codes, answer.error) for name, answer in found.answers.items()}


def gathered(found: Lookup, names: Sequence[str]) -> Steps[None]:
    """Wait for all lists."""
    while missing := frozenset(names) - found.answers.keys():
        yield from found.collect(missing)


@pytest.mark.parametrize("lossy", [False, True])
def test_one_loop_and_two_sockets_for_all(dns: FakeDns, lossy: bool) -> None:
    """Forty clients at once have the answers that each has by itself, retransmitted where they got lost."""
    names = ["a.test", "b.test", "broken.test"]
    dns.zone("a.test", listed=LISTED, delay=0.02, drop_first=int(lossy))
    dns.zone("b.test")
    dns.zone("broken.test", rcode="SERVFAIL")
    server = [(dns.host, dns.port)]
    channels = [Channel(dns), Channel(dns)]
    loop = Loop(channels)
    by = Resolver(built(*names), server, timeout=30, exchange=partial(Shared, cycle(channels)))
    packed = {client: ipaddress.ip_address(client).packed for client in CLIENTS}
    found = {client: lookup.ask(by, packed[client], names) for client in CLIENTS}
    for each in found.values():
        assert isinstance(each, Lookup)
        loop.resume(gathered(each, names))
    loop.run()
    alone = Resolver(built(*names), server, timeout=30)
    for client, each in found.items():
        assert isinstance(each, Lookup)
        other = lookup.ask(alone, packed[client], names)
        assert isinstance(other, Lookup)
        run(gathered(other, names))
        assert said(each) == said(other), client
        each.close()
        other.close()
    assert not any(channel.open for channel in channels)
    for channel in channels:
        channel.sock.close()
