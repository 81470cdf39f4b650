"""One client's questions to all lists, on one UDP socket; retransmission, TCP, and the cache of answers.

At CONNECT `Resolver.ask` sends all questions at once on a connected socket of the client's own and returns:
the kernel keeps the answers while the SMTP dialogue goes on.  `Lookup.peek` reads what is there; at RCPT
`Lookup.collect` waits for what the verdict still needs.  A socket a client, with a port and ids that nobody
can guess, means no reader thread, no lock and no shared state to get wrong, and costs the least CPU of all
ways that were measured.

The wait for one client ends `timeout` seconds after CONNECT, retransmissions included.  A list that has been
silent several times in a row is still asked but no longer waited for, until it answers again; so a dead list
is paid for by a few clients only.  The same holds for a nameserver: the next one takes over.

Called by `screen` and `health`.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Sequence
from typing import cast

import dns.exception
import dns.message
import dns.name
import dns.query

from hybridgrey import question
from hybridgrey.policy import Answer
from hybridgrey.reports import Report
from hybridgrey.zones import Zone

# Seconds after which an unanswered question is asked again; the time doubles with each try.
RETRY_AFTER = 0.4
# A list is silent after so many clients in a row whose wait it let pass.
SILENT_AFTER = 3
# A refusal's TXT record is waited for only when the list answers this quickly (seconds): it cannot change the
# verdict, so it may cost a client that is in a hurry no second round trip to a list that is far away.
QUICK = 0.01
TEXT_WAIT = 0.1
MAX_DATAGRAM = 4096


# What stands for the answers about a client without an IP address: no list can have it.
NO_ADDRESS = Answer(error="no IP address")

# Expiry in monotonic seconds, the answer, and the TXT record (None: not known) of a client in a list.
Known = tuple[float, Answer, str | None]


class Cache:
    """Answers by client, for their TTL; bounded.

    Two generations of dicts: when the young one is full it becomes the old one, and the old one is dropped.
    So nothing is ever searched for a victim, and each step is one atomic dict operation for the threads.
    """

    def __init__(self, clients: int = 8192) -> None:
        self._limit = clients
        self._young: dict[bytes, dict[str, Known]] = {}
        self._old: dict[bytes, dict[str, Known]] = {}

    def get(self, client: bytes) -> dict[str, Known]:
        """What is known of a client, by zone."""
        return self._young.get(client) or self._old.get(client) or {}

    def put(self, client: bytes, zone: str, expires: float, answer: Answer, text: str | None = None) -> None:
        """Keep an answer."""
        known = self._young.get(client)
        if known is None:
            if len(self._young) >= self._limit:
                self._old, self._young = self._young, {}
            known = self._young.setdefault(client, dict(self._old.get(client, {})))
        known[zone] = (expires, answer, text)


class Resolver:
    """What all lookups of a worker share: nameservers, the lists, the cache, and who is silent."""

    def __init__(
        self,
        zones: Sequence[Zone],
        nameservers: Sequence[tuple[str, int]],
        *,
        timeout: float = 2.0,
        suspended: Sequence[int] | bytearray = b"",
        reporter: Report | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.zones = {z.name: z for z in zones}
        self.servers = [_address(host, port) for host, port in nameservers]
        self.timeout = timeout
        self.cache = cache or Cache()
        self.current = 0
        self._suspended = suspended or bytes(len(self.zones))
        self._reporter = reporter
        self._silences = dict.fromkeys(self.zones, 0)
        self._failing: set[str] = set()
        self._server_silences = 0

    def ask(self, client: bytes, zones: Iterable[str]) -> Lookup:
        """Ask lists about a client, 4 or 16 bytes, without waiting; what the cache knows is not asked."""
        lookup = Lookup(self, client)
        wanted = []
        texts = []
        cached = self.cache.get(client)
        now = lookup.started
        for name in zones:
            zone = self.zones[name]
            if self._suspended[zone.index]:
                lookup.answers[name] = Answer(error="suspended")
            elif (known := cached.get(name)) is not None and known[0] > now:
                lookup.answers[name] = known[1]
                if known[2] is not None:
                    lookup.texts[name] = known[2]
                elif zone.wants_text and known[1].codes:
                    texts.append((zone, zone.text_tail))
            else:
                wanted.append((zone, zone.tail))
        if wanted:
            lookup.send(wanted)
        if texts:
            lookup.send(texts, text=True)
        return lookup

    def waits_for(self, zone: str) -> bool:
        """Whether a list is worth waiting for: it answers, as a rule."""
        return self._silences[zone] < SILENT_AFTER

    def heard(self, zone: Zone, answer: Answer) -> None:
        """A list has answered; an answer that is an error is told, as is the first good one after it."""
        if self._silences[zone.name]:
            self._silences[zone.name] = 0
        if answer.error:
            self._fail(zone, answer.error)
        elif zone.name in self._failing:
            self._failing.discard(zone.name)
            if self._reporter:
                self._reporter.recovered(f"list:{zone.label}")

    def silent(self, zone: Zone) -> None:
        """A list has let a client's whole wait pass."""
        self._silences[zone.name] += 1
        if self._silences[zone.name] >= SILENT_AFTER:
            self._fail(zone, "no answer")

    def _fail(self, zone: Zone, error: str) -> None:
        self._failing.add(zone.name)
        if self._reporter:
            self._reporter.failing(f"list:{zone.label}", error=error)

    def server_heard(self, server: int, *, retried: bool) -> None:
        """A nameserver has answered; if it was asked after the current one, that one has let it down."""
        if server == self.current:
            self._server_silences = 0
        elif retried:
            self._server_silences += 1
            if self._server_silences >= SILENT_AFTER:
                self._server_silences = 0
                self.current = server


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and socket address of a nameserver, given by its IP address, with an RFC 4007 zone perhaps."""
    info = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    return info[0], cast(tuple[str, int], info[4])


class Lookup:
    """The questions of one client and the answers that are in; used by one thread at a time.

    `answers` is by zone, as `policy.Facts` wants it; `texts` has TXT records of lists that have the client.
    """

    __slots__ = (
        "_client",
        "_pending",
        "_resolver",
        "_retry_at",
        "_retry_step",
        "_sockets",
        "_tries",
        "_truncated",
        "answers",
        "started",
        "texts",
    )

    def __init__(self, resolver: Resolver, client: bytes) -> None:
        self.started = time.monotonic()
        self.answers: dict[str, Answer] = {}
        self.texts: dict[str, str] = {}
        self._resolver = resolver
        self._client = client
        # Open questions by their id: the list, the question section, whether it is for the text.
        self._pending: dict[bytes, tuple[Zone, bytes, bool]] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._truncated: dict[str, Zone] = {}
        self._tries = 0
        self._retry_step = RETRY_AFTER
        self._retry_at = self.started + RETRY_AFTER

    def send(self, wanted: Sequence[tuple[Zone, bytes]], *, text: bool = False) -> None:
        """Ask each list with the given end of the question."""
        name = question.reversed_name(self._client)
        ids = os.urandom(2 * len(wanted))
        for i, (zone, tail) in enumerate(wanted):
            ident = ids[2 * i : 2 * i + 2]
            while ident in self._pending:
                ident = os.urandom(2)
            self._pending[ident] = zone, name + tail, text
            self._transmit(self._resolver.current, ident, name + tail)

    def _transmit(self, server: int, ident: bytes, ask: bytes) -> None:
        try:
            sock = self._sockets.get(server)
            if sock is None:
                family, where = self._resolver.servers[server]
                sock = self._sockets[server] = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                sock.connect(where)
            sock.send(question.query(ident, ask))
        except OSError:
            # Refused, unreachable, out of descriptors or buffers: the question stays open and is asked again.
            return

    def peek(self) -> None:
        """Read the answers that have come, without waiting."""
        if self._pending:
            self._receive()
            if self._pending and time.monotonic() >= self._retry_at:
                self._retransmit()
            self._finish()

    def collect(self, zones: frozenset[str]) -> None:
        """Wait until another of these lists has answered or the client's time is up.

        Afterwards at least one of them has an answer; those that let the time pass have failed.
        """
        before = len(self.answers)
        self.peek()
        deadline = self.started + self._resolver.timeout
        while len(self.answers) == before:
            self._ask_tcp(zones, deadline)
            if len(self.answers) > before:
                break
            now = time.monotonic()
            waited = [z for z in zones if self._resolver.waits_for(z)]
            if now >= deadline or not waited or not self._pending:
                self._give_up(zones, now >= deadline)
                break
            self._wait(min(deadline, self._retry_at) - now)
            self.peek()
        self._finish()

    def await_text(self, zone: str) -> str:
        """The list's TXT record for the client, "" if it has not come; waited for from a quick list only."""
        answer = self.answers.get(zone)
        if zone not in self.texts and answer is not None and answer.seconds <= QUICK:
            limit = min(time.monotonic() + TEXT_WAIT, self.started + self._resolver.timeout)
            while zone not in self.texts and self._pending:
                left = limit - time.monotonic()
                if left <= 0 or not any(t and z.name == zone for z, _, t in self._pending.values()):
                    break
                self._wait(left)
                self.peek()
        return self.texts.get(zone, "")

    def close(self) -> None:
        """End the lookup; answers that have come meanwhile still reach the cache."""
        if self._pending:
            self._receive()
        self._pending.clear()
        self._finish()

    def _finish(self) -> None:
        """Give the socket back as soon as nothing more is expected on it."""
        if not self._pending and self._sockets:
            for sock in self._sockets.values():
                sock.close()
            self._sockets.clear()

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        for sock in self._sockets.values():
            poll.register(sock.fileno(), select.POLLIN)
        # Rounded up: a wait of a fraction of a millisecond must not become a busy loop.
        poll.poll(max(1, int(seconds * 1000 + 0.999)))

    def _receive(self) -> None:
        for server, sock in list(self._sockets.items()):
            while self._pending:
                try:
                    datagram = sock.recv(MAX_DATAGRAM)
                except BlockingIOError:
                    break
                except OSError:
                    # A nameserver that is not there (ICMP port unreachable): ask the others without delay,
                    # each once, and then keep to the schedule.
                    if self._tries < len(self._resolver.servers) - 1:
                        self._retry_at = time.monotonic()
                    break
                self._take(server, datagram)

    def _take(self, server: int, datagram: bytes) -> None:
        """Use a datagram if it answers an open question; drop it if not (late, forged or duplicate)."""
        open_question = self._pending.get(datagram[:2])
        if open_question is None or not question.answers(datagram, open_question[1]):
            return
        zone, asked, text = open_question
        del self._pending[datagram[:2]]
        self._resolver.server_heard(server, retried=self._tries > 0)
        reply = question.read(datagram, asked)
        if text:
            # One that came truncated is done without: it would be cut to fit the reply anyway.
            self._take_text(zone, reply)
        elif reply.truncated:
            self._truncated[zone.name] = zone
        else:
            self._take_answer(zone, reply)

    def _take_answer(self, zone: Zone, reply: question.Reply) -> None:
        now = time.monotonic()
        seconds = now - self.started
        answer = (
            Answer(error=reply.error, seconds=seconds) if reply.error else zone.answer(reply.codes, seconds)
        )
        self.answers[zone.name] = answer
        self._resolver.heard(zone, answer)
        if answer.error:
            return
        if reply.ttl:
            self._resolver.cache.put(self._client, zone.name, now + reply.ttl, answer)
        if answer.codes and zone.wants_text:
            self.send([(zone, zone.text_tail)], text=True)

    def _take_text(self, zone: Zone, reply: question.Reply) -> None:
        self.texts[zone.name] = reply.text
        answer = self.answers.get(zone.name)
        if reply.ttl and answer is not None and not answer.error:
            expires = time.monotonic() + reply.ttl
            known = self._resolver.cache.get(self._client).get(zone.name)
            if known is not None:
                self._resolver.cache.put(
                    self._client, zone.name, min(expires, known[0]), known[1], reply.text
                )

    def _retransmit(self) -> None:
        """Ask again what is open, the next nameserver if there is one."""
        self._tries += 1
        self._retry_step *= 2
        self._retry_at = time.monotonic() + self._retry_step
        server = (self._resolver.current + self._tries) % len(self._resolver.servers)
        for ident, (_, ask, _text) in list(self._pending.items()):
            self._transmit(server, ident, ask)

    def _ask_tcp(self, zones: frozenset[str], deadline: float) -> None:
        """Ask again over TCP what came truncated (RFC 1035 section 4.2.1)."""
        for name in self._truncated.keys() & zones:
            zone = self._truncated.pop(name)
            self._take_answer(zone, self._exchange_tcp(zone, deadline))

    def _exchange_tcp(self, zone: Zone, deadline: float) -> question.Reply:
        name, _ = dns.name.from_wire(question.reversed_name(self._client) + zone.tail[:-4], 0)
        _, where = self._resolver.servers[self._resolver.current]
        left = max(deadline - time.monotonic(), 0.0)
        try:
            reply = dns.query.tcp(dns.message.make_query(name, "A"), where[0], left, where[1])
        except (OSError, dns.exception.DNSException) as e:
            return question.Reply(error=f"TCP: {type(e).__name__}")
        return question.read_message(reply)

    def _give_up(self, zones: frozenset[str], timed_out: bool) -> None:
        """Lists that have not answered have no vote on this recipient; a late answer has one on the next."""
        elapsed = time.monotonic() - self.started
        for name in zones:
            if name not in self.answers:
                self.answers[name] = Answer(error="no answer in time", seconds=elapsed, silent=True)
                if timed_out:
                    self._resolver.silent(self._resolver.zones[name])
