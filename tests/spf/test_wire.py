"""Replies read by hand, checked against dnspython, and hostile ones."""

from __future__ import annotations

import socket
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridgrey.lists.question import Reply, answers
from hybridgrey.spf import wire
from hybridgrey.spf.question import Answer, Question, Status

ME = "example.org."
SOA = "ns.test. root.test. 1 2 3 4 {minimum}"


def question(kind: str, name: str = ME) -> bytes:
    return wire.labels(name.removesuffix(".")) + wire.TAILS[kind]  # type: ignore[index]


def reply(kind: str, *rows: str, rcode: str = "NOERROR", soa: str = "", flags: int = 0) -> bytes:
    """A reply to the question about `ME`; rows are lines of a zone, `soa` "TTL MINIMUM"."""
    message = dns.message.make_response(dns.message.make_query(ME, kind, id=7))
    message.set_rcode(dns.rcode.from_text(rcode))
    message.flags |= flags
    for row in rows:
        name, ttl, type_, value = row.split(" ", 3)
        message.answer.append(dns.rrset.from_text(name, int(ttl), "IN", type_, value))
    if soa:
        ttl, minimum = soa.split()
        message.authority.append(
            dns.rrset.from_text("org.", int(ttl), "IN", "SOA", SOA.format(minimum=minimum))
        )
    return message.to_wire(max_size=65535)


def raw(kind: str, rows: bytes, count: int = 1, head: bytes = b"\0\7\x80\0\0\1") -> bytes:
    """A reply whose records are written by hand."""
    return head + count.to_bytes(2, "big") + bytes(4) + question(kind) + rows


