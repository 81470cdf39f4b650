"""Query names and replies: real wire formats, odd ones, and bytes that are no DNS at all."""

from __future__ import annotations

import ipaddress

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybridgrey.lists import question
from hybridgrey.lists.question import Reply

NAMES = [
    # address, wanted
    ("192.0.2.1", "1.2.0.192.bl.test."),
    ("255.10.0.9", "9.0.10.255.bl.test."),
    ("2001:db8::1", "1." + "0." * 23 + "8.b.d.0.1.0.0.2.bl.test."),
    ("::ffff:127.0.0.2", "2.0.0.0.0.0.f.7.f.f.f.f." + "0." * 20 + "bl.test."),
    (
        "fedc:ba98:7654:3210:0123:4567:89ab:cdef",
        ".".join("fedcba98765432100123456789abcdef"[::-1]) + ".bl.test.",
    ),
]


def ask(address: str = "192.0.2.1", zone: str = "bl.test", rdtype: int = question.A) -> bytes:
    return question.reversed_name(ipaddress.ip_address(address).packed) + question.tail(zone, rdtype)


@pytest.mark.parametrize(("address", "wanted"), NAMES)
def test_query_name(address, wanted):
    """A query is well formed, recursive, and has the reversed address in the zone (RFC 5782 section 2)."""
    message = dns.message.from_wire(b"\x12\x34" + question.HEADER + ask(address))
    assert message.id == 0x1234
    assert message.flags == dns.flags.RD
    assert [(r.name.to_text(), r.rdtype, r.rdclass) for r in message.question] == [(wanted, 1, 1)]


def test_text_query_and_long_zone():
    """The type is in the template; a zone of the greatest length that the configuration takes still fits."""
    zone = ".".join(["a" * 63, "b" * 63, "c" * 60])
    message = dns.message.from_wire(b"ab" + question.HEADER + ask("2001:db8::1", zone, question.TXT))
    assert message.question[0].rdtype == question.TXT
    assert len(message.question[0].name.to_wire()) == 1 + 64 + len(zone) + 1


SOA = "bl.test. {ttl} IN SOA ns.test. root.test. 1 600 300 86400 {minimum}"


def reply(*records: str, rcode: str = "NOERROR", kind: str = "A", soa: str = "", flags: int = 0) -> bytes:
    """A reply to `ask()`, made by dnspython; records are "NAME TTL IN TYPE DATA"."""
    message = dns.message.make_response(dns.message.make_query("1.2.0.192.bl.test.", kind))
    message.set_rcode(dns.rcode.from_text(rcode))
    message.flags |= flags
    for section, texts in ((message.answer, records), (message.authority, [soa] if soa else [])):
        for text in texts:
            name, ttl, rdclass, rdtype, data = text.split(" ", 4)
            section.append(dns.rrset.from_text(name, int(ttl), rdclass, rdtype, data))
    return message.to_wire()


