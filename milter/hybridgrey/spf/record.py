"""An SPF record as frozen values, or what is wrong with it and where (RFC 7208 sections 4.5, 4.6, 5, 6, 12).

A syntax error anywhere makes the whole record void (section 4.6), so everything is read at once, macros too.
Records come from strangers: one over `MAX_TEXT` octets or `MAX_TERMS` terms is refused, which real ones are
far from, and what remains is read in one pass.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from enum import Enum, StrEnum
from functools import lru_cache
from typing import NamedTuple

from hybridgrey.cleaning import clean
from hybridgrey.spf import macro
from hybridgrey.spf.macro import MacroError, Spec
from hybridgrey.spf.proof import Span, area

# Octets; the longest ones of senders that write all their networks out have some 4,000.
MAX_TEXT = 8192
# Terms; so many networks fit into that.
MAX_TERMS = 700
# Octets up to which a record is kept parsed.
_KEPT_TEXT = 1024
_SHOWN = 80


class Result(StrEnum):
    """RFC 7208 section 2.6."""

    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    NEUTRAL = "neutral"
    NONE = "none"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Kind(Enum):
    """A mechanism."""

    ALL = "all"
    INCLUDE = "include"
    A = "a"
    MX = "mx"
    PTR = "ptr"
    IP4 = "ip4"
    IP6 = "ip6"
    EXISTS = "exists"


class Term(NamedTuple):
    """A mechanism with its qualifier.

    `spec`: its domain, None for that of the record.  `bits`: 32 and 128 for ip4 and ip6, whose network is the
    number `network` after `shift` bits are dropped; else 0.  `prefixes`: of ``a`` and ``mx``, IPv4 and IPv6.
    """

    kind: Kind
    result: Result
    text: str
    spec: Spec | None = None
    bits: int = 0
    network: int = 0
    shift: int = 0
    prefixes: tuple[int, int] = (32, 128)

    def holds(self, bits: int, address: int) -> bool:
        """Whether the address is in the network of ip4 or ip6."""
        return bits == self.bits and address >> self.shift == self.network

    def span(self) -> Span:
        """The first and the last address of ip4 or ip6."""
        first = self.network << self.shift
        return first, first + (1 << self.shift) - 1


class Record(NamedTuple):
    """Mechanisms up to ``all``, the domain of ``redirect=``, and how many addresses pass by ip4 and ip6."""

    terms: tuple[Term, ...]
    redirect: Spec | None = None
    areas: tuple[int, int] = (0, 0)


class RecordError(ValueError):
    """A record that breaks the grammar; `str()` has the reason, the term, and the place in the record."""

    def __init__(self, reason: str, text: str, at: int) -> None:
        shown = clean(text.encode("latin-1"), _SHOWN)
        super().__init__(f'{reason} at character {at + 1}, in "{shown}"')


def is_record(text: bytes) -> bool:
    """Whether a TXT record claims to be an SPF record (section 4.5)."""
    return text[:6].lower() == b"v=spf1" and text[6:7] in (b"", b" ")


def select(texts: Iterable[bytes]) -> list[bytes]:
    """The SPF records among a domain's TXT records."""
    return [text for text in texts if is_record(text)]


def read(text: bytes) -> Record | RecordError:
    """Parse the text of a record, or remember what came of it."""
    return _kept(text) if len(text) <= _KEPT_TEXT else _read(text)


def _read(text: bytes) -> Record | RecordError:
    try:
        return parse(text)
    except RecordError as error:
        return error


_kept = lru_cache(maxsize=256)(_read)

_QUALIFIERS = {
    "": Result.PASS,
    "+": Result.PASS,
    "-": Result.FAIL,
    "~": Result.SOFTFAIL,
    "?": Result.NEUTRAL,
}
_MECHANISM = re.compile(
    r"([-+?~]?)(all|include|a|mx|ptr|ip4|ip6|exists)(?=[:/]|\Z)(.*)", re.DOTALL | re.IGNORECASE | re.ASCII
)
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_LENGTH4 = r"(?:/(0|[1-9][0-9]{0,2}))?"
_LENGTH6 = r"(?://(0|[1-9][0-9]{0,2}))?"
_IP4 = re.compile(r":([0-9.]+)" + _LENGTH4)
_IP6 = re.compile(r":([0-9A-Fa-f:.]+)" + _LENGTH4)
_LENGTHS = re.compile(_LENGTH4 + _LENGTH6)
# The first place from which on there is nothing but prefix lengths.
_LENGTHS_AT_END = re.compile(r"(?:/[0-9]{1,9})?(?://[0-9]{1,9})?\Z")


def parse(text: bytes) -> Record:
    """Read a record; raises RecordError, which is a permerror."""
    if len(text) > MAX_TEXT:
        raise RecordError(f"over {MAX_TEXT} octets", text[:_SHOWN].decode("latin-1"), MAX_TEXT)
    # Octets beyond ASCII are refused where they stand, by the terms' own grammar.
    line = text.decode("latin-1")
    terms: list[Term] = []
    modifiers: dict[str, Spec] = {}
    at, left = 6, MAX_TERMS
    for word in line[6:].split(" "):
        if word:
            left -= 1
            if left < 0:
                raise RecordError(f"over {MAX_TERMS} terms", word, at)
            _word(word, at, terms, modifiers)
        at += len(word) + 1
    return _record(terms, modifiers.get("redirect"))


