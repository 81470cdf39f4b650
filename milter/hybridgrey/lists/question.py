"""DNS questions to lists, and the reading of replies; pure bytes, no sockets.

A query name is the client's address, reversed, before the zone (RFC 5782 section 2).  Everything but the id
and the reversed address is a template made once a zone, so that asking costs one concatenation.  The replies
of lists nearly all look alike, A records under the name that was asked; these are read by hand.  Every other
shape (CNAMEs, other owners, TXT) goes to dnspython, which knows the rest of the format.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

A = 1
TXT = 16
_CLASS_IN = b"\x00\x01"
# A query after its id: recursion desired, one question, nothing else (RFC 1035 section 4.1.1).
HEADER = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
_HEADER_SIZE = 12
# A pointer to the name in the question, type A, class IN.
_PLAIN_OWNER = b"\xc0\x0c\x00\x01\x00\x01"
_PLAIN_TEXT_OWNER = b"\xc0\x0c\x00\x10\x00\x01"
_PLAIN_SIZE = 16

# Seconds for which an answer is kept at most; for denials RFC 2308 section 5 advises hours, not days.
MAX_TTL = 86400
MAX_NEGATIVE_TTL = 10800
_TTL_TOP_BIT = 1 << 31

_OCTETS = tuple(bytes((len(str(i)),)) + str(i).encode() for i in range(256))
_NIBBLES = tuple(b"\x01%x\x01%x" % (i & 15, i >> 4) for i in range(256))


class Reply(NamedTuple):
    """What a reply says: return codes, or texts, and for how many seconds; or what is wrong with it.

    `missing`: the name does not exist; of lists nobody wants to know.
    """

    codes: tuple[bytes, ...] = ()
    ttl: int = 0
    error: str = ""
    text: str = ""
    truncated: bool = False
    missing: bool = False


class Form(NamedTuple):
    """A kind of questions: what a query has before its question and after it, and how replies are read.

    `read` takes a message that `answers` the question, and the question; it never raises.
    """

    head: bytes
    foot: bytes
    read: Callable[[bytes, bytes], Reply]


# A denial without an SOA is not to be kept (RFC 2308 section 5).
_UNBACKED = Reply()


def reversed_name(packed: bytes) -> bytes:
    """The labels that stand for a client, 4 or 16 bytes, before the zone."""
    if len(packed) == 4:
        a, b, c, d = packed
        return _OCTETS[d] + _OCTETS[c] + _OCTETS[b] + _OCTETS[a]
    return b"".join([_NIBBLES[i] for i in reversed(packed)])


def tail(zone: str, rdtype: int) -> bytes:
    """The end of the question section for a zone: its labels, the type, the class."""
    wire = b"".join(bytes((len(label),)) + label for label in dns.name.from_text(zone).labels)
    return wire + rdtype.to_bytes(2, "big") + _CLASS_IN


def answers(reply: bytes, question: bytes) -> bool:
    """Whether a datagram is a reply to a query with this question, which it must repeat to the letter."""
    return (
        len(reply) >= _HEADER_SIZE + len(question)
        and reply[2] & 0xF8 == 0x80
        and reply[4:6] == b"\x00\x01"
        and reply.startswith(question, _HEADER_SIZE)
    )


def read(reply: bytes, question: bytes) -> Reply:
    """Read a datagram that `answers` the question; never raises."""
    if reply[2] & 0x02:
        return Reply(truncated=True)
    rcode = reply[3] & 15
    if rcode not in (0, 3):
        return Reply(error=dns.rcode.to_text(dns.rcode.Rcode(rcode)))
    at = _HEADER_SIZE + len(question)
    if reply[6:8] == b"\x00\x00":
        # What nearly every client gets from nearly every list.
        return _UNBACKED if reply[8:10] == b"\x00\x00" else _denial(reply[at:])
    count = int.from_bytes(reply[6:8], "big")
    if rcode == dns.rcode.NXDOMAIN:
        # A chain of CNAMEs to nowhere; records beside a denial are for dnspython to refuse.
        return _read_any(reply)
    plain = _read_plain(reply, at, count) if question[-3] == A else _read_plain_text(reply, at)
    return plain or _read_any(reply)


def seconds(ttl: int) -> int:
    """A time to live as it is to be taken: bounded, and 0 with the top bit set (RFC 2181 section 8)."""
    return 0 if ttl >= _TTL_TOP_BIT else min(ttl, MAX_TTL)


def _read_plain(reply: bytes, at: int, count: int) -> Reply | None:
    """Read A records that all belong to the name that was asked; None when the reply is of another shape."""
    if len(reply) < at + count * _PLAIN_SIZE:
        return None
    codes = []
    ttl = MAX_TTL
    for start in range(at, at + count * _PLAIN_SIZE, _PLAIN_SIZE):
        if not reply.startswith(_PLAIN_OWNER, start) or reply[start + 10 : start + 12] != b"\x00\x04":
            return None
        ttl = min(ttl, seconds(int.from_bytes(reply[start + 6 : start + 10], "big")))
        codes.append(reply[start + 12 : start + 16])
    return Reply(codes=tuple(codes), ttl=ttl)


def _read_plain_text(reply: bytes, at: int) -> Reply | None:
    """Read the first TXT record, if it belongs to the name that was asked."""
    if not reply.startswith(_PLAIN_TEXT_OWNER, at) or len(reply) < at + 12:
        return None
    ttl = seconds(int.from_bytes(reply[at + 6 : at + 10], "big"))
    at += 12
    end = at + int.from_bytes(reply[at - 2 : at], "big")
    if end > len(reply):
        return None
    strings = []
    while at < end:
        strings.append(reply[at + 1 : min(at + 1 + reply[at], end)])
        at += 1 + reply[at]
    return Reply(text=b"".join(strings).decode("ascii", "backslashreplace"), ttl=ttl)


@lru_cache(maxsize=1024)
def _denial(authority: bytes) -> Reply:
    """A denial with these records behind it.

    A list's SOA is the same in all its denials within a second, so it is hardly ever read twice.
    """
    return Reply(ttl=_denial_ttl(authority))


def _denial_ttl(authority: bytes) -> int:
    """Seconds for which a denial holds: the lesser of the SOA's TTL and its minimum (RFC 2308 section 5)."""
    at, end = 0, len(authority)
    while at < end and authority[at]:
        if authority[at] >= 0xC0:
            at += 1
            break
        at += authority[at] + 1
    at += 1
    length = int.from_bytes(authority[at + 8 : at + 10], "big")
    if authority[at : at + 4] != b"\x00\x06\x00\x01" or length < 22 or at + 10 + length > end:
        return 0
    minimum = int.from_bytes(authority[at + 6 + length : at + 10 + length], "big")
    ttl = int.from_bytes(authority[at + 4 : at + 8], "big")
    return min(seconds(ttl), seconds(minimum), MAX_NEGATIVE_TTL)


