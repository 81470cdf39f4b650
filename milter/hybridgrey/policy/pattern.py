"""Return-code patterns and list entries: parse, match, print.

A DNS list answers with addresses in 127.0.0.0/8, its return codes (RFC 5782 section 2.3).  A pattern selects
some of them, in the grammar of Postfix's ``permit_dnswl_client domain=d.d.d.d`` (postconf(5)): four parts
joined by dots, each a number or, in brackets, numbers and ``n..m`` ranges joined by semicolons, with spaces
allowed inside the brackets::

    127.0.0.[2..11]      127.0.[0..255].[2..3]      127.0.0.[ 2; 4; 6..8 ]

A list entry is Postfix's ``postscreen_dnsbl_sites`` item: ``zone[=pattern][*weight]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

MAX_WEIGHT = 1_000_000
# A query name is at most 253 characters (RFC 1035 section 2.3.4); 32 nibbles and their dots take 64 of them.
MAX_ZONE = 253 - 64

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


class PatternError(ValueError):
    """A pattern or list entry that cannot be read; the text marks the place: ``at "1.2.>300<.4"``."""

    def __init__(self, reason: str, text: str, start: int, end: int) -> None:
        self.reason = reason
        self.start = start
        self.end = end
        shown = f"{text[:start]}>{text[start:end]}<{text[end:]}"
        super().__init__(f'{reason} at "{_printable(shown)}"')


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:300])


class _Reader:
    """A position in a pattern's text, with the errors that point at it."""

    def __init__(self, text: str, pos: int = 0) -> None:
        self.text = text
        self.pos = pos

    def fail(self, reason: str, start: int, end: int) -> NoReturn:
        raise PatternError(reason, self.text, start, end)

    def at(self, char: str) -> bool:
        return self.text.startswith(char, self.pos)

    def number(self) -> int:
        start = self.pos
        end = start
        # str.isdigit() is true of other scripts' digits too; a pattern is ASCII.
        while end < len(self.text) and self.text[end] in "0123456789":
            end += 1
        if end == start:
            self.fail("a number is missing", start, min(start + 1, len(self.text)))
        self.pos = end
        if end - start > 3 or int(self.text[start:end]) > 255:
            self.fail("number over 255", start, end)
        return int(self.text[start:end])

    def spaces(self) -> None:
        while self.pos < len(self.text) and self.text[self.pos] in " \t":
            self.pos += 1

    def part(self) -> Iterator[int]:
        """The values of one dotted part."""
        if not self.at("["):
            yield self.number()
            return
        opening = self.pos
        self.pos += 1
        while True:
            yield from self.item()
            if self.at("]"):
                self.pos += 1
                return
            if self.pos >= len(self.text):
                self.fail("a bracket is not closed", opening, len(self.text))
            if not self.at(";"):
                self.fail('";", ".." or "]" is missing', self.pos, self.pos + 1)
            self.pos += 1

    def item(self) -> range:
        """A number or a range inside brackets, and the spaces around it."""
        self.spaces()
        start = self.pos
        low = high = self.number()
        end = self.pos
        self.spaces()
        if self.at(".."):
            self.pos += 2
            self.spaces()
            high = self.number()
            end = self.pos
            self.spaces()
        if low > high:
            self.fail("a range runs backwards", start, end)
        return range(low, high + 1)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A set of return codes; `str()` gives its text back."""

    text: str
    # One table of 256 truth values for each byte of the code: a match is four index operations.
    _tables: tuple[bytes, bytes, bytes, bytes] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern; raises PatternError."""
        reader = _Reader(text)
        tables = []
        for n in range(4):
            if n:
                if not reader.at("."):
                    reader.fail("four parts are needed, a dot between them", reader.pos, len(text))
                reader.pos += 1
            values = frozenset(reader.part())
            tables.append(bytes(i in values for i in range(256)))
        if reader.pos < len(text):
            reader.fail("more than four parts", reader.pos, len(text))
        first, second, third, fourth = tables
        return cls(text, (first, second, third, fourth))

    def matches(self, code: bytes) -> bool:
        """Whether the return code, four bytes, is in the set."""
        a, b, c, d = self._tables
        return bool(a[code[0]] and b[code[1]] and c[code[2]] and d[code[3]])

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One entry of a rule's ``dns``: a zone, the codes that count (None: every listing), and their weight."""

    zone: str
    pattern: Pattern | None = None
    weight: int = 1

    @classmethod
    def parse(cls, text: str) -> ListEntry:
        """Read ``zone[=pattern][*weight]``; raises PatternError."""
        rest, star, weight = text.partition("*")
        zone, equals, pattern = rest.partition("=")
        return cls(
            zone=normal_zone(zone, text),
            pattern=_shifted(pattern, text, len(zone) + 1) if equals else None,
            weight=_weight(weight, text, len(rest) + 1) if star else 1,
        )

    def __str__(self) -> str:
        pattern = f"={self.pattern}" if self.pattern else ""
        weight = f"*{self.weight}" if self.weight != 1 else ""
        return f"{self.zone}{pattern}{weight}"


def normal_zone(zone: str, whole: str | None = None) -> str:
    """The zone in lower case without its last dot; raises PatternError when it is no domain name.

    `whole` is the text that the error shows when the zone is only its beginning.
    """
    whole = zone if whole is None else whole
    name = zone.strip().lower().removesuffix(".")
    if not name:
        raise PatternError("the list's domain name is missing", whole, 0, len(zone))
    if len(name) > MAX_ZONE:
        raise PatternError(f"domain name over {MAX_ZONE} characters", whole, 0, len(zone))
    start = zone.lower().index(name)
    for label in name.split("."):
        if not _LABEL.fullmatch(label):
            raise PatternError("bad label in a domain name", whole, start, start + len(label))
        start += len(label) + 1
    return name


def _shifted(pattern: str, whole: str, offset: int) -> Pattern:
    """Parse a pattern that stands inside `whole`, so that an error points at the right place of it."""
    stripped = pattern.strip()
    offset += len(pattern) - len(pattern.lstrip())
    try:
        return Pattern.parse(stripped)
    except PatternError as e:
        raise PatternError(e.reason, whole, offset + e.start, offset + e.end) from None


def _weight(weight: str, whole: str, offset: int) -> int:
    """A signed whole number, not zero: an entry that weighs nothing is a mistake."""
    # Stripped here: what counts as space for int is not what does elsewhere, such as U+001F.
    weight = weight.strip()
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", weight):
        raise PatternError("the weight is no whole number", whole, offset, len(whole))
    value = int(weight)
    if value == 0 or abs(value) > MAX_WEIGHT:
        raise PatternError(
            f"the weight must be from 1 to {MAX_WEIGHT}, or negative", whole, offset, len(whole)
        )
    return value