def _word(word: str, at: int, terms: list[Term], modifiers: dict[str, Spec]) -> None:
    """Read a term into its list."""
    try:
        if found := _MECHANISM.fullmatch(word):
            sign, name, rest = found.groups()
            terms.append(_READERS[name.lower()](_QUALIFIERS[sign], word, rest))
        elif found := _MODIFIER.fullmatch(word):
            _modifier(found[1].lower(), found[2], modifiers)
        else:
            raise RecordError("neither a mechanism nor a modifier", word, at)
    except MacroError as error:
        # A reader counts from the end of the term's name.
        begin = found.start(found.re.groups) if found else 0
        raise RecordError(error.reason, word, at + begin + error.at) from None


def _modifier(name: str, value: str, modifiers: dict[str, Spec]) -> None:
    if name not in ("redirect", "exp"):
        macro.parse(value)
        return
    if name in modifiers:
        raise MacroError("a second one", 0)
    modifiers[name] = macro.parse_domain(value)


def _record(terms: list[Term], redirect: Spec | None) -> Record:
    """The record of these terms: what stands behind ``all`` is never reached (section 5.1)."""
    for number, term in enumerate(terms):
        if term.kind is Kind.ALL:
            del terms[number + 1 :]
            redirect = None
            break
    spans: dict[int, list[Span]] = {32: [], 128: []}
    for term in terms:
        if term.bits and term.result is Result.PASS:
            spans[term.bits].append(term.span())
    return Record(tuple(terms), redirect, (area(spans[32]), area(spans[128])))


def _all(result: Result, text: str, rest: str) -> Term:
    if rest:
        raise MacroError("nothing may follow", 0)
    return Term(Kind.ALL, result, text)


def _needs_domain(kind: Kind, result: Result, text: str, rest: str) -> Term:
    if not rest.startswith(":"):
        raise MacroError("a domain is missing", 0)
    return Term(kind, result, text, _domain(rest[1:]))


def _domain(text: str) -> Spec:
    """A domain-spec that stands behind a colon."""
    try:
        return macro.parse_domain(text)
    except MacroError as error:
        raise MacroError(error.reason, error.at + 1) from None


def _include(result: Result, text: str, rest: str) -> Term:
    return _needs_domain(Kind.INCLUDE, result, text, rest)


def _exists(result: Result, text: str, rest: str) -> Term:
    return _needs_domain(Kind.EXISTS, result, text, rest)


def _ptr(result: Result, text: str, rest: str) -> Term:
    return _needs_domain(Kind.PTR, result, text, rest) if rest else Term(Kind.PTR, result, text)


def _hosts(kind: Kind, result: Result, text: str, rest: str) -> Term:
    """``a`` and ``mx``: a domain, and lengths at the end of it, all of them optional."""
    if not rest:
        return Term(kind, result, text)
    end = len(rest)
    spec = None
    if rest.startswith(":"):
        end = _lengths_begin(rest)
        spec = _domain(rest[1:end])
    lengths = _LENGTHS.fullmatch(rest, end if spec else 0)
    if not lengths:
        raise MacroError("bad prefix length", end if spec else 0)
    prefixes = (_length(lengths, 1, 32), _length(lengths, 2, 128))
    return Term(kind, result, text, spec, prefixes=prefixes)


def _lengths_begin(rest: str) -> int:
    """Where the prefix lengths begin: slashes and digits at the end."""
    # At most two numbers of a few digits: no need to look further back.
    begin = max(1, len(rest) - 24)
    found = _LENGTHS_AT_END.search(rest, begin)
    return found.start() if found else len(rest)


def _a(result: Result, text: str, rest: str) -> Term:
    return _hosts(Kind.A, result, text, rest)


def _mx(result: Result, text: str, rest: str) -> Term:
    return _hosts(Kind.MX, result, text, rest)


def _length(found: re.Match[str], group: int, bits: int) -> int:
    digits = found[group]
    length = bits if digits is None else int(digits)
    if length > bits:
        raise MacroError(f"prefix length over {bits}", found.start(group))
    return length


def _ip4(result: Result, text: str, rest: str) -> Term:
    found = _IP4.fullmatch(rest)
    return _network(Kind.IP4, socket.AF_INET, 32, result, text, found)


def _ip6(result: Result, text: str, rest: str) -> Term:
    found = _IP6.fullmatch(rest)
    return _network(Kind.IP6, socket.AF_INET6, 128, result, text, found)


def _network(
    kind: Kind, family: int, bits: int, result: Result, text: str, found: re.Match[str] | None
) -> Term:
    if not found:
        raise MacroError("no network", 0)
    try:
        packed = socket.inet_pton(family, found[1])
    except OSError:
        raise MacroError("no network", 0) from None
    shift = bits - _length(found, 2, bits)
    return Term(kind, result, text, None, bits, int.from_bytes(packed, "big") >> shift, shift)


_READERS = {
    "all": _all,
    "include": _include,
    "a": _a,
    "mx": _mx,
    "ptr": _ptr,
    "ip4": _ip4,
    "ip6": _ip6,
    "exists": _exists,
}
