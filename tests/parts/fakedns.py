"""A DNS server on real sockets that misbehaves on request; for what rbldnsd and unbound never do.

    with FakeDns() as dns:
        dns.zone("bl.test", listed={"192.0.2.1": "127.0.0.2"}, text="Listed")
        dns.zone("dead.test", silent=True)
        dns.zone("far.test", delay=0.08, listed={"192.0.2.1": "127.0.0.2"})
        dns.record("1.2.0.192.in-addr.arpa", "PTR", "mail.example.org.")

A zone's keywords are the fields of `Zone`; a record of a name in a zone comes as the zone behaves. Names
outside every zone and record are NXDOMAIN. `dns.queries` has every question in its order, and
`dns.count(zone)` how many came for one zone. Zones may be replaced while it runs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from parts.base import LOOPBACK, free_port

SocketMaker = Callable[[int, int], socket.socket]
MAX_ALIASES = 12
TEST_POINTS = ("127.0.0.2", "::ffff:127.0.0.2")


@dataclass(frozen=True, slots=True)
class Zone:
    """How one zone behaves; times in seconds."""

    listed: Mapping[str, str | Sequence[str]] = field(default_factory=dict)  # address: codes
    text: str = ""  # the TXT record of what is listed
    everything: str | Sequence[str] = ()  # codes for every question, listed or not
    test_points: bool = True  # the addresses RFC 5782 wants listed are
    ttl: int = 60
    negative_ttl: int = 60
    rcode: str = "NOERROR"  # else no answer but this: "SERVFAIL", "REFUSED", …
    delay: float = 0.0
    text_delay: float = 0.0  # for TXT, in addition
    silent: bool = False
    silent_kinds: Sequence[str] = ()  # no answer to these record types
    drop_first: int = 0  # so many queries of each name are lost
    truncate: bool = False  # over UDP: TC and no records
    truncate_hangs: bool = False  # and then TCP accepts and says nothing
    wrong_id: bool = False  # the right answer under a wrong id, and only that
    wrong_question: bool = False  # "listed", but for another question
    forged_first: bool = (
        False  # a listing under a wrong id and one for a wrong question come before the answer
    )
    duplicate: bool = False  # every answer twice
    garbage: bool = False  # bytes that are no DNS message
    extra: bool = False  # unrelated records in all sections
    cname: str = ""  # answer by way of this name


@dataclass(frozen=True, slots=True)
class Query:
    """One question that arrived."""

    name: str
    kind: str
    transport: str


def reversed_labels(address: str) -> str:
    """The labels before the zone in a list's query name (RFC 5782)."""
    pointer = ipaddress.ip_address(address).reverse_pointer
    return pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def _codes(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


class FakeDns:
    """The server; `address` is what `nameservers` takes. `make_socket` may open them in another namespace."""

    def __init__(
        self,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        make_socket: SocketMaker = socket.socket,
    ) -> None:
        self.host, self.port = host, port or free_port(host)
        self.zones: dict[str, Zone] = {}
        self.records: dict[tuple[str, str], list[str]] = {}
        self.ttl = 60  # of records
        self.queries: list[Query] = []
        self._lost: dict[Query, int] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._make_socket = make_socket
        self._timers: list[threading.Timer] = []
        self._threads: list[threading.Thread] = []

    # -- what it serves

    def zone(self, name: str, **behaviour: object) -> None:
        """Serve a zone, or replace it; keywords are the fields of Zone."""
        self.zones = {**self.zones, name: Zone(**behaviour)}  # type: ignore[arg-type]

    def record(self, name: str, kind: str, *values: str) -> None:
        """Serve records of one name; TXT values want their quotes; of a CNAME all that it leads to comes."""
        self.records = {**self.records, (name.lower().rstrip("."), kind): list(values)}

    def pointer(self, address: str, name: str, *, forged: bool = False) -> None:
        """Give an address a host name that has this address; or, when `forged`, only another one."""
        ip = ipaddress.ip_address(address)
        self.record(ip.reverse_pointer, "PTR", name.rstrip(".") + ".")
        kind, other = ("AAAA", "2001:db8:ffff::1") if ip.version == 6 else ("A", "203.0.113.254")
        if not forged:
            self.record(name, kind, address)
        elif (name.lower().rstrip("."), kind) not in self.records:
            self.record(name, kind, other)

    # -- what it saw

    def count(self, zone: str, kind: str | None = None) -> int:
        """How many questions came for names in `zone`."""
        return sum(
            query.name.endswith("." + zone) and kind in (None, query.kind) for query in list(self.queries)
        )

    def forget(self) -> None:
        """Start counting again."""
        self.queries.clear()

    @property
    def nameserver(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    address = nameserver

    # -- running

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._udp = self._make_socket(family, socket.SOCK_DGRAM)
        self._tcp = self._make_socket(family, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (self._udp, self._tcp):
            one.bind((self.host, self.port))
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._tcp.listen(64)
        for loop in (self._serve_udp, self._serve_tcp):
            thread = threading.Thread(target=loop, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        for timer in self._timers:
            timer.cancel()
        for one in (self._udp, self._tcp):
            # A shutdown wakes the thread that waits in recv or accept; an unconnected socket says ENOTCONN.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for one in (self._udp, self._tcp):
            one.close()

    def _serve_udp(self) -> None:
        while not self._closed.is_set():
            try:
                wire, peer = self._udp.recvfrom(65535)
            except OSError:
                continue
            if wire:
                self._take(wire, "udp", partial(self._send_udp, peer))

    def _send_udp(self, peer: Any, reply: bytes) -> None:
        # The client may have closed its socket: that is its right.
        with contextlib.suppress(OSError):
            self._udp.sendto(reply, peer)

    def _serve_tcp(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                continue
            threading.Thread(target=self._serve_connection, args=(connection,), daemon=True).start()

    def _serve_connection(self, connection: socket.socket) -> None:
        def send(reply: bytes) -> None:
            with contextlib.suppress(OSError):
                connection.sendall(struct.pack("!H", len(reply)) + reply)

        with connection, connection.makefile("rb") as stream:
            while len(head := stream.read(2)) == 2:
                self._take(stream.read(struct.unpack("!H", head)[0]), "tcp", send)

    # -- one question

    def _take(self, wire: bytes, transport: str, send: Callable[[bytes], None]) -> None:
        try:
            message = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return
        question = message.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        query = Query(name, dns.rdatatype.to_text(question.rdtype), transport)
        self.queries.append(query)
        zone_name, zone = self._zone_of(name)
        if zone is None:
            send(_fitting(self._plain(message, query), message, transport))
            return
        if self._is_lost(query, zone):
            return
        replies = self._replies(message, query, zone_name, zone)
        delay = zone.delay + (zone.text_delay if query.kind == "TXT" else 0)
        if delay:
            timer = threading.Timer(delay, _send_all, (send, replies))
            timer.daemon = True
            self._timers.append(timer)
            timer.start()
            return
        _send_all(send, replies)

    def _zone_of(self, name: str) -> tuple[str, Zone | None]:
        for zone_name, zone in self.zones.items():
            if name == zone_name or name.endswith("." + zone_name):
                return zone_name, zone
        return "", None

    def _is_lost(self, query: Query, zone: Zone) -> bool:
        if (
            zone.silent
            or query.kind in zone.silent_kinds
            or (zone.truncate_hangs and query.transport == "tcp")
        ):
            return True
        with self._lock:
            seen = self._lost.get(query, 0)
            self._lost[query] = seen + 1
        return seen < zone.drop_first

    def _plain(self, message: dns.message.Message, query: Query) -> dns.message.Message:
        reply = dns.message.make_response(message, recursion_available=True)
        reply.flags |= dns.flags.AA
        name = query.name
        for _ in range(MAX_ALIASES):
            alias = self.records.get((name, "CNAME"))
            if not alias or query.kind == "CNAME":
                break
            reply.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", "CNAME", *alias))
            name = alias[0].lower().rstrip(".")
        if values := self.records.get((name, query.kind)):
            reply.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", query.kind, *values))
        elif not any(name == one for one, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply

    def _replies(self, message: dns.message.Message, query: Query, name: str, zone: Zone) -> list[bytes]:
        if zone.garbage:
            return [b"\x00", message.to_wire()[:7], b"\xff" * 40]
        answer = self._answer(message, query, name, zone).to_wire()
        if zone.wrong_id:
            return [_other_id(answer)]
        lie = self._listing_of_another(message)
        if zone.wrong_question:
            return [lie]
        replies = [answer, answer] if zone.duplicate else [answer]
        if zone.forged_first:
            forged = self._answer(message, query, name, Zone(everything="127.0.0.2")).to_wire()
            replies = [_other_id(forged), lie, *replies]
        return replies

    @staticmethod
    def _listing_of_another(message: dns.message.Message) -> bytes:
        other = dns.message.make_query("4.3.2.1.another.test", "A", id=message.id)
        reply = dns.message.make_response(other, recursion_available=True)
        reply.answer.append(dns.rrset.from_text(other.question[0].name, 60, "IN", "A", "127.0.0.2"))
        return reply.to_wire()

    def _answer(
        self, message: dns.message.Message, query: Query, zone_name: str, zone: Zone
    ) -> dns.message.Message:
        reply = dns.message.make_response(message, recursion_available=True)
        reply.flags |= dns.flags.AA  # else a resolver in front would think us lame
        if zone.rcode != "NOERROR":
            reply.set_rcode(dns.rcode.from_text(zone.rcode))
            return reply
        if zone.truncate and query.transport == "udp":
            reply.flags |= dns.flags.TC
            return reply
        if any(name == query.name for name, _ in self.records):
            return self._plain(message, query)
        self._fill(reply, query, zone_name, zone)
        return reply

    def _fill(self, reply: dns.message.Message, query: Query, zone_name: str, zone: Zone) -> None:
        owner = reply.question[0].name
        codes = self._codes_of(query.name.removesuffix("." + zone_name), zone)
        if zone.cname and codes:
            reply.answer.append(dns.rrset.from_text(owner, zone.ttl, "IN", "CNAME", zone.cname + "."))
            owner = dns.name.from_text(zone.cname)
        if codes and query.kind == "A":
            reply.answer.append(dns.rrset.from_text(owner, zone.ttl, "IN", "A", *codes))
        elif codes and query.kind == "TXT" and zone.text:
            quoted = '"' + zone.text.replace("\\", "\\\\").replace('"', '\\"') + '"'
            reply.answer.append(dns.rrset.from_text(owner, zone.ttl, "IN", "TXT", quoted))
        else:
            minimum = f"ns.test. root.test. 1 600 300 86400 {zone.negative_ttl}"
            reply.authority.append(
                dns.rrset.from_text(zone_name + ".", zone.negative_ttl, "IN", "SOA", minimum)
            )
            if not codes:
                reply.set_rcode(dns.rcode.NXDOMAIN)
        if zone.extra:
            reply.answer.insert(0, dns.rrset.from_text("unrelated.test.", 60, "IN", "A", "127.0.0.2"))
            reply.authority.append(dns.rrset.from_text(zone_name + ".", 60, "IN", "NS", "ns.test."))
            reply.additional.append(dns.rrset.from_text("ns.test.", 60, "IN", "A", "127.0.0.2"))

    @staticmethod
    def _codes_of(labels: str, zone: Zone) -> list[str]:
        if zone.everything:
            return _codes(zone.everything)
        for address, codes in zone.listed.items():
            if reversed_labels(address) == labels:
                return _codes(codes)
        if zone.test_points and labels in map(reversed_labels, TEST_POINTS):
            return ["127.0.0.2"]
        return []


def _fitting(reply: dns.message.Message, asked: dns.message.Message, transport: str) -> bytes:
    """The reply, or a truncated one where it is too long for a datagram (RFC 6891 section 6.2.3)."""
    wire = reply.to_wire(max_size=65535)
    if transport == "udp" and len(wire) > max(512, asked.payload):
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        wire = reply.to_wire()
    return wire


def _send_all(send: Callable[[bytes], None], replies: Sequence[bytes]) -> None:
    for reply in replies:
        send(reply)


def _other_id(wire: bytes) -> bytes:
    return bytes([wire[0] ^ 0x55, wire[1] ^ 0xAA]) + wire[2:]
