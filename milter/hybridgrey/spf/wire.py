"""DNS questions of SPF on the wire, and the reading of replies; pure bytes, no sockets.

All replies are read here, CNAMEs and compressed names too: a record of a domain is asked for with nearly
every new sender, and dnspython takes ten times as long.  Replies come from strangers.  Nothing is taken from
beyond the message, a compressed name leads backwards only, and of what a name can have so many records that
nobody needs them all, the first are read.

Queries have an OPT record (EDNS, RFC 6891): without it all answers over 512 octets, which many a domain's TXT
records are, would have to be asked for again over TCP.  1232 octets are what passes everywhere unfragmented.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import dns.rcode

from hybridgrey.lists.question import MAX_NEGATIVE_TTL, Form, Reply, seconds
from hybridgrey.spf.question import MAX_TTL, Answer, Question, Status, Type
from hybridgrey.spf.record import MAX_TEXT, is_record

FAILED_TTL: Final = 30
"""Seconds for which a failure is remembered (RFC 2308 section 7)."""
MAX_CNAMES: Final = 8
MAX_RECORDS: Final = 512
"""Records of an answer that are looked at; evaluations want no more than 256 addresses."""
MAX_HOSTS: Final = 16
"""Of an MX or a PTR; ten are wanted, and to see that there are more."""
MAX_TEXTS: Final = 4
"""SPF records; there is to be one."""

_HEAD: Final = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
_OPT: Final = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
_HEADER_SIZE: Final = 12
_IN: Final = b"\x00\x01"
_FIRST_NAME: Final = b"\xc0\x0c"
_A, _CNAME, _SOA, _PTR, _MX, _TXT, _AAAA = (n.to_bytes(2, "big") for n in (1, 5, 6, 12, 15, 16, 28))
_CODES: Final[dict[Type, bytes]] = {"A": _A, "AAAA": _AAAA, "MX": _MX, "PTR": _PTR, "TXT": _TXT}
TAILS: Final = {kind: b"\x00" + code + _IN for kind, code in _CODES.items()}
"""The end of a question: the root's label, the type, the class."""
_NXDOMAIN: Final = 3
# What a nameserver says to EDNS that it does not know: FORMERR, NOTIMP, BADVERS' low bits.
_NO_EDNS: Final = (1, 4)
_MALFORMED: Final = Reply(error="malformed reply")

# An owner in lower case, the type, the TTL, and where the data begin and end.
Row = tuple[bytes, bytes, int, int, int]


class _Malformed(Exception):  # noqa: N818  # an error of somebody else
    """A message that breaks the format."""


def labels(name: str) -> bytes:
    """The labels of a name that is `askable`, without the root's."""
    return b"".join([bytes((len(label),)) + label for label in name.encode("ascii").split(b".")])


def answer(question: Question, reply: Reply) -> Answer:
    """What a reply means for an evaluation."""
    if reply.error:
        return Answer(Status.FAILED, FAILED_TTL)
    if not reply.codes:
        return Answer(Status.NXDOMAIN if reply.missing else Status.EMPTY, reply.ttl)
    if question.type in ("MX", "PTR"):
        return Answer(Status.FOUND, reply.ttl, (), tuple([code.decode("latin-1") for code in reply.codes]))
    return Answer(Status.FOUND, reply.ttl, reply.codes)


def read(message: bytes, question: bytes) -> Reply:
    """Read a message that `lists.question.answers` the question; never raises.

    `codes`: addresses; SPF records, their strings joined (other TXT records are left out); or names of hosts,
    dots between the labels, "" for one that cannot be written so.
    """
    rcode = message[3] & 15
    if message[2] & 2 or rcode in _NO_EDNS:
        return Reply(truncated=True)
    if rcode not in (0, _NXDOMAIN):
        return Reply(error=dns.rcode.to_text(dns.rcode.Rcode(rcode)))
    try:
        return _read(message, question, missing=rcode == _NXDOMAIN)
    except (_Malformed, IndexError):
        return _MALFORMED


def _read(message: bytes, question: bytes, *, missing: bool) -> Reply:
    kind = question[-4:-2]
    first = question[:-4].lower()
    answers = int.from_bytes(message[6:8], "big")
    rows, at = _rows(message, _HEADER_SIZE + len(question), answers, first)
    name, ttl = first, MAX_TTL
    for _ in range(MAX_CNAMES + 1):
        found = [row for row in rows if row[0] == name and row[1] == kind]
        if found:
            if missing:
                return _MALFORMED
            ttl = min(ttl, *[row[2] for row in found])
            return Reply(_DATA[kind](message, found), ttl)
        alias = next((row for row in rows if row[0] == name and row[1] == _CNAME), None)
        if alias is None:
            return Reply(ttl=min(ttl, _denial_ttl(message, at, answers)), missing=missing)
        ttl = min(ttl, alias[2])
        name, end = _name(message, alias[3])
        if end != alias[4]:
            raise _Malformed
    return Reply(error="too many CNAMEs")


