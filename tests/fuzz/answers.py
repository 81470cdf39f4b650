"""Replies of nameservers: to questions of lists, and of SPF."""

from __future__ import annotations

import socket

import dns.message
import dns.rrset

from fuzz.base import CLIENT, one_line
from hybridgrey.filter import reply as words
from hybridgrey.lists import question, zones
from hybridgrey.lists.exchange import Exchange
from hybridgrey.lists.upstream import Nameservers, NoReporter
from hybridgrey.policy.judge import Action, Rule
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.spf import wire
from hybridgrey.spf.question import Question, Status

ASKED = question.reversed_name(CLIENT) + question.tail("bl.test", question.A)
ASKED_TEXT = question.reversed_name(CLIENT) + question.tail("bl.test", question.TXT)
ZONE = zones.build([Rule("x", Action.REJECT, lists=(ListEntry.parse("bl.test"),))], {})[0]


def replies() -> list[bytes]:
    """Replies of every shape, each to the question about the client."""
    made = []
    for kind, rows in {
        "A": ["127.0.0.2"],
        "TXT": ['"Listed, see http://bl.test/"'],
        "CNAME": ["other.test."],
        "SOA": ["ns.test. root.test. 1 2 3 4 5"],
    }.items():
        for rcode in (0, 2, 3, 5):
            query = dns.message.make_query("1.2.0.192.bl.test", "TXT" if kind == "TXT" else "A", id=0)
            reply = dns.message.make_response(query)
            reply.set_rcode(rcode)
            section = reply.authority if kind == "SOA" else reply.answer
            section.append(dns.rrset.from_text(query.question[0].name, 60, "IN", kind, *rows))
            made.append(reply.to_wire())
    return made


def dns_reply(data: bytes) -> None:
    """Any datagram is read, as codes of four bytes or an error, and never raises."""
    # The head is made right, so that what follows it is what is tried.
    data = data.ljust(12, b"\0")
    for asked in (ASKED, ASKED_TEXT):
        head = data[:2] + bytes(
            (0x80 | (data[2] & 7 if len(data) > 2 else 0), data[3] if len(data) > 3 else 0)
        )
        message = head + b"\0\1" + data[6:12] + asked + data[12 + len(asked) :]
        assert question.answers(message, asked)
        reply = question.read(message, asked)
        assert all(len(code) == 4 for code in reply.codes)
        assert 0 <= reply.ttl <= question.MAX_TTL
        assert not (reply.error and reply.codes)
        answer = ZONE.answer(reply.codes)
        assert answer.error or all(code[0] == 127 for code in answer.codes)
        one_line(words.printable(reply.text))


def spf_reply(data: bytes) -> None:
    """Any message is read, to records within their bounds or an error, and never raises."""
    data = data.ljust(12, b"\0")
    for kind, tail in wire.TAILS.items():
        asked = wire.labels("example.org") + tail
        message = data[:2] + bytes((0x80 | data[2] & 7, data[3])) + b"\0\1" + data[6:12] + asked + data[12:]
        assert question.answers(message, asked)
        reply = wire.read(message, asked)
        assert len(reply.codes) <= wire.MAX_RECORDS
        assert 0 <= reply.ttl <= question.MAX_TTL
        assert not (reply.error and reply.codes)
        answer = wire.answer(Question("example.org", kind), reply)
        assert (answer.status is Status.FOUND) == bool(answer.data or answer.names)
        assert (answer.status is Status.FAILED) == bool(reply.error)


def spf_rows() -> list[bytes]:
    """Answers of every type: header and records, without the question."""
    made = []
    for kind, rows in {
        "A": ["192.0.2.1", "192.0.2.2"],
        "AAAA": ["2001:db8::1"],
        "MX": ["10 mx.example.org."],
        "PTR": ["host.example.org."],
        "TXT": ['"v=spf1 a" " -all"'],
        "CNAME": ["x.example.org."],
    }.items():
        query = dns.message.make_query("example.org", "A" if kind == "CNAME" else kind, id=0)
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", kind, *rows))
        soa = "ns.test. root.test. 1 2 3 4 5"
        reply.authority.append(dns.rrset.from_text("example.org.", 60, "IN", "SOA", soa))
        data = reply.to_wire()
        made.append(data[:12] + data[12 + 17 :])
    return made


def dns_datagram(data: bytes) -> None:
    """A look-up takes a datagram only if it has the id and the question of an open question."""
    exchange: Exchange[str] = Exchange(Nameservers([("127.0.0.1", 9)], NoReporter()), 0.0)
    ident = b"\x12\x34"
    exchange.open[ident] = ("a subject", ASKED, 0)
    exchange.ended = True  # asks nothing more
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.setblocking(False)
        exchange._sockets[0] = here
        there.send(data)
        came = list(exchange.receive())
    if not (data[:2] == ident and data[12:].startswith(ASKED)):
        assert ident in exchange.open
        assert came == []
