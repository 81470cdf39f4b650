"""Postfix's lookup tables as text: logical lines, and the rows of a cidr table with what they cover.

cidr_table(5): the first row that matches decides; ``!pattern`` matches the other addresses of the pattern's
version; rows between ``if`` and ``endif`` count only where the condition holds.  A row that Postfix skips
with a warning (bits after the prefix, no result) covers nothing here and says why.

Pure; no function raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final

from hybridgrey.migrate import addressset
from hybridgrey.migrate.addressset import Network, Spans

_IF: Final = re.compile(r"if(?![a-z0-9])\s*", re.IGNORECASE)
_ENDIF: Final = re.compile(r"endif(?![a-z0-9])", re.IGNORECASE)
_BRACKETS: Final = re.compile(r"\[([^\[\]/]*)(?:\](/[0-9]+)?|(/[0-9]+)\])")


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its line, its text on one line, its result, and the addresses that it covers.

    `network` is set where these are a network's, as it is written.  `problem` says why the row is not to let
    in anybody; it may still keep out.
    """

    number: int
    text: str
    result: str = ""
    covers: Spans = field(default_factory=list)
    network: Network | None = None
    problem: str = ""


class NetworkError(ValueError):
    """A pattern that Postfix does not take; the text says why."""


def lines(content: str) -> Iterator[tuple[int, str]]:
    """Logical lines with their numbers, as Postfix reads them: comments and empty lines end none."""
    number, row = 0, ""
    # Postfix knows one line end; str.splitlines knows ten.
    for n, line in enumerate(content.split("\n"), 1):
        text = line.removesuffix("\r")
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        if text[0].isspace() and row:
            row = f"{row} {text}"
            continue
        if row:
            yield number, row
        number, row = n, text
    if row:
        yield number, row


def rows(content: str) -> list[Row]:
    """The rows of a cidr table in their order."""
    conditions = _Conditions()
    rows: list[Row] = []
    for number, line in lines(content):
        text = line.strip()
        shown = " ".join(text.split())
        if _ENDIF.match(text):
            problem = conditions.end(text)
        elif condition := _IF.match(text):
            problem = conditions.begin(text[condition.end() :], number)
        else:
            rows.append(_row(number, shown, text, conditions.hold, conditions.doubt))
            continue
        if problem:
            rows.append(Row(number, shown, problem=problem))
    return rows


class _Conditions:
    """The open ``if`` lines, as Postfix has them.

    An ``if`` that cannot be read is none to Postfix, so the rows after it hold for all; who wrote it meant
    something else, and up to its ``endif`` no row is to let in anybody.
    """

    def __init__(self) -> None:
        self._open: list[Spans] = [list(addressset.ALL)]
        self._inside = 0
        self.doubt = ""

    @property
    def hold(self) -> Spans:
        """The addresses for which all open conditions hold."""
        return self._open[-1]

    def begin(self, text: str, number: int) -> str:
        """Take in what stands after ``if``; returns what is wrong with it."""
        self._inside += bool(self.doubt)
        try:
            covers, _network, rest = _covered(text)
        except NetworkError as error:
            covers, rest, problem = [], "", str(error)
        else:
            problem = "something follows the pattern of the if" if rest else ""
        if not problem:
            self._open.append(addressset.both(self.hold, covers))
        elif not self.doubt:
            self.doubt, self._inside = f"the if in line {number} cannot be read", 1
        return problem

    def end(self, text: str) -> str:
        """Take in an ``endif``; returns what is wrong with it."""
        if _ENDIF.sub("", text):
            return "something follows the endif, so it ends no if"
        if self.doubt:
            self._inside -= 1
            self.doubt = self.doubt if self._inside else ""
        if len(self._open) == 1:
            return "endif without an if"
        self._open.pop()
        return ""


def _row(number: int, shown: str, text: str, around: Spans, problem: str) -> Row:
    """A row with a pattern and a result."""
    try:
        covers, network, result = _covered(text)
    except NetworkError as error:
        return Row(number, shown, problem=str(error))
    if not result:
        return Row(number, shown, problem="has no result")
    inside = addressset.both(around, covers)
    return Row(number, shown, result, inside, network if inside == covers else None, problem)


def _covered(text: str) -> tuple[Spans, Network | None, str]:
    """What the pattern at the beginning of a text covers, and what follows it; raises NetworkError."""
    bare = text.lstrip("! \t")
    negated = text[: len(text) - len(bare)].count("!") % 2
    pattern, *rest = bare.split(None, 1) or [""]
    network = parse_network(pattern)
    result = rest[0] if rest else ""
    return (
        (addressset.outside(network), None, result)
        if negated
        else ([addressset.span(network)], network, result)
    )


def parse_network(pattern: str) -> Network:
    """An address or network as a cidr table has it, in brackets or not; raises NetworkError."""
    bare = pattern
    if bracketed := _BRACKETS.fullmatch(pattern):
        bare = bracketed[1] + (bracketed[2] or bracketed[3] or "")
    shown = repr(pattern[:60])
    if not re.fullmatch(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?", bare):
        raise NetworkError(f"{shown} is no address or network")
    try:
        network = ip_network(bare)
    except ValueError:
        try:
            meant = ip_network(bare, strict=False)
        except ValueError:
            raise NetworkError(f"{shown} is no address or network") from None
        raise NetworkError(
            f"{shown} has bits set after its prefix, so Postfix skips it; {meant} is meant?"
        ) from None
    if network.version == 6 and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        raise NetworkError(f"{shown} is no client's: to Postfix it has an IPv4 address")
    return network


def inline(text: str) -> str:
    """The content of an in-line table, ``{ {rule}, {rule} }``: each rule is a line (cidr_table(5))."""
    body = text.strip()
    body = body[1:-1] if body.startswith("{") and body.endswith("}") else body
    depth, start = 0, 0
    found: list[str] = []
    for place, character in enumerate(body):
        if character == "{":
            start = place + 1 if not depth else start
            depth += 1
        elif character == "}" and depth:
            depth -= 1
            if not depth:
                found.append(" ".join(body[start:place].split()))
    return "\n".join(found)