def _rows(message: bytes, at: int, count: int, first: bytes) -> tuple[list[Row], int]:
    """Records of class IN from there on, at most `MAX_RECORDS`; where they end.  `first`: the name asked."""
    rows: list[Row] = []
    for _ in range(min(count, MAX_RECORDS)):
        if message.startswith(_FIRST_NAME, at):
            owner, at = first, at + 2
        else:
            owner, at = _name(message, at)
        begin = at + 10
        end = begin + int.from_bytes(message[at + 8 : begin], "big")
        if begin > len(message) or end > len(message):
            raise _Malformed
        if message[at + 2 : at + 4] == _IN:
            ttl = seconds(int.from_bytes(message[at + 4 : at + 8], "big"))
            rows.append((owner, message[at : at + 2], ttl, begin, end))
        at = end
    return rows, at


def _denial_ttl(message: bytes, at: int, answers: int) -> int:
    """Seconds for which a denial holds (RFC 2308 section 5); 0 without an SOA: not to be kept."""
    if answers > MAX_RECORDS:
        return 0
    rows, _ = _rows(message, at, int.from_bytes(message[8:10], "big"), b"")
    for _owner, kind, ttl, begin, end in rows:
        if kind == _SOA:
            if end - begin < 22:
                raise _Malformed
            return min(ttl, seconds(int.from_bytes(message[end - 4 : end], "big")), MAX_NEGATIVE_TTL)
    return 0


def _name(message: bytes, at: int) -> tuple[bytes, int]:
    """A name in lower case, uncompressed, with the root's label; and where it ends (RFC 1035 section 4.1.4).

    A pointer must lead to before where the part of the name that it ends has begun, so that there is an end.
    """
    parts: list[bytes] = []
    size, begin, end = 1, at, 0
    while length := message[at]:
        if length >= 0xC0:
            end = end or at + 2
            at = (length & 0x3F) << 8 | message[at + 1]
            if at >= begin or at < _HEADER_SIZE:
                raise _Malformed
            begin = at
            continue
        size += length + 1
        if length > 63 or size > 255 or at + length >= len(message):
            raise _Malformed
        parts.append(message[at : at + length + 1])
        at += length + 1
    return b"".join(parts).lower() + b"\x00", end or at + 1


def _addresses(message: bytes, rows: list[Row], size: int) -> tuple[bytes, ...]:
    if any(end - begin != size for *_, begin, end in rows):
        raise _Malformed
    return tuple([message[begin:end] for *_, begin, end in rows])


def _texts(message: bytes, rows: list[Row]) -> tuple[bytes, ...]:
    """The SPF records; what is longer than one may be is cut there, and refused by the reader of records."""
    found: list[bytes] = []
    for *_, at, end in rows:
        strings: list[bytes] = []
        while at < end:
            begin, at = at + 1, at + 1 + message[at]
            strings.append(message[begin:at])
        if at != end:
            raise _Malformed
        text = b"".join(strings)
        if is_record(text) and len(found) < MAX_TEXTS:
            found.append(text[: MAX_TEXT + 1])
    return tuple(found)


def _hosts(message: bytes, rows: list[Row], skipped: int) -> tuple[bytes, ...]:
    hosts: list[bytes] = []
    for *_, begin, end in rows[:MAX_HOSTS]:
        name, name_end = _name(message, begin + skipped)
        if name_end != end:
            raise _Malformed
        hosts.append(_dotted(name))
    return tuple(hosts)


def _dotted(name: bytes) -> bytes:
    """A name as text; a dot within a label would make another name of it."""
    parts: list[bytes] = []
    at = 0
    while length := name[at]:
        parts.append(name[at + 1 : at + 1 + length])
        at += length + 1
    return b"" if any(b"." in part for part in parts) else b".".join(parts)


_DATA: Final[dict[bytes, Callable[[bytes, list[Row]], tuple[bytes, ...]]]] = {
    _A: partial(_addresses, size=4),
    _AAAA: partial(_addresses, size=16),
    _MX: partial(_hosts, skipped=2),
    _PTR: partial(_hosts, skipped=0),
    _TXT: _texts,
}

FORM: Final = Form(_HEAD, _OPT, read)
"""Questions of SPF."""
