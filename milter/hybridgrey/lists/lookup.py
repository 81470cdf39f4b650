"""One client's questions to all lists, on one UDP socket; retransmission and TCP.

At CONNECT `Resolver.ask` sends all questions at once on a connected socket of the client's own and returns:
the kernel keeps the answers while the SMTP dialogue goes on.  `Lookup.peek` reads what is there; at RCPT
`Lookup.collect` waits for what the verdict still needs.  A socket a client, with a port and ids that nobody
can guess, means no reader thread, no lock and no shared state to get wrong, and costs the least CPU of all
ways that were measured.

The wait for one client ends `timeout` seconds after CONNECT, retransmissions included.  Lists and nameservers
that do not answer are taken out by `upstream` after a few clients.

A list that has died may list the world from one moment to the next, and `health` looks only every few
minutes.  So when a list has had several clients in a row, the next one's listing is *held* until the list has
been asked about an address that nobody can have; if it lists that, too, it has no vote.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from hybridgrey.lists import question
from hybridgrey.lists.cache import Cache, Known, Record
from hybridgrey.lists.recall import Recalled, first_text, recall
from hybridgrey.lists.texts import Reasons
from hybridgrey.lists.upstream import Lists, Nameservers, NoReporter
from hybridgrey.lists.zones import Zone
from hybridgrey.policy.judge import NOT_LISTED, Answer
from hybridgrey.trouble.reporter import Report

# Seconds after which an unanswered question is asked again; the time doubles with each try.
RETRY_AFTER = 0.4
# The longest wait (seconds) for a refusal's TXT record, where it is waited for at all (see `texts`).
TEXT_WAIT = 0.1
# A list whose TCP was silent gets this little time (seconds) to show that it is back.
TCP_SECOND_CHANCE = 0.1
# Seconds for which an open connection does with an answer at least, even one that is not to be kept: who
# sends MAIL after MAIL must not make us ask a hundred times a second.
LEAST_FRESH = 1.0
# The same for a list that has failed; RFC 2308 section 7 allows up to five minutes.
FAILURE_FRESH = 5.0
# What a question is for.
_VERDICT, _TEXT, _CHECK = range(3)
MAX_DATAGRAM = 4096
# So many datagrams are read in one go at most: a flood of forged ones must not hold the thread.
MAX_BATCH = 1000

# What stands for the answers about a client without an IP address: no list can have it.
NO_ADDRESS = Answer(error="no IP address")
SUSPENDED = Answer(error="suspended")
LISTS_ANYBODY = "lists any address, and so perhaps the world"


# Waits on what it is given for so many milliseconds at most.
Wait: TypeAlias = Callable[["select.poll", int], object]


def poll_only(poll: select.poll, milliseconds: int) -> None:
    """Wait for nobody's sake but one's own."""
    poll.poll(milliseconds)


class Resolver:
    """What all lookups of a worker share: nameservers, the lists, the cache, and who is silent."""

    def __init__(
        self,
        zones: Sequence[Zone],
        nameservers: Sequence[tuple[str, int]],
        *,
        timeout: float = 2.0,
        suspended: Sequence[int] | bytearray | memoryview = b"",
        reporter: Report | None = None,
        cache: Cache | None = None,
        wait: Wait = poll_only,
    ) -> None:
        """`nameservers`: at least one; `suspended`: a byte for each zone, by its index, read by `ask`."""
        reporter = reporter or NoReporter()
        self.zones = {z.name: z for z in zones}
        self.servers = Nameservers(nameservers, reporter)
        self.lists = Lists(zones, reporter)
        self.reasons = Reasons()
        self.timeout = timeout
        self.wait = wait
        # An empty cache is false, so no `or` here.
        self.cache = Cache() if cache is None else cache
        self._forgot_at = float("-inf")
        self._suspended = suspended if len(suspended) else bytes(max((z.index for z in zones), default=0) + 1)

    def is_fresh(self, lookup: Lookup | Recalled) -> bool:
        """Whether what a look-up has will do for another transaction of its client.

        It does while no answer is older than its time to live, and no list has lost its vote or got it back.
        """
        return (
            lookup.is_fresh(time.monotonic())
            and lookup.started >= self._forgot_at
            and lookup.suspended == bytes(self._suspended)
        )

    def forget(self, zone: str, now: float) -> None:
        """What a list has said of any client is worth nothing."""
        self.cache.forget(zone)
        self._forgot_at = now

    def ask(self, client: bytes, zones: Iterable[str]) -> Lookup | Recalled:
        """Ask lists about a client, 4 or 16 bytes, without waiting; what the cache knows is not asked."""
        record = self.cache.get(client)
        asked = [self.zones[name] for name in zones]
        suspended = bytes(self._suspended)
        if record and not any(suspended[zone.index] for zone in asked):
            recalled = recall(record, asked, time.monotonic(), suspended)
            if recalled is not None:
                return recalled
        return self._asked(client, asked, suspended)

    def _asked(self, client: bytes, zones: Iterable[Zone], suspended: bytes) -> Lookup:
        lookup = Lookup(self, client, suspended)
        wanted = []
        quoted: Zone | None = None
        cached = lookup.record
        now = lookup.started
        for zone in zones:
            name = zone.name
            if suspended[zone.index]:
                lookup.answers[name] = SUSPENDED
            elif (known := cached.get(name)) is not None and known[0] > now:
                lookup.answers[name] = known[1]
                lookup.expires(known[0])
                if known[2] is not None:
                    lookup.texts[name] = known[2]
                elif zone.wants_text and known[1].codes:
                    quoted = quoted or zone
            else:
                wanted.append((zone, zone.tail))
        if wanted:
            lookup.send(wanted)
        if quoted and not lookup.texts:
            lookup.find_text(quoted)
        return lookup


class Lookup:
    """The questions of one client and the answers that are in; used by one thread at a time.

    `answers` is by zone, as `Facts` wants it; `texts` has TXT records of lists that have the client.
    An answer's `seconds` go from CONNECT to when it was read, so they are the list's own time only if we
    had to wait for it.
    """

    __slots__ = (
        "_asked_at",
        "_client",
        "_closed",
        "_deadline",
        "_expiry",
        "_first",
        "_held",
        "_hurried",
        "_kept",
        "_look_at",
        "_pending",
        "_refusals",
        "_resolver",
        "_retry_at",
        "_retry_step",
        "_sockets",
        "_text_of",
        "_tries",
        "_truncated",
        "_turns",
        "answers",
        "heard",
        "record",
        "started",
        "suspended",
        "texts",
    )

    def __init__(self, resolver: Resolver, client: bytes, suspended: bytes) -> None:
        """`suspended`: the resolver's flags as they are now."""
        self.started = time.monotonic()
        self.suspended = suspended
        # When the questions were sent, the last time: an answer may lie in the socket for minutes.
        self._asked_at = self.started
        # When the first of the answers expires; and until when nobody need look, for what lies in the socket
        # expires, too.
        self._expiry = float("inf")
        self._look_at = self.started + LEAST_FRESH
        self.answers: dict[str, Answer] = {}
        self.texts: dict[str, str] = {}
        # What came in answer to this look-up, not from the cache; for who counts.
        self.heard: list[tuple[Zone, Answer]] = []
        self.record: Record = resolver.cache.get(client) or {}
        self._kept = False
        self._resolver = resolver
        self._client = client
        # Open questions by their id: the list, the question section, what it is for.
        self._pending: dict[bytes, tuple[Zone, bytes, int]] = {}
        # Listings that wait for the list's check, and for how many seconds they hold, by list.
        self._held: dict[str, tuple[Answer, int]] = {}
        # How many nameservers have answered a question with an error, by its id.
        self._refusals: dict[bytes, int] = {}
        # Lists to be asked over TCP, and at which nameserver.
        self._truncated: dict[str, tuple[Zone, int]] = {}
        self._sockets: dict[int, socket.socket] = {}
        servers = resolver.servers
        # Nameservers in the order in which they are asked; the first of them.
        self._turns = servers.turns(self.started) if servers.troubled else servers.usual
        self._first = self._turns[0]
        # The list that has been asked for its text; one reason is enough for a refusal.
        self._text_of = ""
        self._tries = 0
        self._hurried = False
        self._closed = False
        self._deadline = self.started + resolver.timeout
        self._retry_step = RETRY_AFTER
        self._retry_at = self.started + RETRY_AFTER

    def send(self, wanted: Sequence[tuple[Zone, bytes]], kind: int = _VERDICT, address: bytes = b"") -> None:
        """Ask each list with the given end of the question, about the client or another address."""
        name = question.reversed_name(address or self._client)
        pending, server = self._pending, self._server()
        ids = os.urandom(2 * len(wanted))
        at = 0
        for zone, tail in wanted:
            ident = ids[at : at + 2]
            at += 2
            while ident in pending:
                ident = os.urandom(2)
            ask = name + tail
            pending[ident] = zone, ask, kind
            self._transmit(server, ident, ask)

    def find_text(self, zone: Zone) -> None:
        """Find the words of a list that has the client: those that it has for others too, or ask it."""
        name = self._text_of = zone.name
        codes, now = self.answers[name].codes, time.monotonic()
        text = self._resolver.reasons.guess(name, codes, self._name(), now)
        if text is None:
            self.send([(zone, zone.text_tail)], _TEXT)
            return
        self.texts[name] = text
        known = self.record.get(name)
        if known is not None and known[0] > now:
            self.record[name] = known[0], known[1], text

    def _name(self) -> str:
        """The client's address as lists write it."""
        return socket.inet_ntop(socket.AF_INET if len(self._client) == 4 else socket.AF_INET6, self._client)

    def _server(self) -> int:
        """Whose turn it is."""
        return self._turns[self._tries % len(self._turns)]

    def _transmit(self, server: int, ident: bytes, ask: bytes) -> None:
        try:
            (self._sockets.get(server) or self._connect(server)).send(ident + question.HEADER + ask)
        except OSError as e:
            # Refused, unreachable, out of descriptors or buffers: the question stays open and is asked again.
            self._unreachable(server, e)

    def _connect(self, server: int) -> socket.socket:
        """A socket that takes datagrams from this nameserver only."""
        family, where = self._resolver.servers.addresses[server]
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(where)
        except OSError:
            # Not kept: an unconnected one would take datagrams from everybody.
            sock.close()
            raise
        self._sockets[server] = sock
        return sock

    def _unreachable(self, server: int, error: OSError) -> None:
        """A nameserver is not there: ask the others without delay, each once, then keep to the schedule."""
        self._resolver.servers.failed(server, error.strerror or str(error))
        if self._tries < len(self._resolver.servers) - 1:
            self._hurried = True

    def is_fresh(self, now: float) -> bool:
        """Whether no answer has expired; reads those that have come long ago."""
        if now < self._look_at:
            return True
        if self._pending:
            self.peek()
        self._look_at = min(self._expiry, now + LEAST_FRESH) if self._pending else self._expiry
        return now < self._expiry

    def expires(self, at: float) -> None:
        """Note when an answer does."""
        self._expiry = min(self._expiry, at)
        self._look_at = min(self._look_at, at)

    def _expires_in(self, ttl: int) -> float:
        """Note an answer's time to live; when it ends."""
        self.expires(self._asked_at + max(ttl, LEAST_FRESH))
        return self._asked_at + ttl

    def peek(self) -> None:
        """Read the answers that have come, without waiting; ask again when it is time to."""
        if self._pending:
            self._receive()
            now = time.monotonic()
            if self._pending and (self._hurried or now >= self._retry_at):
                self._retransmit(now)
            self._finish()

    def collect(self, zones: frozenset[str]) -> None:
        """Wait until one of these lists has answered or the client's time is up.

        `zones` have no answer yet.  Afterwards at least one of them has; those that let the time pass have
        failed.
        """
        self.peek()
        while zones.isdisjoint(self.answers):
            self._ask_tcp(zones)
            if not zones.isdisjoint(self.answers):
                break
            now = time.monotonic()
            # Without a socket there is nothing to wait for: no descriptor is left, or no route.
            asked = self._pending and self._sockets
            if now >= self._deadline or not asked or not any(map(self._resolver.lists.waits_for, zones)):
                self._give_up(zones, now)
                break
            self._wait(0 if self._hurried else min(self._deadline, self._retry_at) - now)
            self.peek()
        self._finish()

    def await_text(self, zones: Sequence[str]) -> tuple[str, str]:
        """One of these lists, which have the client, with its TXT record, "" if that has not come.

        It is waited for shortly, and only if that is worth it (see `texts`).
        """
        self.peek()
        if self._text_of not in zones and self.texts.keys().isdisjoint(zones):
            # Another list's text was asked for, one whose code matches no entry.
            self.find_text(self._resolver.zones[zones[0]])
        if self._expects_text(zones):
            self._wait_for_text(self._text_of)
        return first_text(zones, self.texts)

    def _expects_text(self, zones: Sequence[str]) -> bool:
        """Whether a text from one of these lists is on its way and worth the wait."""
        zone = self._text_of
        if zone not in zones or not any(kind == _TEXT for _, _, kind in self._pending.values()):
            return False
        return self._resolver.reasons.worth_waiting(
            zone, self.answers[zone].codes, self._name(), time.monotonic()
        )

    def _wait_for_text(self, zone: str) -> None:
        reasons = self._resolver.reasons
        started = now = time.monotonic()
        limit = started + min(TEXT_WAIT, self._resolver.timeout)
        while zone not in self.texts and self._sockets and now < limit:
            self._wait(limit - now)
            self.peek()
            now = time.monotonic()
        reasons.waited(zone, now - started)
        if zone not in self.texts:
            reasons.learn(zone, self.answers[zone].codes, self._name(), "", now)

    def close(self) -> None:
        """End the lookup; answers that have come meanwhile still reach the cache."""
        self._closed = True
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
        self._resolver.wait(poll, max(1, int(seconds * 1000 + 0.999)))

    def _receive(self) -> None:
        pending = self._pending
        for server, sock in list(self._sockets.items()):
            try:
                for _ in range(MAX_BATCH):
                    if not pending:
                        return
                    datagram = sock.recv(MAX_DATAGRAM)
                    # Anything else is late, forged or a duplicate.
                    asked = pending.get(datagram[:2])
                    if asked is not None and question.answers(datagram, asked[1]):
                        self._take(server, datagram, asked)
            except BlockingIOError:
                continue
            except OSError as e:
                # ICMP: port, host or network unreachable.
                self._unreachable(server, e)

    def _take(self, server: int, datagram: bytes, open_question: tuple[Zone, bytes, int]) -> None:
        """Use a datagram that answers an open question."""
        ident = datagram[:2]
        zone, asked, kind = open_question
        reply = question.read(datagram, asked)
        if not reply.error:
            servers = self._resolver.servers
            if servers.troubled or server != self._first:
                servers.heard(server, asked=self._first)
        elif self._ask_another(server, ident, asked):
            return
        del self._pending[ident]
        if kind == _TEXT:
            # One that came truncated is done without: it would be cut to fit the reply anyway.
            self._take_text(zone, reply)
        elif kind == _CHECK:
            self._take_check(zone, reply)
        elif reply.truncated:
            self._truncated[zone.name] = zone, server
        else:
            self._take_answer(zone, reply)

    def _ask_another(self, server: int, ident: bytes, asked: bytes) -> bool:
        """Whether an error is not yet the answer, because another nameserver may know better."""
        refusals = self._refusals[ident] = self._refusals.get(ident, 0) + 1
        if self._closed or refusals >= len(self._resolver.servers):
            return False
        self._transmit((server + 1) % len(self._resolver.servers), ident, asked)
        return True

    def _take_answer(self, zone: Zone, reply: question.Reply) -> None:
        if not reply.codes:
            self._take_denial(zone, reply.ttl, reply.error)
            return
        now = time.monotonic()
        answer = zone.answer(reply.codes, now - self.started)
        if not answer.error and self._resolver.lists.doubts(zone):
            self._hold(zone, answer, reply.ttl)
        else:
            self._use(zone, answer, reply.ttl, now)

    def _take_denial(self, zone: Zone, ttl: int, error: str) -> None:
        """Use what nearly every list says of nearly every client, or the error that it has instead."""
        now, name, lists = time.monotonic(), zone.name, self._resolver.lists
        answer = self.answers[name] = Answer((), error, now - self.started)
        self.heard.append((zone, answer))
        lists.run[name] = 0
        if error or lists.troubled:
            lists.heard(zone, answer)
        if error:
            self.expires(now + FAILURE_FRESH)
            return
        expiry = self._expires_in(ttl)
        if ttl:
            # One answer for all denials: the cache is nearly all of them.
            self._remember(name, (expiry, NOT_LISTED, None))

    def _hold(self, zone: Zone, answer: Answer, ttl: int) -> None:
        """Keep a listing back until the list has been asked about an address that it cannot have."""
        if not self._closed:
            self._held[zone.name] = answer, ttl
            self.send([(zone, zone.tail)], _CHECK, zone.nobody(ipv6=len(self._client) == 16))

    def _take_check(self, zone: Zone, reply: question.Reply) -> None:
        """Use the listing that was held, or tell that the list has no vote."""
        now = time.monotonic()
        lists = self._resolver.lists
        answer, ttl = self._held.pop(zone.name)
        if reply.codes or reply.error or reply.truncated:
            error = reply.error or zone.answer(reply.codes).error or LISTS_ANYBODY
            if zone.name not in lists.failing:
                # What it said of the clients before this one is worth no more.
                self._resolver.forget(zone.name, now)
            answer, ttl = Answer(error=error, seconds=now - self.started), 0
        else:
            lists.checked(zone)
        self._use(zone, answer, ttl, now)

    def _use(self, zone: Zone, answer: Answer, ttl: int, now: float) -> None:
        """Use a listing, or the error that it turned out to be."""
        self.answers[zone.name] = answer
        self.heard.append((zone, answer))
        if answer.error or self._resolver.lists.troubled:
            self._resolver.lists.heard(zone, answer)
            if answer.error:
                self.expires(now + FAILURE_FRESH)
                return
        expiry = self._expires_in(ttl)
        if ttl:
            self._remember(zone.name, (expiry, answer, None))
        if zone.wants_text and not self._text_of and not self._closed:
            self.find_text(zone)

    def _remember(self, zone: str, known: Known) -> None:
        self.record[zone] = known
        if not self._kept:
            self._kept = True
            self._resolver.cache.keep(self._client, self.record, len(self._resolver.zones))

    def _take_text(self, zone: Zone, reply: question.Reply) -> None:
        self.texts[zone.name] = reply.text
        answer, now = self.answers.get(zone.name), time.monotonic()
        if answer is not None and not reply.error:
            self._resolver.reasons.learn(zone.name, answer.codes, self._name(), reply.text, now)
        known = self.record.get(zone.name)
        if reply.ttl and known is not None:
            self._remember(zone.name, (min(now + reply.ttl, known[0]), known[1], reply.text))

    def _retransmit(self, now: float) -> None:
        """Ask again what is open, the next nameserver if there is one."""
        if not self._hurried:
            self._retry_step *= 2
        self._hurried = False
        self._asked_at = now
        self._retry_at = now + self._retry_step
        self._tries += 1
        if self._tries == 1 and now >= self._deadline:
            # A slow dialogue: nobody has looked at the answers until now.  That one datagram was lost must
            # not cost a list its vote, and this client has not been made to wait yet.
            self._deadline = now + min(RETRY_AFTER, self._resolver.timeout)
        server = self._server()
        for ident, (_, ask, _kind) in list(self._pending.items()):
            self._transmit(server, ident, ask)

    def _ask_tcp(self, zones: frozenset[str]) -> None:
        """Ask again over TCP what came truncated (RFC 1035 section 4.2.1)."""
        for name in self._truncated.keys() & zones:
            zone, server = self._truncated.pop(name)
            left = self._deadline - time.monotonic()
            if not self._resolver.lists.waits_for(name):
                left = min(left, TCP_SECOND_CHANCE)
            self._take_tcp(zone, server, max(left, 0.0))

    def _take_tcp(self, zone: Zone, server: int, seconds: float) -> None:
        from hybridgrey.lists import tcp  # only when there is need, see there

        _, where = self._resolver.servers.addresses[server]
        name = question.reversed_name(self._client) + zone.tail[:-4]
        reply = tcp.ask(name, (where[0], where[1]), seconds)
        if reply is None:
            self._silent(zone, "no answer over TCP in time", time.monotonic())
            self._resolver.lists.silent(zone)
        else:
            self._take_answer(zone, reply)

    def _give_up(self, zones: frozenset[str], now: float) -> None:
        """Lists that have not answered have no vote on this recipient; a late answer has one on the next."""
        for name in zones:
            if name not in self.answers:
                zone = self._resolver.zones[name]
                self._silent(zone, "no answer in time", now)
                if now >= self._deadline:
                    self._resolver.lists.silent(zone)

    def _silent(self, zone: Zone, error: str, now: float) -> None:
        answer = self.answers[zone.name] = Answer(error=error, seconds=now - self.started, silent=True)
        self.heard.append((zone, answer))
        self.expires(now + FAILURE_FRESH)