ME = "1.2.0.192.bl.test."
TWO, THREE, NINE = (bytes((127, 0, 0, n)) for n in (2, 3, 9))
# RFC 2181 section 8: with its top bit set a time to live is 0.
TOP = 1 << 31
READ = [
    # what, wire, wanted
    ("listed", reply(f"{ME} 300 IN A 127.0.0.2"), Reply((TWO,), 300)),
    ("least ttl", reply(f"{ME} 300 IN A 127.0.0.2", f"{ME} 60 IN A 127.0.0.3"), Reply((TWO, THREE), 60)),
    ("ttl 0", reply(f"{ME} 0 IN A 127.0.0.2"), Reply((TWO,), 0)),
    ("ttl with its top bit", reply(f"{ME} {TOP} IN A 127.0.0.2"), Reply((TWO,), 0)),
    ("ttl of all bits", reply(f"{ME} {2 * TOP - 1} IN A 127.0.0.2"), Reply((TWO,), 0)),
    ("ttl just below", reply(f"{ME} {TOP - 1} IN A 127.0.0.2"), Reply((TWO,), question.MAX_TTL)),
    (
        "one of two ttls with its top bit",
        reply(f"{ME} 300 IN A 127.0.0.2", f"{ME} {TOP + 300} IN A 127.0.0.3"),
        Reply((TWO, THREE), 0),
    ),
    (
        "alias with its top bit",
        reply(f"{ME} {TOP + 9} IN CNAME x.test.", "x.test. 60 IN A 127.0.0.2"),
        Reply((TWO,), 0),
    ),
    (
        "end of an alias with its top bit",
        reply(f"{ME} 60 IN CNAME x.test.", f"x.test. {TOP + 9} IN A 127.0.0.2"),
        Reply((TWO,), 0),
    ),
    (
        "alias to nowhere, soa with its top bit",
        reply(f"{ME} 300 IN CNAME x.bl.test.", rcode="NXDOMAIN", soa=SOA.format(ttl=TOP, minimum=60)),
        Reply(),
    ),
    (
        "alias to nowhere, minimum with its top bit",
        reply(f"{ME} 300 IN CNAME x.bl.test.", rcode="NXDOMAIN", soa=SOA.format(ttl=60, minimum=TOP)),
        Reply(),
    ),
    ("soa with its top bit", reply(rcode="NXDOMAIN", soa=SOA.format(ttl=TOP, minimum=60)), Reply()),
    ("minimum with its top bit", reply(rcode="NXDOMAIN", soa=SOA.format(ttl=60, minimum=TOP)), Reply()),
    ("ttl bounded", reply(f"{ME} 9999999 IN A 127.0.0.2"), Reply((TWO,), question.MAX_TTL)),
    (
        "cname",
        reply(f"{ME} 300 IN CNAME x.test.", "x.test. 50 IN A 127.0.0.9"),
        Reply((NINE,), 50),
    ),
    ("cname to nowhere", reply(f"{ME} 300 IN CNAME x.test."), Reply()),
    (
        "cname to nowhere, denied",
        reply(f"{ME} 300 IN CNAME x.bl.test.", rcode="NXDOMAIN", soa=SOA.format(ttl=60, minimum=60)),
        Reply(ttl=60),
    ),
    (
        "denied with records",
        reply(f"{ME} 300 IN A 127.0.0.2", rcode="NXDOMAIN"),
        Reply(error="malformed reply: AnswerForNXDOMAIN"),
    ),
    ("cname loop", reply(f"{ME} 9 IN CNAME {ME}"), Reply(error="malformed reply: ChainTooLong")),
    ("extra record", reply("other.test. 9 IN A 127.0.0.3", f"{ME} 30 IN A 127.0.0.2"), Reply((TWO,), 30)),
    ("only another's", reply("other.test. 9 IN A 127.0.0.3"), Reply()),
    ("denied", reply(rcode="NXDOMAIN", soa=SOA.format(ttl=900, minimum=60)), Reply(ttl=60)),
    ("denied, soa ttl less", reply(rcode="NXDOMAIN", soa=SOA.format(ttl=30, minimum=60)), Reply(ttl=30)),
    ("denied for days", reply(rcode="NXDOMAIN", soa=SOA.format(ttl=99999, minimum=99999)), Reply(ttl=10800)),
    ("no data", reply(soa=SOA.format(ttl=900, minimum=60)), Reply(ttl=60)),
    ("denied without soa", reply(rcode="NXDOMAIN"), Reply()),
    ("referral", reply(soa="bl.test. 900 IN NS ns.test."), Reply()),
    ("truncated", reply(flags=dns.flags.TC), Reply(truncated=True)),
    ("servfail", reply(rcode="SERVFAIL"), Reply(error="SERVFAIL")),
    ("refused", reply(rcode="REFUSED"), Reply(error="REFUSED")),
    ("refused with records", reply(f"{ME} 9 IN A 127.0.0.2", rcode="REFUSED"), Reply(error="REFUSED")),
    ("unknown rcode", reply(rcode="13"), Reply(error="13")),
]


