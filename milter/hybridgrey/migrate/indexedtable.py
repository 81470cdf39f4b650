"""Postfix's indexed tables of clients (hash, lmdb, texthash …): the rows of their source text.

access(5): Postfix looks up the client's verified name, then the domains above it, then its address, then
what is left of it when the last octets are cut off; the first row found decides.  So a row of a name beats
any row of an address, and of two rows the longer one beats the shorter.  A client without a name is
``unknown``.  Of two rows with one key the first is kept, as postmap does it.

Pure; no function raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv6Address, ip_network
from typing import Final

from hybridgrey.migrate import addressset
from hybridgrey.migrate.addressset import Network
from hybridgrey.migrate.cidrtable import Row, lines
from hybridgrey.policy.match import EntryError, Kind, parse_entry

TYPES: Final = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash")
NAMELESS: Final = "unknown"
NEVER: Final = "Postfix never looks this up"

_OCTET: Final = r"(?:0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_V4: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{0,3}}")
_V6: Final = re.compile(r"[1-9a-f][0-9a-f]{0,3}(?::[1-9a-f][0-9a-f]{0,3}){0,6}")
_PAIR: Final = re.compile(r"\{\s*([^{}=\s]+)\s*=\s*([^{}]*)\}|([^\s,{}=]+)\s*=\s*([^\s,{}]+)")


def inline(path: str) -> str:
    """The rows of ``inline:{key=value, {key = value}}``, one a line."""
    pairs = _PAIR.findall(" ".join(path.split())[1:-1])
    return "\n".join(f"{a or c} {(b or d).strip()}" for a, b, c, d in pairs)


class Names:
    """The rows of a table whose key is a name, by what Postfix looks up: a name, or ``.domain``."""

    def __init__(self) -> None:
        self._results: dict[str, str] = {}
        self._rows: list[tuple[int, str, tuple[str, ...]]] = []
        self.let_in: list[str] = []
        self.kept_out: list[str] = []
        self.lost: list[tuple[int, str]] = []
        """Rows that do not let in or are no names: line and text."""
        self.nameless_kept_out = False
        """Whether the table keeps out clients without a name, which no exclusion can."""

    def add(self, number: int, text: str, keys: tuple[str, ...], result: str) -> None:
        """Note a row; `keys` are what it stands for here."""
        self._rows.append((number, text, keys))
        for key in keys:
            self._results.setdefault(key, result)

    def judge(self, lets_in: Callable[[str], bool]) -> None:
        """Tell the names that are let in from the others."""
        for number, text, keys in self._rows:
            good = lets_in(self._results[keys[0]])
            if keys == (NAMELESS,):
                self.nameless_kept_out |= not good
            if not good or keys == (NAMELESS,):
                self.lost.append((number, text))
        for key, result in self._results.items():
            if key != NAMELESS:
                (self.let_in if lets_in(result) else self.kept_out).append(key)

    def kept_out_of(self, *, everywhere: bool) -> list[str]:
        """The names to exclude: all where addresses are let in, else those below a name that is."""
        domains = _domains(self.let_in)
        return [key for key in self.kept_out if everywhere or _is_below(key, domains)]

    def shadowed(self, excluded: Iterable[str]) -> list[str]:
        """Names that Postfix lets in although the domain around them is kept out."""
        domains = _domains(excluded)
        return [key for key in self.let_in if _is_below(key, domains)]


def _domains(keys: Iterable[str]) -> frozenset[str]:
    return frozenset(key for key in keys if key.startswith("."))


def _is_below(key: str, domains: frozenset[str]) -> bool:
    parts = key.lstrip(".").split(".")
    above = (f".{'.'.join(parts[n:])}" for n in range(0 if key.startswith(".") else 1, len(parts)))
    return any(domain in domains and domain != key for domain in above)


def rows(content: str, names: Names, *, whole_only: bool = False, below: bool = True) -> list[Row]:
    """The rows of addresses, those of longer keys first; the rows of names go into `names`.

    `whole_only`: parts of addresses and names are not looked up, as by postscreen.  `below`: whether a name
    stands for the names below it.
    """
    found: dict[str, Row] = {}
    for number, line in lines(content):
        text = line.strip()
        key, *rest = text.split(None, 1)
        row = _row(number, " ".join(text.split()), key.lower(), rest[0] if rest else "")
        if row.covers and whole_only and row.network is not None and row.network.num_addresses > 1:
            row = Row(number, row.text, problem=NEVER)
        if row.problem or row.covers:
            found.setdefault(key.lower() if row.covers else f"{number}", row)
        elif keys := () if whole_only else tuple(_keys(key.lower(), below=below)):
            names.add(number, row.text, keys, row.result)
        else:
            found[f"{number}"] = Row(number, row.text, problem=NEVER)
    return sorted(found.values(), key=lambda r: -r.network.prefixlen if r.network else 0)


def _row(number: int, text: str, key: str, result: str) -> Row:
    """A row; without addresses and without a problem it is one of a name."""
    if not result:
        return Row(number, text, problem="has no result")
    if ":" not in key and "/" not in key and not re.fullmatch(r"[0-9.]+", key):
        return Row(number, text, result)
    network = _network(key)
    if network is None:
        return Row(number, text, result, problem=NEVER)
    return Row(number, text, result, [addressset.span(network)], network)


def _network(key: str) -> Network | None:
    """The network of a key that Postfix looks up; None for a key in any other form."""
    if _V4.fullmatch(key):
        octets = key.split(".")
        return ip_network(f"{'.'.join(octets + ['0'] * (4 - len(octets)))}/{8 * len(octets)}")
    try:
        # Looked up is the form that Postfix prints; a client with an IPv4 address in it is IPv4 to Postfix.
        address = IPv6Address(key)
        return ip_network(address) if str(address) == key and address.ipv4_mapped is None else None
    except ValueError:
        # A group of zeros may be hidden in "::", so only groups that are none can be cut at.
        if ":" in key and _V6.fullmatch(key):
            return ip_network(f"{key}::/{16 * len(key.split(':'))}")
        return None


def _keys(key: str, *, below: bool) -> Iterator[str]:
    """What a name stands for here: itself, the names below it; nothing for a key that is never looked up."""
    if key == NAMELESS:
        yield key
        return
    try:
        entry = parse_entry(Kind.CLIENT, key).key
    except EntryError:
        return
    if not isinstance(entry, str) or key.startswith("!") or "*" in key:
        return
    if entry.startswith("."):
        if not below:
            yield entry
        return
    yield entry
    if below:
        yield f".{entry}"
