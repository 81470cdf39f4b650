"""What every walk through records has in common: what it may cost, and how a record is fetched.

RFC 7208 section 4.6.4: ten terms that cost questions, two of them without an answer, ten hosts of an MX.
Loops end there, too.  A term is *void* when its own question has no answer; the addresses of an MX's hosts
are not terms.  A client's missing PTR is not counted: the sender has no hand in it.
"""

from __future__ import annotations

from hybridgrey.cleaning import clean
from hybridgrey.spf.proof import Widths
from hybridgrey.spf.question import MAX_TTL, Answer, Ask, Question, Status, Steps, Type, askable, plain_name
from hybridgrey.spf.record import Kind, Record, RecordError, Result, Term, read, select

MAX_LOOKUPS = 10
MAX_VOIDS = 2
MAX_HOSTS = 10
"""Of an MX, and of a client's PTR."""
MAX_ADDRESSES = 256
"""Of a host; RFC 7208 has no limit, but an answer over TCP has room for thousands, a hundred times over."""


LEAST_HELD = 30
"""Seconds for which an answer must hold that is asked for after a name had the client or sender in it."""


class Stop(Exception):  # noqa: N818  # the end of a walk, and not always an error of somebody
    """The walk has a result for all that is asked for: temperror or permerror, and why."""

    def __init__(self, result: Result, error: str) -> None:
        self.result = result
        self.error = error
        super().__init__(result, error)


class Walk:
    """The state of one walk; `bits`: 32 for IPv4 clients, 128 for IPv6."""

    __slots__ = (
        "address_type",
        "areas",
        "bits",
        "counted",
        "lookups",
        "made",
        "soon",
        "told",
        "ttl",
        "voids",
    )

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.address_type: Type = "A" if bits == 32 else "AAAA"
        self.ttl = MAX_TTL
        self.lookups = 0
        self.voids = 0
        # Addresses, IPv4 and IPv6, that the records authorise which have been reached.
        self.areas = [0, 0]
        self.counted: set[bytes] = set()
        # Whether a nameserver has been told by a question who the client or the sender is; whether one that
        # then was asked may have made its answer for him.
        self.told = self.made = False
        # What the record at hand will ask after its first question.
        self.soon: tuple[Question, ...] = ()

    def ask(self, name: str, kind: Type) -> Steps[Answer]:
        """One question; a name that cannot be asked does not exist."""
        if not askable(name):
            return Answer(Status.NXDOMAIN, MAX_TTL)
        soon, self.soon = self.soon, ()
        (answer,) = yield Ask((Question(name, kind),), soon)
        self._note(answer.ttl)
        return answer

    def ask_all(self, names: list[str], kind: Type) -> Steps[list[Answer]]:
        """The same question about several names; those that cannot be asked have no answer."""
        questions = tuple([Question(name, kind) for name in names if askable(name)])
        if not questions:
            return []
        answers = yield Ask(questions)
        self._note(min(answer.ttl for answer in answers))
        return list(answers)

    def _note(self, ttl: int) -> None:
        """An answer holds for so many seconds."""
        self.ttl = min(self.ttl, ttl)
        self.made = self.made or (self.told and ttl < LEAST_HELD)

    def spend(self, term: str) -> None:
        """Count a look-up."""
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise Stop(Result.PERMERROR, f"over {MAX_LOOKUPS} look-ups, at {shown(term)}")

    def void(self, term: str) -> None:
        """Count a look-up that has come to nothing."""
        self.voids += 1
        if self.voids > MAX_VOIDS:
            raise Stop(Result.PERMERROR, f"over {MAX_VOIDS} void look-ups, at {shown(term)}")

    def _count_area(self, record: Record, text: bytes) -> None:
        """Add what a record authorises; one that is included twice authorises no more.

        By its text: the nameserver of one name may have another text for each question.
        """
        if text not in self.counted:
            self.counted.add(text)
            self.areas[0] += record.areas[0]
            self.areas[1] += record.areas[1]

    def excess(self, widths: Widths) -> str:
        """What makes the records that were read prove nobody, "" if they do not authorise too much."""
        for bits, area in zip((32, 128), self.areas, strict=True):
            if area > widths.total(bits):
                return f"records with {area / widths.total(bits):.3g} times the addresses that may be proven"
        return ""

    def record(self, domain: str, *, counts: bool) -> Steps[Record | None]:
        """The record of a domain, None where there is none; raises Stop (section 4.4, 4.5).

        `counts`: by this record clients may pass.
        """
        answer = yield from self.ask(domain, "TXT")
        if answer.status is Status.FAILED:
            raise Stop(Result.TEMPERROR, f"no answer for the record of {shown(domain)}")
        texts = select(answer.data)
        if not texts:
            return None
        if len(texts) > 1:
            raise Stop(Result.PERMERROR, f"{len(texts)} records of {shown(domain)}")
        found = read(texts[0])
        if isinstance(found, RecordError):
            raise Stop(Result.PERMERROR, f"{found} of the record of {shown(domain)}")
        if counts:
            self._count_area(found, texts[0])
        return found

    def addresses(self, term: Term, domain: str) -> Steps[tuple[list[int], bool]]:
        """The addresses of an ``a`` or ``mx`` term; whether some may be missing; raises Stop (5.3, 5.4).

        Each address is shifted to its network.
        """
        if term.kind is Kind.A:
            answers = [(yield from self.asked(term, domain, self.address_type))]
        else:
            mx = yield from self.asked(term, domain, "MX")
            if len(mx.names) > MAX_HOSTS:
                raise Stop(Result.PERMERROR, f"over {MAX_HOSTS} hosts, at {shown(term.text)}")
            answers = yield from self.ask_all([plain_name(name) for name in mx.names], self.address_type)
        shift = self.shift(term)
        size = self.bits // 8
        packed = [one for answer in answers for one in answer.data[:MAX_ADDRESSES] if len(one) == size]
        found = [int.from_bytes(one, "big") >> shift for one in packed]
        return found, any(answer.status is Status.FAILED for answer in answers)

    def shift(self, term: Term) -> int:
        """The bits of an address that an ``a`` or ``mx`` term does not compare."""
        return self.bits - term.prefixes[self.bits == 128]

    def asked(self, term: Term, domain: str, kind: Type) -> Steps[Answer]:
        """The answer to a term's own question; raises Stop when there is none, or once too often no data."""
        answer = yield from self.ask(domain, kind)
        if answer.status is Status.FAILED:
            raise Stop(Result.TEMPERROR, f"no answer, at {shown(term.text)}")
        if answer.status is not Status.FOUND:
            self.void(term.text)
        return answer


def shown(text: str) -> str:
    """A stranger's text as far as a message needs it, fit to print."""
    return clean(text, 120)