@pytest.mark.parametrize(("wire", "wanted"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_read(wire, wanted):
    """Codes, time to live and errors of a reply are what the RFCs say."""
    assert question.answers(wire, ask())
    assert question.read(wire, ask()) == wanted


@pytest.mark.parametrize(
    ("record", "wanted"),
    [('"Listed, see x"', "Listed, see x"), ('"in " "two"', "in two"), ('"8\\195\\164 %n"', "8\\xc3\\xa4 %n")],
)
def test_read_text(record, wanted):
    """A TXT record's strings are one text, ASCII with the rest escaped."""
    wire = reply(f"{ME} 60 IN TXT {record}", kind="TXT")
    assert question.read(wire, ask(rdtype=question.TXT)) == Reply(text=wanted, ttl=60)


def test_text_is_missing():
    """A name with no TXT record has no text and no error."""
    wire = reply(kind="TXT", soa=SOA.format(ttl=60, minimum=60))
    assert question.read(wire, ask(rdtype=question.TXT)) == Reply(ttl=60)


def changed(wire: bytes, at: int, to: bytes) -> bytes:
    return wire[:at] + to + wire[at + len(to) :]


LISTED = reply(f"{ME} 300 IN A 127.0.0.2")
NO_ANSWERS = [
    ("empty", b""),
    ("header only", LISTED[:12]),
    ("a query", changed(LISTED, 2, b"\x01")),
    ("another opcode", changed(LISTED, 2, b"\xa9")),
    ("no question", changed(LISTED, 4, b"\x00\x00")),
    ("two questions", changed(LISTED, 4, b"\x00\x02")),
    ("another name", changed(LISTED, 13, b"9")),
    ("another case", LISTED.replace(b"bl", b"BL")),
    ("another type", changed(LISTED, 12 + len(ask()) - 3, b"\x10")),
    ("another class", changed(LISTED, 12 + len(ask()) - 1, b"\x03")),
    ("cut question", LISTED[: 12 + len(ask()) - 1]),
]


@pytest.mark.parametrize("wire", [row[1] for row in NO_ANSWERS], ids=[row[0] for row in NO_ANSWERS])
def test_what_does_not_answer_the_question(wire):
    """A datagram that does not repeat the question to the letter is no answer to it."""
    assert question.answers(LISTED, ask())
    assert not question.answers(wire, ask())


@given(st.binary(max_size=80), st.integers(0, 255), st.integers(0, 255), st.sampled_from([1, 16]))
@example(b"\x00\x01\x00\x00\x00\x00\xc0", 0x80, 0, 1)
def test_reading_any_bytes_never_raises(rest, flags, rcode, rdtype):
    """Whatever follows the question, reading gives codes of four bytes, or an error, and a sane TTL."""
    asked = ask(rdtype=rdtype)
    wire = (
        b"id"
        + bytes((flags & 0x07 | 0x80, rcode))
        + b"\x00\x01"
        + rest[:6].ljust(6, b"\0")
        + asked
        + rest[6:]
    )
    assert question.answers(wire, asked)
    check(question.read(wire, asked))


@given(
    st.sampled_from([row[1] for row in READ if row[0] != "truncated"]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    st.integers(0, 200),
)
def test_reading_damaged_replies_never_raises(wire, changes, cut):
    """A reply with bytes changed or missing is refused or read safely."""
    damaged = bytearray(wire)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    damaged = damaged[: len(damaged) - cut % len(damaged)]
    if question.answers(bytes(damaged), ask()):
        check(question.read(bytes(damaged), ask()))


def check(found: Reply) -> None:
    assert all(len(code) == 4 for code in found.codes)
    assert 0 <= found.ttl <= question.MAX_TTL
    assert not (found.error and (found.codes or found.ttl))
    assert found.text.isascii()


@given(st.binary(max_size=120))
def test_any_bytes_answer_only_with_the_question_in_them(wire):
    """No datagram is taken that lacks the question asked."""
    assert not question.answers(wire, ask()) or ask() in wire
