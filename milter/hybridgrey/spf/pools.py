"""The networks that a domain's SPF record authorises, whoever the sender is.

`collect` walks through the records as `evaluate` does, by the same limits, once for IPv4 clients and once for
IPv6 ones, and returns a `Pool`.  The promise: to a client in one of its networks `evaluate` gives a pass with
proof, or a pass, for any sender of the domain and any HELO, while DNS stays as it was.  Hence:

- what an earlier term excludes (``-ip4:192.0.2.1 ip4:192.0.2.0/24``) is not in it;
- what cannot be known for all clients at once (``ptr``, ``exists``, macros of client or sender) adds nothing;
  where such a term may exclude, or end in an error, nothing that stands behind it counts;
- behind an error, or over the limits, nothing counts; what stands before it does;
- networks that are too wide add nothing, and records that together authorise too much give no pool at all.

A failure of DNS makes a pool `partial`: whoever has an older one does well to keep that.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from hybridgrey.spf import macro
from hybridgrey.spf.macro import Spec
from hybridgrey.spf.proof import DEFAULT, Span, Widths
from hybridgrey.spf.question import MAX_TTL, Answer, Ask, Question, Steps, askable, plain_name
from hybridgrey.spf.ranges import merged, networks4, networks6, without
from hybridgrey.spf.record import Kind, Record, Result, Term
from hybridgrey.spf.walk import Stop, Walk, shown

# A record made to be cut to pieces by its exclusions; the largest real pools have some hundred networks.
MAX_NETWORKS = 4096


@dataclass(frozen=True, slots=True)
class Pool:
    """A domain's networks, in order; `ttl`: seconds for which they hold; `problem`: what is wrong.

    `partial`: a question has not been answered, so that the networks are not all.
    """

    networks: tuple[IPv4Network | IPv6Network, ...]
    ttl: int
    problem: str = ""
    partial: bool = False


def collect(domain: str, widths: Widths = DEFAULT) -> Steps[Pool]:
    """Read a domain's pool; see the module."""
    domain = plain_name(domain)
    if "." not in domain or not askable(domain):
        return Pool((), MAX_TTL, "no domain name")
    known: dict[Question, Answer] = {}
    four = _Walk(32, domain, widths, known)
    yield from four.collect()
    six = _Walk(128, domain, widths, known)
    yield from six.collect()
    found: list[IPv4Network | IPv6Network] = [*networks4(four.spans, MAX_NETWORKS)]
    found += networks6(six.spans, MAX_NETWORKS)
    ttl = min(four.ttl, six.ttl)
    problem = _both(four.problem, six.problem)
    partial = four.partial or six.partial
    if len(found) > MAX_NETWORKS:
        return Pool((), ttl, f"over {MAX_NETWORKS} networks", partial)
    return Pool(tuple(found), ttl, problem, partial)


def _both(four: str, six: str) -> str:
    """What is wrong, and for which clients where it is not for all: an IPv4-only domain is all right."""
    if four == six:
        return four
    told = [(four, "for IPv4 clients"), (six, "for IPv6 clients")]
    return "; ".join([f"{problem}, {whom}" for problem, whom in told if problem])


class _End(Exception):  # noqa: N818  # no error: from here on nothing is known for all clients
    """What stands behind cannot count."""


class _Walk(Walk):
    """The collection for one family."""

    __slots__ = ("domain", "known", "partial", "problem", "spans", "widths")

    def __init__(self, bits: int, domain: str, widths: Widths, known: dict[Question, Answer]) -> None:
        super().__init__(bits)
        self.domain = domain
        self.widths = widths
        # Answers to both families' walks.
        self.known = known
        self.spans: list[Span] = []
        self.problem = ""
        self.partial = False

    def collect(self) -> Steps[None]:
        """Fill `spans`."""
        steps = self._host(self.domain, [])
        try:
            yield from self._through(steps)
        except _End:
            # What has been found counts.
            self.problem = ""
        except Stop as stop:
            self.problem = stop.error
            self.partial = stop.result is Result.TEMPERROR
        if excess := self.excess(self.widths):
            self.spans = []
            self.problem = excess

    def _through(self, steps: Steps[bool]) -> Steps[None]:
        """Ask only what the other family's walk has not asked."""
        try:
            ask = next(steps)
            while True:
                new = tuple(question for question in ask.now if question not in self.known)
                if new:
                    answers = yield Ask(new, ask.soon)
                    self.known.update(zip(new, answers, strict=True))
                ask = steps.send([self.known[question] for question in ask.now])
        except StopIteration:
            return

    def _host(self, domain: str, excluded: list[Span]) -> Steps[bool]:
        """Add what a domain's record authorises, without `excluded`; whether there is a record."""
        record = yield from self.record(domain, counts=True)
        if record is None and domain == self.domain:
            raise Stop(Result.PERMERROR, f"no record of {shown(domain)}")
        if record is not None:
            yield from self._read(record, domain, list(excluded))
        return record is not None

    def _read(self, record: Record, domain: str, excluded: list[Span]) -> Steps[None]:
        for term in record.terms:
            if term.kind is Kind.ALL:
                return
            if term.bits:
                self._take(term, [term.span()] if term.bits == self.bits else [], excluded)
            else:
                yield from self._looked_up(term, domain, excluded)
        if record.redirect:
            self.spend("redirect=")
            yield from self._follow(record.redirect, domain, excluded)

    def _looked_up(self, term: Term, domain: str, excluded: list[Span]) -> Steps[None]:
        self.spend(term.text)
        passes = term.result is Result.PASS
        if term.kind is Kind.INCLUDE and term.spec and passes:
            yield from self._follow(term.spec, domain, excluded)
        elif term.kind in (Kind.A, Kind.MX) and not (term.spec and term.spec.varies):
            yield from self._addressed(term, domain, excluded)
        elif not passes or term.kind is Kind.MX:
            # It may give some clients another result than a pass, an error for too many hosts among them.
            raise _End
        elif term.kind is not Kind.PTR:
            # Some clients' names do not exist: their limit holds for all.
            self.void(term.text)

    def _follow(self, spec: Spec, domain: str, excluded: list[Span]) -> Steps[None]:
        """Go on to the record of ``include:`` or ``redirect=``."""
        if spec.varies:
            # For some clients there is no record, which is an error.
            raise _End
        target = self._target(spec, domain)
        if not (yield from self._host(target, excluded)):
            raise Stop(Result.PERMERROR, f"no record of {shown(target)}")

    def _addressed(self, term: Term, domain: str, excluded: list[Span]) -> Steps[None]:
        target = self._target(term.spec, domain) if term.spec else domain
        found, partial = yield from self.addresses(term, target)
        shift = self.shift(term)
        numbers = set(found)
        if term.result is Result.PASS:
            self.areas[self.bits == 128] += len(numbers) << shift
        self._take(term, [(n << shift, (n << shift) + (1 << shift) - 1) for n in numbers], excluded)
        if partial:
            raise Stop(Result.TEMPERROR, f"no answer, at {shown(term.text)}")

    def _take(self, term: Term, spans: list[Span], excluded: list[Span]) -> None:
        """Add a term's networks to the pool; what is too wide, or does not pass, to what later terms lack."""
        if not spans:
            return
        shift = term.shift if term.bits else self.shift(term)
        if term.result is Result.PASS and self.bits - shift >= self.widths.widest(self.bits):
            self.spans += without(spans, excluded)
        else:
            excluded[:] = merged([*excluded, *spans])

    def _target(self, spec: Spec, domain: str) -> str:
        return macro.target(spec, {"d": domain, "o": self.domain})
