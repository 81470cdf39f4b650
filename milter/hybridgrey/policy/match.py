"""Entries of the rules' clients, helo, senders and recipients: read them, and match all rules at once.

An entry is an address, a network, a name, ``.domain`` (every name below it) or, for senders and recipients, a
mailbox or a local part.  A client's name may have ``*`` in it (see `wildcard`); ``user+*`` is a mailbox with
any extension.  ``!`` before an entry excludes.  A condition holds when any of its entries matches and no
excluded one does; a condition of exclusions only holds for everything else.

Rules are not tried one after the other: an `Index` holds the entries of all rules for one kind of condition,
and answers with a bit mask of the rules whose condition holds.  So the cost of a decision does not grow with
the number of entries, and hardly with the number of rules.

Files of entries may be Postfix access(5) tables, ``OK`` and ``permit`` rows only; those rows mean what they
mean to Postfix, so ``example.org OK`` covers the names below example.org too (the default
parent_domain_matches_subdomains), and ``192.0.2 OK`` is 192.0.2.0/24.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from hybridgrey import address, envelope
from hybridgrey.clientaddress import Carried
from hybridgrey.envelope import Mailbox
from hybridgrey.policy import dotted
from hybridgrey.policy.prefixes import Prefixes, owners
from hybridgrey.policy.wildcard import WildcardError, Wildcards
from hybridgrey.policy.wildcard import parse as parse_wildcard

Network = IPv4Network | IPv6Network

NULL_SENDER = "<>"

_LABEL = r"\w(?:[\w-]{0,61}\w)?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_OCTETS = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,2}")
_HEXTETS = re.compile(r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}", re.IGNORECASE)
_PASSING_VERBS = frozenset({"ok", "permit"})


class EntryError(ValueError):
    """An entry that cannot be read; the text says what is wrong with it."""


class Kind(StrEnum):
    """What an entry is matched against; the value is the config key."""

    CLIENT = "clients"
    HELO = "helo"
    SENDER = "senders"
    RECIPIENT = "recipients"
    POOL = "pools"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry in matching form.

    The key is a network; or a name, one with ``*``, ``.domain``, ``local@domain``, ``local@`` (any domain),
    ``local+*`` in their place (any extension), or ``<>``.
    """

    key: Network | str
    excluded: bool = False


def parse_entry(kind: Kind, text: str) -> Entry:
    """Read one entry as written in the config file; raises EntryError."""
    body = text.strip()
    excluded = body.startswith("!")
    if excluded:
        body = body[1:].lstrip()
    if not body:
        raise EntryError("an entry is empty")
    return Entry(_key(kind, body), excluded)


def _key(kind: Kind, body: str) -> Network | str:
    if kind is Kind.CLIENT:
        return _client_key(body)
    if kind is Kind.HELO:
        return body.lower() if body.startswith("[") and body.endswith("]") else _name(body)
    return _domain(body) if kind is Kind.POOL else _mailbox_key(body)


def _client_key(body: str) -> Network | str:
    if "/" in body or ":" in body or re.fullmatch(r"[\d.]+", body):
        return _network(body)
    name = address.host(re.sub(r"\s*-\s*", "-", body))
    if dotted.looks_numeric(name):
        raise EntryError(dotted.instead(name))
    if "*" in body:
        try:
            return parse_wildcard(name)
        except WildcardError as e:
            raise EntryError(str(e)) from None
    return _name(body)


def _network(body: str) -> Network:
    try:
        return _unmapped(ipaddress.ip_network(body, strict=True))
    except ValueError as e:
        try:
            meant = ipaddress.ip_network(body, strict=False)
        except ValueError:
            raise EntryError(_no_network(body)) from e
        raise EntryError(f"{body!r} has bits set after its prefix; {meant} is meant?") from e


def _no_network(body: str) -> str:
    return dotted.instead(body) if "/" not in body else f"{body!r} is no address or network"


