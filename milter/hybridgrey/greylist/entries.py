"""The greylist's entries as an admin sees them: look through them, allow, forget.

An *entry* is a triplet (waiting or passed) or a client network's count of passed triplets (counting, or
allowed once there are enough).  In a network's place there may be a sender's domain, ``spf=example.org``.
Millions are looked through a page at a time, so memory does not grow with their number; SCAN may then show
an entry twice while the server grows its table. *Notes* (when a network's count grew, how many triplets of an
address wait) are no entries, and are forgotten with what they are about.

A `Query` says which entries: exact values are compared in their stored form, so that addresses hidden as
HMACs are found too; patterns (``*``, ``?``, ``[…]``) and wide networks need clear text.

All methods raise StoreError, and only that.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hybridgrey import address
from hybridgrey.greylist import networks
from hybridgrey.greylist.networks import Network
from hybridgrey.greylist.terms import Terms
from hybridgrey.greylist.triplets import (
    DOMAIN,
    NAMESPACE,
    Greylist,
    Note,
    ParsedKey,
    note_key,
    parse_key,
    parse_note,
)
from hybridgrey.store import pages
from hybridgrey.store.connection import Script, Store
from hybridgrey.store.pages import Page, Pages, Row

_WILD = re.compile(r"[*?\[]")
_PARTS = {"anywhere": "", "client": "network"}
"""The part of an entry that a condition is on, where its name is another one."""
_ALLOW: Final = Script("""
local value, passes = redis.pcall('GET', KEYS[1]), 0
-- As triplets.lua reads it: damage, such as "nan", is larger than no number and counts as nothing.
if type(value) == 'string' and #value <= 12 and string.find(value, '^-?%d+$') then
  passes = tonumber(value)
end
redis.call('SET', KEYS[1], math.max(passes, tonumber(ARGV[1])), 'EX', ARGV[2])
return {1}
""")
_PASS: Final = Script("""
redis.call('SET', KEYS[1], -tonumber(redis.call('TIME')[1]), 'EX', ARGV[1])
return {1}
""")


class Status(StrEnum):
    """What an entry is."""

    WAITING = "waiting"
    PASSED = "passed"
    COUNTING = "counting"
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    `age` is the seconds since the first attempt (None for a network), `passes` a network's count, `expires`
    the seconds until it is forgotten (-1: never).  With `hidden` the names are HMACs.  `domain` is that of a
    key by domain, else "".
    """

    key: bytes
    network: str
    sender: str | None
    recipient: str | None
    status: Status
    age: int | None
    passes: int | None
    expires: int
    hidden: bool
    domain: str = ""


class ConditionError(ValueError):
    """A condition that cannot be looked for; `condition` is its name in `Query`."""

    def __init__(self, condition: str, text: str) -> None:
        self.condition = condition
        super().__init__(text)


class Query:
    """Which entries: all conditions that are given must hold."""

    def __init__(
        self,
        greylist: Greylist,
        *,
        hidden: bool,
        client: str = "",
        sender: str | None = None,
        recipient: str | None = None,
        anywhere: str = "",
        status: Status | None = None,
    ) -> None:
        """Conditions as typed; `hidden` says whether keys are HMACs.

        `sender` None: any, "" and "<>": the null sender.  `anywhere`: a client, or a pattern for any of the
        parts.  Raises ConditionError.
        """
        self._greylist = greylist
        self._hidden = hidden
        self._status = status
        self._inside: Network | None = None
        self._globs: list[tuple[str, re.Pattern[str]]] = []
        if anywhere and (anywhere.startswith(DOMAIN) or networks.read(anywhere) is not None):
            if client:
                raise ConditionError("anywhere", f"{anywhere!r} is a client, and there is one already")
            client, anywhere = anywhere, ""
        self._tag = self._client(client) if client else b""
        self._sender = self._mailbox("sender", sender)
        self._recipient = self._mailbox("recipient", recipient)
        if anywhere:
            self._glob("anywhere", anywhere)
        self.is_everything = not (client or self._globs or self._sender or self._recipient or status)

    def pattern(self) -> bytes:
        """What SCAN matches on the server."""
        tag = pages.quoted(self._tag) if self._tag else f"{NAMESPACE}:{{*".encode()
        if not (self._sender or self._recipient):
            return tag + b"*" if self._tag else tag
        closing = b"" if self._tag else b"}"
        names = (pages.quoted(part) if part else b"*" for part in (self._sender, self._recipient))
        return b":".join((tag + closing, *names))

    def matches(self, entry: Entry) -> bool:
        """Whether an entry is meant."""
        if self._status is not None and entry.status is not self._status:
            return False
        tag, sender, recipient = parts(entry.key)
        if self._tag and tag != self._tag:
            return False
        if (self._sender and sender != self._sender) or (self._recipient and recipient != self._recipient):
            return False
        return self._is_inside(entry.network) and all(_fits(entry, *glob) for glob in self._globs)

    def covers(self, key: bytes) -> bool:
        """Whether all is meant that the note under a key is about (False for the key of an entry).

        A network's notes go with its entries; those on waiting triplets go with these, too.
        """
        noted = parse_note(key)
        if noted is None or self._sender or self._recipient:
            return False
        network, note = noted
        if self._status is not None and (self._status, note) != (Status.WAITING, Note.WAITING):
            return False
        if self._tag and parts(key)[0] != self._tag:
            return False
        whole = all(part in ("", "network") and pattern.fullmatch(network) for part, pattern in self._globs)
        return whole and self._is_inside(network)

    def _client(self, text: str) -> bytes:
        if text.startswith(DOMAIN) and not _WILD.search(text):
            return domain_key(self._greylist, text.removeprefix(DOMAIN))
        network = networks.read(text)
        if network is None:
            if not _WILD.search(text):
                raise ConditionError("client", f"{text!r} is no address, network or pattern")
            self._glob("client", text)
            return b""
        network = self._greylist.clients.network(network)
        terms = self._greylist.terms
        if network.prefixlen >= (terms.ipv4_prefix if network.version == 4 else terms.ipv6_prefix):
            return network_key(self._greylist, network)
        self._clear_only("client", "a network wider than the greylist's")
        self._inside = network
        return b""

    def _mailbox(self, part: str, text: str | None) -> bytes:
        if text is None:
            return b""
        if _WILD.search(text):
            self._glob(part, text)
            return b""
        names = (text, "x") if part == "sender" else ("x", text)
        return parts(self._greylist.keys("192.0.2.1", *names)[0])[1 if part == "sender" else 2]

    def _glob(self, part: str, text: str) -> None:
        self._clear_only(part, "a pattern")
        self._globs.append((_PARTS.get(part, part), re.compile(fnmatch.translate(text), re.IGNORECASE)))

    def _clear_only(self, condition: str, what: str) -> None:
        if self._hidden:
            text = f"{what} cannot be found, for addresses are stored as HMACs; give exact values"
            raise ConditionError(condition, text)

    def _is_inside(self, text: str) -> bool:
        if self._inside is None:
            return True
        try:
            network: Any = ipaddress.ip_network(text)
        except ValueError:  # a client without an IP address
            return False
        return bool(network.version == self._inside.version and network.subnet_of(self._inside))