def read_message(message: dns.message.Message) -> Reply:
    """Read a reply that dnspython has parsed: the answer at the end of the chain of CNAMEs, if any."""
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Reply(error=dns.rcode.to_text(message.rcode()))
    if not isinstance(message, dns.message.QueryMessage):
        return Reply(error="malformed reply")
    try:
        chain = message.resolve_chaining()
    except dns.exception.DNSException as e:
        return Reply(error=f"malformed reply: {type(e).__name__}")
    ttl = _chain_ttl(message, chain)
    if chain.answer is None:
        return Reply(ttl=min(ttl, MAX_NEGATIVE_TTL))
    if chain.answer.rdtype == dns.rdatatype.TXT:
        strings = [b"".join(r.strings) for r in chain.answer]
        return Reply(text=strings[0].decode("ascii", "backslashreplace"), ttl=ttl)
    return Reply(codes=tuple(r.to_wire() for r in chain.answer), ttl=ttl)


def _chain_ttl(message: dns.message.QueryMessage, chain: dns.message.ChainingResult) -> int:
    """Seconds for which a chain of CNAMEs and what is at its end hold.

    dnspython's own minimum takes a TTL with the top bit set for a long one, and has one for a denial without
    an SOA, which is not to be cached (RFC 2308 section 5).
    """
    ttls = [rrset.ttl for rrset in chain.cnames]
    if chain.answer is not None:
        ttls.append(chain.answer.ttl)
    else:
        soas = [rrset for rrset in message.authority if rrset.rdtype == dns.rdatatype.SOA]
        ttls += [ttl for rrset in soas for ttl in (rrset.ttl, rrset[0].minimum)] or [0]
    return min(map(seconds, ttls))


def _read_any(reply: bytes) -> Reply:
    try:
        return read_message(dns.message.from_wire(reply, ignore_trailing=True))
    except (dns.exception.DNSException, ValueError, IndexError) as e:
        return Reply(error=f"malformed reply: {type(e).__name__}")


LISTS: Final = Form(HEADER, b"", read)
"""Questions to lists."""
