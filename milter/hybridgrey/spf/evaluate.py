"""The SPF result for one client and one sender, and whether a pass proves the client (RFC 7208 section 4).

`evaluate` yields questions (see `question`) and returns an `Outcome`; it never raises, whatever the answers
are.  It asks at most `MAX_QUESTIONS` questions in all.

A pass *proves* the client when the term that matched names it.  It does not, and `Outcome.doubt` says why:

- by ``all``, ``ptr`` or ``exists``: these name everybody, or whom the client's own DNS names;
- by a network that is wider than `Widths` allows, or in records that together authorise too much (`proof`);
- through a term whose domain depends on the client, its HELO or the sender's local part, be it the term
  itself or an ``include:`` or ``redirect=`` on the way: its owner's nameserver can answer each client as it
  likes.  ``%{d}`` and ``%{o}`` are names of domains and depend on nothing else, so they are as good as text.
  ``%{s}`` has the local part in it.  ``%{v}`` is the client's.

What stands before the match and only takes clients out (``-exists:%{i}.bad.example``) costs no proof, but its
question tells a nameserver who the client is, and `include:` behind it may lead to a record written for him.
So what is asked after such a question, ``ptr`` too, proves only if it holds for `LEAST_HELD` seconds: then it
is the same for all clients of that time, as if they were all written into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hybridgrey.spf import macro
from hybridgrey.spf.macro import Spec
from hybridgrey.spf.proof import DEFAULT, Widths
from hybridgrey.spf.question import MAX_TTL, Question, Status, Steps, Type, askable, plain_name
from hybridgrey.spf.record import Kind, Record, Result, Term
from hybridgrey.spf.walk import MAX_HOSTS, MAX_LOOKUPS, Stop, Walk, shown

# The first record; ten terms, each with its hosts; the client's names, once.
MAX_QUESTIONS = 1 + (MAX_LOOKUPS + 1) * (1 + MAX_HOSTS)

# ::ffff:0:0/96: a client of IPv4, however it has come (section 5).
_MAPPED = bytes(10) + b"\xff\xff"
# Of what a client says, so much is looked at; twice what RFC 5321 section 4.5.3.1 allows.
_MAX_SAID = 512
_FIRST: dict[Kind, Type] = {Kind.INCLUDE: "TXT", Kind.MX: "MX", Kind.EXISTS: "A"}
_BY_MACRO = "through a macro of client or sender"
_MADE = "by an answer that may be made for this client"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends for whom; `of` makes one.

    `address`: 4 or 16 octets, never an IPv4-mapped one.  `domain`: of MAIL FROM, or the HELO name where that
    is ``<>``; in A-labels.  `local`: the local part, ``postmaster`` where there is none.
    """

    address: bytes
    domain: str
    local: str
    helo: str

    @classmethod
    def of(cls, address: bytes, domain: str, local: str = "", helo: str = "") -> Identity:
        """Bring what the client said to this form (RFC 7208 section 4.1, 4.3); no domain makes it HELO."""
        if address.startswith(_MAPPED):
            address = address[12:]
        domain = plain_name((domain or helo)[:_MAX_SAID])
        return cls(address, domain, local[:_MAX_SAID] or "postmaster", helo[:_MAX_SAID])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation has found.

    `ttl`: seconds for which all answers hold that were used.  `term`: the mechanism that matched, as its
    record has it, "" for none; `domain`: whose record that was; both fit to print, and cut where long.
    `doubt`: why a pass does not prove the client; "" when it does, and for all other results.  `error`: what
    is wrong, with temperror and permerror.  `personal`: HELO or local part were asked for, so that other
    senders of the domain may fare otherwise; where it is false the outcome is that of client and domain.
    """

    result: Result
    ttl: int
    term: str = ""
    domain: str = ""
    doubt: str = ""
    error: str = ""
    personal: bool = False

    @property
    def proven(self) -> bool:
        """Whether the client has been named by the domain."""
        return self.result is Result.PASS and not self.doubt


class _Match(NamedTuple):
    result: Result
    term: str
    domain: str
    doubt: str


_NONE = _Match(Result.NONE, "", "", "")


def evaluate(identity: Identity, widths: Widths = DEFAULT) -> Steps[Outcome]:
    """Check a client; see the module."""
    domain = identity.domain
    if "." not in domain or not askable(domain) or domain.endswith("]"):
        return Outcome(Result.NONE, MAX_TTL, error="no domain name")
    check = _Check(identity, widths)
    try:
        found = yield from check.host(domain, "", counts=True)
    except Stop as stop:
        return Outcome(stop.result, check.ttl, error=stop.error, personal=check.personal)
    doubt = ""
    if found.result is Result.PASS:
        doubt = found.doubt or (_MADE if check.made else "") or check.excess(widths)
    term, where = shown(found.term), shown(found.domain)
    return Outcome(found.result, check.ttl, term, where, doubt, "", check.personal)


class _Check(Walk):
    """One evaluation under way."""

    __slots__ = ("client", "identity", "names", "personal", "widths")

    def __init__(self, identity: Identity, widths: Widths) -> None:
        super().__init__(8 * len(identity.address))
        self.identity = identity
        self.client = int.from_bytes(identity.address, "big")
        self.widths = widths
        self.personal = False
        # The client's verified names; None before they are asked for.
        self.names: list[str] | None = None

    def host(self, domain: str, doubt: str, *, counts: bool) -> Steps[_Match]:
        """check_host() of section 4: `doubt` lies on the way here; `counts`: it is a way to a pass."""
        record = yield from self.record(domain, counts=counts)
        if record is None:
            return _NONE
        first = True
        for number, term in enumerate(record.terms):
            if term.bits or term.kind is Kind.ALL:
                found = self._at_once(term, domain, doubt)
            else:
                if first:
                    self.soon, first = self._coming(record, number + 1, domain), False
                self.spend(term.text)
                found = yield from self._looked_up(term, domain, doubt, counts=counts)
                if term.kind is Kind.PTR or (term.spec and term.spec.varies):
                    self.told = True
            if found:
                return found
        return (yield from self._redirected(record, domain, doubt, counts=counts))

    def _at_once(self, term: Term, domain: str, doubt: str) -> _Match | None:
        """The match of a term that needs no question."""
        if term.bits and not term.holds(self.bits, self.client):
            return None
        return _Match(term.result, term.text, domain, doubt or self._doubt(term))

    def _redirected(self, record: Record, domain: str, doubt: str, *, counts: bool) -> Steps[_Match]:
        """The result when no mechanism has matched (sections 4.7, 6.1)."""
        spec = record.redirect
        if spec is None:
            return _Match(Result.NEUTRAL, "", domain, "")
        self.spend("redirect=")
        target = yield from self._target(spec, domain)
        found = yield from self.host(target, doubt or _taint(spec), counts=counts)
        if found.result is Result.NONE:
            raise Stop(Result.PERMERROR, f"no record of {shown(target)}, for redirect=")
        return found

    def _looked_up(self, term: Term, domain: str, doubt: str, *, counts: bool) -> Steps[_Match | None]:
        """The match of a term that has to ask."""
        target, kind = domain, term.kind
        if term.spec:
            target = yield from self._target(term.spec, domain)
            doubt = doubt or _taint(term.spec)
        if not target.isascii():
            # A local part in UTF-8: such a term matches nobody (RFC 8616 section 4).
            return None
        counts = counts and term.result is Result.PASS
        if kind is Kind.INCLUDE:
            return (yield from self._include(term, target, domain, doubt, counts=counts))
        if kind is Kind.PTR:
            matched = yield from self._ptr(target)
        elif kind is Kind.EXISTS:
            matched = yield from self._exists(term, target)
        else:
            matched = yield from self._addressed(term, target, counts=counts)
        return _Match(term.result, term.text, domain, doubt or self._doubt(term)) if matched else None

    def _include(
        self, term: Term, target: str, domain: str, doubt: str, *, counts: bool
    ) -> Steps[_Match | None]:
        """Section 5.2: a pass of the other domain matches, and is told as the match if it stays a pass."""
        found = yield from self.host(target, doubt, counts=counts)
        if found.result is Result.NONE:
            raise Stop(Result.PERMERROR, f"no record of {shown(target)}, for {shown(term.text)}")
        if found.result is not Result.PASS:
            return None
        return found if term.result is Result.PASS else _Match(term.result, term.text, domain, "")

    def _addressed(self, term: Term, target: str, *, counts: bool) -> Steps[bool]:
        """Sections 5.3 and 5.4: the client is in a network of the addresses."""
        found, partial = yield from self.addresses(term, target)
        shift = self.shift(term)
        if counts:
            self.areas[self.bits == 128] += len(set(found)) << shift
        matched = self.client >> shift in found
        if partial and not matched:
            raise Stop(Result.TEMPERROR, f"no answer, at {shown(term.text)}")
        return matched

    def _exists(self, term: Term, target: str) -> Steps[bool]:
        """Section 5.7: the name has an IPv4 address, whatever the client has."""
        answer = yield from self.asked(term, target, "A")
        return answer.status is Status.FOUND

    def _ptr(self, target: str) -> Steps[bool]:
        """Section 5.5: a verified name of the client is in the domain."""
        names = yield from self._verified()
        return any(name == target or name.endswith(f".{target}") for name in names)

    def _verified(self) -> Steps[list[str]]:
        """The client's names that lead back to it; failures are names that do not."""
        if self.names is None:
            answer = yield from self.ask(f"{_reversed(self.identity.address)}.arpa", "PTR")
            names = [plain_name(name) for name in answer.names[:MAX_HOSTS]]
            names = [name for name in names if askable(name)]
            answers = yield from self.ask_all(names, self.address_type)
            address = self.identity.address
            self.names = [name for name, answer in zip(names, answers, strict=True) if address in answer.data]
        return self.names

    def _target(self, spec: Spec, domain: str) -> Steps[str]:
        """The name that a domain-spec stands for, for this client and sender."""
        if not spec.letters:
            return macro.target(spec, {})
        self.personal = self.personal or spec.personal
        identity, address = self.identity, self.identity.address
        four = len(address) == 4
        values = {
            "s": f"{identity.local}@{identity.domain}",
            "l": identity.local,
            "o": identity.domain,
            "d": domain,
            "i": ".".join(map(str, address) if four else address.hex()),
            "v": "in-addr" if four else "ip6",
            "h": identity.helo,
        }
        if "p" in spec.letters:
            values["p"] = _nearest((yield from self._verified()), domain)
        return macro.target(spec, values)

    def _doubt(self, term: Term) -> str:
        """Why a match by this term proves nobody, "" if it may."""
        if term.kind in (Kind.ALL, Kind.PTR, Kind.EXISTS):
            return f"by {term.kind.value}"
        shift = term.shift if term.bits else self.shift(term)
        widest = self.widths.widest(self.bits)
        return f"by a network wider than /{widest}" if self.bits - shift < widest else ""

    def _coming(self, record: Record, begin: int, domain: str) -> tuple[Question, ...]:
        """What terms from there on will ask, those with macros left out, up to one that surely matches."""
        coming: list[Question] = []
        room = MAX_LOOKUPS - self.lookups - 1
        for term in record.terms[begin:]:
            if len(coming) >= room or term.kind is Kind.ALL or term.holds(self.bits, self.client):
                break
            kind = self.address_type if term.kind is Kind.A else _FIRST.get(term.kind)
            if kind and not (term.spec and term.spec.letters):
                name = macro.target(term.spec, {}) if term.spec else domain
                if askable(name):
                    coming.append(Question(name, kind))
        else:
            if record.redirect and not record.redirect.letters and len(coming) < room:
                coming.append(Question(macro.target(record.redirect, {}), "TXT"))
        return tuple(coming)


def _taint(spec: Spec) -> str:
    return _BY_MACRO if spec.varies else ""


def _nearest(names: list[str], domain: str) -> str:
    """The value of ``%{p}`` (section 7.3): the domain itself, else a name in it, else any."""
    within = [name for name in names if name.endswith(f".{domain}")]
    return domain if domain in names else [*within, *names, "unknown"][0]


def _reversed(address: bytes) -> str:
    """The name of an address below .arpa."""
    if len(address) == 4:
        return f"{address[3]}.{address[2]}.{address[1]}.{address[0]}.in-addr"
    return ".".join(reversed(address.hex())) + ".ip6"