class Entries:
    """The entries of one store."""

    def __init__(self, url: str, timeout: float, store: Store, terms: Terms) -> None:
        """`store` is for single changes; `timeout` in seconds, for each round trip."""
        self._pages = Pages(url, timeout)
        self._store = store
        self._enough = terms.auto_allow_after

    def find(self, query: Query) -> Iterator[Entry]:
        """The entries that a query means, in no order."""
        for page in self._pages.through(query.pattern()):
            yield from self._meant(query, page)

    def forget(self, query: Query) -> Iterator[int]:
        """Forget what a query means; yields how many were forgotten, page by page."""
        for page in self._pages.through(query.pattern()):
            found = list(self._meant(query, page))
            credits_ = [note_key(entry.key, Note.CREDIT) for entry in found if entry.sender is None]
            notes = [row.key for row in page.rows if query.covers(row.key)]
            keys = [*(entry.key for entry in found), *credits_, *notes]
            yield sum(pages.forget(page.server, keys)[: len(found)])

    def allow(self, key: bytes, seconds: int) -> None:
        """Let a client network in from its next mail on, for at most `seconds` without mail."""
        self._store.run(_ALLOW, (key,), (max(1, self._enough), seconds))

    def let_pass(self, key: bytes, seconds: int) -> None:
        """Make a triplet one that has passed."""
        self._store.run(_PASS, (key,), (seconds,))

    def close(self) -> None:
        """Close all connections."""
        self._pages.close()
        self._store.close()

    def _meant(self, query: Query, page: Page) -> Iterator[Entry]:
        """The entries of a page that a query means."""
        for row in page.rows:
            entry = self._entry(row, page.now)
            if entry is not None and query.matches(entry):
                yield entry

    def _entry(self, row: Row, now: int) -> Entry | None:
        """An entry from what is stored; None for what is none of ours, or damaged."""
        key, value, expires = row
        name = parse_key(key)
        # What triplets.lua takes for a number; a triplet's is a time, so 0 is none.
        if name is None or len(value) > 12 or not re.fullmatch(rb"-?[0-9]+", value):
            return None
        number = int(value)
        if not number and name.sender is not None:
            return None
        if name.sender is None:
            enough = 0 < self._enough <= number
            return _made(key, name, Status.ALLOWED if enough else Status.COUNTING, None, number, expires)
        status = Status.PASSED if number < 0 else Status.WAITING
        return _made(key, name, status, max(0, now - abs(number)), None, expires)


def _made(
    key: bytes, name: ParsedKey, status: Status, age: int | None, passes: int | None, expires: int
) -> Entry:
    of_triplet = key, name.network, name.sender, name.recipient
    return Entry(*of_triplet, status, age, passes, expires, name.hidden, name.domain)


def network_key(greylist: Greylist, network: Network) -> bytes:
    """The key of a network's count; of the greylist's own network around it, if that is wider."""
    return greylist.keys(str(network.network_address), "", "")[1]


def domain_key(greylist: Greylist, domain: str) -> bytes:
    """The key of a domain's count."""
    return greylist.domain_keys(address.host(domain), "", "")[1]


def parts(key: bytes) -> tuple[bytes, bytes, bytes]:
    """A key's network (with prefix and braces), sender and recipient, as stored; "" for what it has not."""
    tag, brace, names = key.partition(b"}")
    sender, _, recipient = names[1:].partition(b":")
    return tag + brace, sender, recipient


def _fits(entry: Entry, part: str, pattern: re.Pattern[str]) -> bool:
    texts = (getattr(entry, part),) if part else (entry.network, entry.sender, entry.recipient)
    return any(text is not None and pattern.fullmatch(text) for text in texts)