def _unmapped(network: Network) -> Network:
    """A network of IPv4-mapped addresses as the IPv4 network that its clients are seen as."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((int(mapped), network.prefixlen - 96))
    return network


def _name(body: str) -> str:
    """A host name, or ``.domain``."""
    dot = "." if body.startswith(".") else ""
    name = address.host(body[len(dot) :])
    if not name or not _NAME.fullmatch(name):
        raise EntryError(f"{body!r} is no host name or .domain")
    return dot + name


def _domain(body: str) -> str:
    name = _name(body)
    if "." not in name or name.startswith(".") or dotted.looks_numeric(name):
        raise EntryError(f"{body!r} is no domain that can have an SPF record")
    return name


def _mailbox_key(body: str) -> str:
    if body == NULL_SENDER:
        return body
    if body.startswith("."):
        return _name(body)
    if body.startswith("@"):
        return _name(body[1:])
    anywhere = body.endswith("@")
    # Without "@" a dot tells a domain from a local part.
    if "@" not in body and "." in body and not body.startswith('"'):
        return _name(body)
    box = envelope.read(body.removesuffix("@"))
    if not box.certain or box.null or (anywhere and box.domain):
        raise EntryError(f"{body!r} is no mailbox")
    if box.local.endswith("+*") and "+" in box.local[:-2]:
        raise EntryError(f"{body!r}: +* follows the name, and stands for all that follows it")
    return f"{box.local}@{box.domain}"


def parse_file(kind: Kind, text: str) -> tuple[list[Entry], list[str]]:
    """Read a file of entries, one a line, or a Postfix access table; returns entries, and errors by line."""
    entries: list[Entry] = []
    errors: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        body = re.sub(r"(^|\s)#.*", "", line).strip()
        if not body:
            continue
        try:
            entries.extend(_line_entries(kind, body))
        except EntryError as e:
            errors.append(f"line {number}: {e}")
    return entries, errors


def _line_entries(kind: Kind, body: str) -> list[Entry]:
    if body.startswith(('"', "! ")) or kind is Kind.POOL:
        return [parse_entry(kind, body)]
    pattern, *rest = body.split(None, 1)
    if not rest or (kind is Kind.CLIENT and rest[0].startswith("-")):
        return [parse_entry(kind, body)]
    verb = rest[0].split(None, 1)[0]
    if verb.lower() not in _PASSING_VERBS:
        raise EntryError(f"only OK and permit rows are taken over from an access table, not {verb!r}")
    return list(_access_row(kind, pattern))


def _access_row(kind: Kind, pattern: str) -> Iterator[Entry]:
    """The entries that a row of access(5) with this pattern stands for."""
    network = _access_network(pattern) if kind is Kind.CLIENT else None
    if network is not None:
        yield Entry(network)
        return
    entry = parse_entry(kind, pattern)
    yield entry
    if isinstance(entry.key, str) and not {"@", "[", "<", "*"} & set(entry.key) and entry.key[0] != ".":
        yield Entry("." + entry.key, entry.excluded)


def _access_network(pattern: str) -> Network | None:
    """``192.0.2`` and ``2001:db8:0`` are the networks of all addresses that begin so (access(5))."""
    if _OCTETS.fullmatch(pattern):
        octets = pattern.split(".")
        return _network(".".join(octets + ["0"] * (4 - len(octets))) + f"/{8 * len(octets)}")
    if ":" in pattern and _HEXTETS.fullmatch(pattern):
        groups = pattern.split(":")
        return _network(":".join(groups) + "::" + f"/{16 * len(groups)}")
    return None


class _Masks:
    """Keys of all rules, each with the rules it belongs to."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.wildcards = Wildcards()
        self.networks = Prefixes()

    def add(self, key: Network | str, rule: int) -> None:
        if not isinstance(key, str):
            self.networks.add(key.max_prefixlen // 8, int(key.network_address), key.prefixlen, rule)
        elif "*" in key and not {"@", "["} & set(key):
            self.wildcards.add(key, rule)
        else:
            self.names[key] = self.names.get(key, 0) | 1 << rule


class Index:
    """The entries of all rules for one kind of condition.

    `entries` has an item a rule: its entries, or None where the rule has no such condition and so holds for
    everything.  A result is a bit mask: bit i is set when the condition of rule i holds.
    """

    def __init__(self, entries: Sequence[Iterable[Entry] | None]) -> None:
        included, excluded = _Masks(), _Masks()
        self.unconditional = 0
        self._otherwise = 0
        for rule, items in enumerate(entries):
            if items is None:
                self.unconditional |= 1 << rule
                continue
            entries_of_rule = tuple(items)
            # No entry at all, as from an empty file of friends, holds for nobody.
            only_exclusions = bool(entries_of_rule)
            for entry in entries_of_rule:
                (excluded if entry.excluded else included).add(entry.key, rule)
                only_exclusions &= entry.excluded
            if only_exclusions:
                self._otherwise |= 1 << rule
        self._otherwise |= self.unconditional
        self._included = included.names
        self._excluded = excluded.names
        self._wild = included.wildcards, excluded.wildcards
        self._any_wild = any(self._wild)
        self._v4 = included.networks.tables(4), excluded.networks.tables(4)
        self._v6 = included.networks.tables(16), excluded.networks.tables(16)
        self._trivial = self.unconditional == (1 << len(entries)) - 1

    def client(
        self, packed: bytes | None, host: str | None, carried: Carried | None = None, refusing: int = 0
    ) -> int:
        """Rules that hold for a client: its address, 4 or 16 bytes, and its verified host name if any.

        The IPv4 address that it carries counts like its own.  One that is not proven only speaks against the
        client: it makes rules of the mask `refusing` hold, and keeps all others from it.
        """
        if self._trivial:
            return self.unconditional
        hit, miss = self._addresses(packed) if packed is not None else (0, 0)
        if carried is not None:
            more, less = self._addresses(carried.address)
            hit |= more if carried.proven else more & ~less & refusing
            miss |= less if carried.proven else less & ~refusing
        parents = _parents(address.host(host)) if host else ()
        if parents and self._any_wild:
            hit |= self._wild[0].find(parents)
            miss |= self._wild[1].find(parents)
        return self._result(parents, hit, miss)

    def _addresses(self, packed: bytes) -> tuple[int, int]:
        """Rules with an entry for an address, and those with one that excludes it."""
        value = int.from_bytes(packed, "big")
        included, excluded = self._v4 if len(packed) == 4 else self._v6
        return owners(included, value), owners(excluded, value)

    def name(self, host: str | None) -> int:
        """Rules that hold for a HELO name, None when the client has sent none."""
        if self._trivial:
            return self.unconditional
        return self._result(_parents(address.host(host)) if host else (), 0, 0)

    def names(self, certain: Iterable[str], possible: Iterable[str]) -> tuple[int, int]:
        """Rules that hold for the certain names whatever is true of the possible ones, and that may hold."""
        miss = self._any(self._excluded, certain)
        held = self._otherwise | self._any(self._included, certain)
        surely = held & ~miss & ~self._any(self._excluded, possible)
        return surely, (held | self._any(self._included, possible)) & ~miss

    @staticmethod
    def _any(table: dict[str, int], names: Iterable[str]) -> int:
        found = 0
        for name in names:
            found |= table.get(name, 0)
        return found

    def mailbox(self, box: Mailbox) -> int:
        """Rules that hold for an envelope sender or recipient.

        An uncertain one equals no entry and every exclusion: only rules without the condition hold.
        """
        if self._trivial or not box.certain:
            return self.unconditional
        if box.null:
            return self._result((NULL_SENDER,), 0, 0)
        keys = [f"{box.local}@{box.domain}", f"{box.local}@"]
        miss = 0
        if "+" in box.local:
            name = box.local.partition("+")[0]
            keys += f"{name}+*@{box.domain}", f"{name}+*@"
            # An MTA delivers user+extension to user, so who excludes the one means the other, too.
            for key in (f"{name}@{box.domain}", f"{name}@"):
                miss |= self._excluded.get(key, 0)
        if box.domain:
            keys += _parents(box.domain)
        return self._result(keys, 0, miss)

    def _result(self, keys: Iterable[str], hit: int, miss: int) -> int:
        for key in keys:
            hit |= self._included.get(key, 0)
            miss |= self._excluded.get(key, 0)
        return (self._otherwise | hit) & ~miss


def _parents(name: str) -> list[str]:
    """The keys under which a name may stand: itself, and ``.domain`` for each domain above it.

    No entry is longer than a name may be, so of a longer text only the end is looked at: nothing is missed.
    """
    keys = [name]
    at = name.find(".", max(1, len(name) - address.MAX_NAME - 1))
    while at >= 0:
        keys.append(name[at:])
        at = name.find(".", at + 1)
    return keys