def row(kind: int, data: bytes, owner: bytes = b"\xc0\x0c", length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return owner + kind.to_bytes(2, "big") + b"\0\1\0\0\0\x3c" + size.to_bytes(2, "big") + data


MALFORMED = Reply(error="malformed reply")
TEXT = b"v=spf1 -all"
FIRST, SECOND = (socket.inet_aton(f"192.0.2.{n}") for n in (1, 2))
ALIAS = f"{ME} 30 CNAME x.{ME}"
CASES: list[tuple[str, str, bytes, Reply]] = [
    ("a", "A", reply("A", f"{ME} 60 A 192.0.2.1", f"{ME} 60 A 192.0.2.2"), Reply((FIRST, SECOND), 60)),
    (
        "aaaa",
        "AAAA",
        reply("AAAA", f"{ME} 60 AAAA 2001:db8::1"),
        Reply((b"\x20\1\x0d\xb8" + bytes(11) + b"\1",), 60),
    ),
    (
        "mx",
        "MX",
        reply("MX", f"{ME} 60 MX 10 A.b.{ME}", f"{ME} 60 MX 5 {ME}"),
        Reply((b"a.b.example.org", b"example.org"), 60),
    ),
    ("null mx", "MX", reply("MX", f"{ME} 60 MX 0 ."), Reply((b"",), 60)),
    ("ptr", "PTR", reply("PTR", f"{ME} 60 PTR host.test."), Reply((b"host.test",), 60)),
    ("dot in a label", "PTR", reply("PTR", rf"{ME} 60 PTR ho\.st.test."), Reply((b"",), 60)),
    ("txt", "TXT", reply("TXT", f'{ME} 60 TXT "v=spf1 " "-all"'), Reply((TEXT,), 60)),
    ("other txt", "TXT", reply("TXT", f'{ME} 60 TXT "x"', f'{ME} 60 TXT "V=SPF1"'), Reply((b"V=SPF1",), 60)),
    ("only other txt", "TXT", reply("TXT", f'{ME} 60 TXT "v=spf10"'), Reply((), 60)),
    ("empty txt", "TXT", reply("TXT", f'{ME} 60 TXT ""'), Reply((), 60)),
    ("alias", "A", reply("A", f"{ME} 30 CNAME x.{ME}", f"x.{ME} 60 A 192.0.2.1"), Reply((FIRST,), 30)),
    ("alias behind", "A", reply("A", f"X.{ME} 60 A 192.0.2.1", f"{ME} 90 CNAME x.{ME}"), Reply((FIRST,), 60)),
    ("unrelated", "A", reply("A", "other.test. 60 A 192.0.2.1", soa="50 40"), Reply((), 40)),
    ("no data", "A", reply("A", soa="50 60"), Reply((), 50)),
    ("no name", "A", reply("A", rcode="NXDOMAIN", soa="50 90000"), Reply((), 50, missing=True)),
    ("long denial", "A", reply("A", rcode="NXDOMAIN", soa="90000 90000"), Reply((), 10800, missing=True)),
    ("no soa", "A", reply("A", rcode="NXDOMAIN"), Reply((), 0, missing=True)),
    ("alias to nowhere", "A", reply("A", ALIAS, rcode="NXDOMAIN", soa="50 60"), Reply((), 30, missing=True)),
    ("records of no name", "A", reply("A", f"{ME} 60 A 192.0.2.1", rcode="NXDOMAIN"), MALFORMED),
    (
        "loop",
        "A",
        reply("A", f"{ME} 60 CNAME x.{ME}", f"x.{ME} 60 CNAME {ME}"),
        Reply(error="too many CNAMEs"),
    ),
    ("servfail", "A", reply("A", rcode="SERVFAIL"), Reply(error="SERVFAIL")),
    ("refused", "A", reply("A", rcode="REFUSED"), Reply(error="REFUSED")),
    ("truncated", "A", reply("A", f"{ME} 60 A 192.0.2.1", flags=dns.flags.TC), Reply(truncated=True)),
    ("no edns there", "A", reply("A", rcode="FORMERR"), Reply(truncated=True)),
    ("ttl with its top bit", "A", reply("A", f"{ME} {1 << 31} A 192.0.2.1"), Reply((FIRST,), 0)),
    ("other class", "A", raw("A", b"\xc0\x0c\0\1\0\3\0\0\0\x3c\0\4" + FIRST), Reply((), 0)),
    ("short address", "A", raw("A", row(1, b"\1\2\3")), MALFORMED),
    ("long address", "A", raw("A", row(1, bytes(5))), MALFORMED),
    ("beyond the end", "A", raw("A", row(1, FIRST, length=40)), MALFORMED),
    ("cut", "A", raw("A", row(1, FIRST)[:9]), MALFORMED),
    ("missing row", "A", raw("A", row(1, FIRST), count=2), MALFORMED),
    ("string over its end", "TXT", raw("TXT", row(16, b"\x05v=s")), MALFORMED),
    ("string beyond its record", "TXT", raw("TXT", row(16, b"\x0fv=spf1 -all") + bytes(20)), MALFORMED),
    ("pointer to itself", "A", raw("A", row(1, FIRST, owner=b"\xc0\x1d")), MALFORMED),
    ("pointer ahead", "A", raw("A", row(1, FIRST, owner=b"\xc0\x60") + bytes(90)), MALFORMED),
    ("pointer to the head", "A", raw("A", row(1, FIRST, owner=b"\xc0\x02")), MALFORMED),
    ("label type", "A", raw("A", row(1, FIRST, owner=b"\x80\0")), MALFORMED),
    ("name too long", "A", raw("A", row(1, FIRST, owner=(b"\x3f" + b"x" * 63) * 4 + b"\0")), MALFORMED),
    ("host within its record", "PTR", raw("PTR", row(12, b"\1x\0y")), MALFORMED),
    ("no host", "MX", raw("MX", row(15, b"\0\1")), MALFORMED),
    ("short soa", "A", raw("A", b"")[:9] + b"\1" + raw("A", b"")[10:] + row(6, bytes(21)), MALFORMED),
]


@pytest.mark.parametrize(
    ("kind", "message", "wanted"), [one[1:] for one in CASES], ids=[one[0] for one in CASES]
)
def test_read(kind: str, message: bytes, wanted: Reply) -> None:
    """What it says, its time, or what is wrong with it."""
    assert answers(message, question(kind))
    assert wire.read(message, question(kind)) == wanted


def test_bounds() -> None:
    """Of what there is too much the first is read: addresses, hosts, SPF records, a record's octets."""
    many = row(1, FIRST) * 5000
    assert len(wire.read(raw("A", many, 5000), question("A")).codes) == wire.MAX_RECORDS
    hosts = row(15, b"\0\1\1x\0") * 40
    assert len(wire.read(raw("MX", hosts, 40), question("MX")).codes) == wire.MAX_HOSTS
    texts = row(16, b"\x06v=spf1") * 40
    assert len(wire.read(raw("TXT", texts, 40), question("TXT")).codes) == wire.MAX_TEXTS
    long = row(16, b"\x07v=spf1 " + (b"\xff" + b"x" * 255) * 200)
    assert len(wire.read(raw("TXT", long), question("TXT")).codes[0]) == wire.MAX_TEXT + 1


def test_answer() -> None:
    """A reply as evaluations want it; failures are kept for 30 s."""
    mx = Question("example.org", "MX")
    assert wire.answer(mx, Reply((b"a.test",), 60)) == Answer(Status.FOUND, 60, names=("a.test",))
    assert wire.answer(mx, Reply((), 60)) == Answer(Status.EMPTY, 60)
    assert wire.answer(mx, Reply((), 60, missing=True)) == Answer(Status.NXDOMAIN, 60)
    assert wire.answer(mx, Reply(error="SERVFAIL")) == Answer(Status.FAILED, 30)
    assert wire.answer(Question("x.test", "A"), Reply((FIRST,), 60)) == Answer(Status.FOUND, 60, (FIRST,))


NAMES = st.sampled_from(["a.test.", "B.a.test.", "c.example.org.", ME, "d.c.example.org."])
VALUES: dict[str, Any] = {
    "A": st.sampled_from(["192.0.2.1", "192.0.2.2"]),
    "AAAA": st.sampled_from(["2001:db8::1", "::"]),
    "MX": NAMES.map(lambda name: f"10 {name}"),
    "PTR": NAMES,
    "CNAME": NAMES,
    "TXT": st.sampled_from(['"v=spf1 a" " -all"', '"v=spf1"', '"x"']),
}
ROWS = st.sampled_from(sorted(VALUES)).flatmap(
    lambda kind: st.tuples(NAMES, st.integers(0, 90000), st.just(kind), VALUES[kind])
)


@given(st.sampled_from(["A", "AAAA", "MX", "PTR", "TXT"]), st.lists(ROWS, max_size=6))
def test_as_dnspython_reads_it(kind: str, rows: list[tuple[str, int, str, str]]) -> None:
    """The records at the end of the aliases and their time are those that dnspython finds."""
    owners = [name.lower() for name, _, type_, _ in rows if type_ == "CNAME"]
    assume(len(owners) == len(set(owners)))  # two aliases of one name: a choice of either's
    data = reply(kind, *[f"{name} {ttl} {type_} {value}" for name, ttl, type_, value in rows], soa="70 80")
    mine = wire.read(data, question(kind))
    message = dns.message.from_wire(data)
    assert isinstance(message, dns.message.QueryMessage)
    try:
        chain = message.resolve_chaining()
    except dns.message.ChainTooLong:
        assert mine.error
        return
    if chain.answer is None:
        assert not mine.codes
        assert mine.ttl == min(70, *[rrset.ttl for rrset in chain.cnames], 70)
        return
    wanted = {
        "A": lambda r: r.to_wire(),
        "AAAA": lambda r: r.to_wire(),
        "MX": lambda r: r.exchange.to_text(omit_final_dot=True).lower().encode(),
        "PTR": lambda r: r.target.to_text(omit_final_dot=True).lower().encode(),
        "TXT": lambda r: b"".join(r.strings),
    }[kind]
    found = {wanted(record) for record in chain.answer}
    assert set(mine.codes) == {code for code in found if kind != "TXT" or code.startswith(b"v=spf1")}


@given(st.binary(max_size=120), st.integers(0, 5), st.sampled_from(["A", "AAAA", "MX", "PTR", "TXT"]))
def test_any_octets(rest: bytes, count: int, kind: str) -> None:
    """Whatever follows the question, it is read or refused."""
    found = wire.read(raw(kind, rest, count), question(kind))
    assert bool(found.error) is not bool(found.codes) or not found.codes
