"""Greylisting (RFC 6647): what one attempt of a triplet means.

A *triplet* is client network, normalised sender and recipient (`normalise`). Its states:

    new -> waiting (EARLY until the delay is over) -> passed -> known (renewed by each mail)

The script triplets.lua decides and remembers in one round trip, by the store's clock and the store's own
expiry; here are its keys, its call and its answer. `Greylist.attempt` is the call of an attempt,
`Greylist.glance` of one that only looks, `Touch.read` takes the reply; `touch` and `peek` wait for it.
`parse_key` reads a key back.

Keys, all of one call with the client network as their hash tag, so that a Redis Cluster keeps them together:

    hg1:{192.0.2.0/24}:sender@example.org:recipient@example.net      a triplet
    hg1:{192.0.2.0/24}                                               count of the network's passed triplets
    hg1:{192.0.2.0/24}+                                              when that count last grew
    hg1:{192.0.2.0/24}@192.0.2.17                                    how many triplets of an address wait
    hg1:{spf=example.org}:sender@example.org:recipient@example.net   a triplet of a client that SPF proves
    hg1:{spf=example.org}, hg1:{spf=example.org}+                    the domain's count, and when it last grew

A triplet of a client that SPF proves has a second key, by the sender's domain: see `attempt_by_domain` and
`hand_over`.

Both bounds are the script's. A network's count grows once in `auto_allow_interval` at most, so that one burst
and one retry buy nothing (postgrey does the same). An address (IPv6: its /64) has at most `max_waiting`
waiting triplets; what it tries beyond is FULL: refused as a new triplet is, and not remembered, so that it
leaves no key. It is counted by address, not by network, so that one cannot starve its neighbours.

`hg1` is the version of this layout. In a part `%`, `:`, braces, spaces, controls and all but ASCII are
percent-escaped, so a key splits without doubt whatever a sender wrote, and prints on one line. A longer
part than `MAX_PART` ends in `~` and a digest. With a key secret each part is an HMAC-SHA256 of its own
domain (a sender equal to a recipient looks different), 128 bits in base64url.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import unquote

from hybridgrey.clientaddress import ClientReader
from hybridgrey.greylist import normalise
from hybridgrey.greylist.terms import Terms
from hybridgrey.store.connection import Call, Script, Store, StoreError

SCRIPT: Final = Script.installed("hybridgrey.greylist", "triplets.lua")
NAMESPACE: Final = "hg1"
MAX_PART: Final = 120  # bytes of an escaped part; RFC 5321's longest real addresses stay clear text
_KEPT: Final = 80  # of these, when the rest becomes a digest
_ESCAPED = re.compile(rb"[^!-~]|[%:{}]")
_ESCAPED_IN_TAG = re.compile(rb"[^!-~]|[%{}]")  # the braces end it, and IPv6 needs its colons
_OF_CLIENTS: Final = frozenset({"network", "address", "domain"})
DOMAIN: Final = "spf="
"""How the hash tag of a domain begins; no network does."""
_KEY = re.compile(r"hg1:\{([^{}]*)\}(?::([^:]*):([^:]*))?")
_NOTE_KEY = re.compile(r"hg1:\{([^{}]*)\}([+@]).*")
# What is asked of the script; see there.
_ATTEMPT, _LOOK, _KEEP_NOTHING, _TAKE_OVER = range(4)
ADDRESS_PREFIXES: Final = (32, 64)
"""What counts as one client address, IPv4 and IPv6: who has one IPv6 address has a /64 (RFC 6177)."""


class State(StrEnum):
    """What this attempt was; the order is the script's numbering."""

    NEW = "new"
    EARLY = "early"
    PASSED = "passed"
    KNOWN = "known"
    NETWORK = "network"
    FULL = "full"


_STATES: Final = tuple(State)
_ACCEPTED: Final = frozenset({State.PASSED, State.KNOWN, State.NETWORK})


class Touch(NamedTuple):
    """The answer to one attempt.

    `seconds_left`: until a retry passes, 1 to the delay; 0 when accepted. `age`: seconds since the triplet's
    first attempt, which for PASSED is the delay that the mail suffered; 0 for NEW and FULL, and for NETWORK
    when there is no such triplet. FULL: refused like NEW and not remembered, for too many triplets of the
    client's address wait already. `expected`: whether mail for the recipient is, None where nobody asked.
    """

    state: State
    seconds_left: int
    age: int
    expected: bool | None = None

    @classmethod
    def read(cls, reply: Sequence[int]) -> Touch:
        """What the script has answered. Raises StoreError for what it does not answer."""
        try:
            if len(reply) == 4:
                state, left, age, hoped = reply
                return cls(_STATES[state], left, age, hoped == 1)
            state, left, age = reply
            return cls(_STATES[state], left, age)
        except (ValueError, IndexError, TypeError):
            raise StoreError("the store gave an answer that the greylist script does not give") from None

    @property
    def accepted(self) -> bool:
        """Whether the recipient is let through."""
        return self.state in _ACCEPTED


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A key of the store, read back; `sender` and `recipient` are None for a network's count."""

    network: str
    sender: str | None
    recipient: str | None

    @property
    def domain(self) -> str:
        """The sender's domain (its HMAC with a key secret) of a key by domain, "" of one by network."""
        return self.network.removeprefix(DOMAIN) if self.network.startswith(DOMAIN) else ""

    @property
    def hidden(self) -> bool:
        """Whether the parts are HMACs: a clear network has a prefix length or is escaped, a domain dots."""
        tag = self.network.removeprefix(DOMAIN)
        return "/" not in tag and re.fullmatch(r"[A-Za-z0-9_-]{22}", tag) is not None


def parse_key(key: bytes) -> ParsedKey | None:
    """The parts of one of our keys, unescaped; None for any other key."""
    match = _KEY.fullmatch(key.decode("latin-1"))
    if match is None:
        return None
    network, sender, recipient = (None if part is None else unquote(part) for part in match.groups())
    return ParsedKey(network or "", sender, recipient)


class Note(StrEnum):
    """What is noted beside a network's entries; the value is how its key goes on after the hash tag."""

    CREDIT = "+"
    WAITING = "@"


def note_key(network: bytes, note: Note, address: bytes = b"") -> bytes:
    """The key of a note; `network` is the key of the network's count, `address` a part, for WAITING."""
    return b"%s%s%s" % (network, note.value.encode(), address)


def parse_note(key: bytes) -> tuple[str, Note] | None:
    """The network of a key that is a note, and which of them it is; None for any other key."""
    match = _NOTE_KEY.fullmatch(key.decode("latin-1"))
    return (unquote(match[1]), Note(match[2])) if match else None


def key_pattern() -> bytes:
    """A SCAN pattern for all keys of this layout."""
    return f"{NAMESPACE}:{{*".encode()


class Greylist:
    """The triplets of one store, under terms; `clients` reads the addresses of clients.

    With `key_secret` the keys are HMACs. Thread safe: nothing changes after construction.
    """

    def __init__(
        self,
        store: Store,
        terms: Terms,
        *,
        key_secret: str = "",
        clients: ClientReader | None = None,
    ) -> None:
        self._store = store
        self.terms = terms
        self._limits = (max(1, terms.retry_window), max(1, terms.lifetime), max(0, terms.auto_allow_after))
        self._bounds = (max(0, terms.auto_allow_interval), max(0, terms.max_waiting))
        self.clients = clients or ClientReader()
        self._networks = (terms.ipv4_prefix, terms.ipv6_prefix, self.clients)
        self._part = _hidden_part(key_secret) if key_secret else _clear_part

    def touch(self, client: str, sender: str, recipient: str, delay: int) -> Touch:
        """Note one attempt and say what it means; `delay` in seconds. Raises StoreError."""
        return Touch.read(self._store.run(*self.attempt(client, sender, recipient, delay)))

    def peek(self, client: str, sender: str, recipient: str, delay: int) -> Touch:
        """What `touch` would answer now, changing nothing. Raises StoreError."""
        return Touch.read(self._store.run(*self.glance(client, sender, recipient, delay)))

    def attempt(
        self,
        client: str,
        sender: str,
        recipient: str,
        delay: int,
        expected: tuple[bytes, bytes] | None = None,
    ) -> Call:
        """The call that notes an attempt and says what it means; `delay` in seconds.

        `expected` is the key and the field by which mail for the recipient is expected (`hand.expected`): the
        answer says so, if one server has all keys; `Touch.expected` is None if it does not.
        """
        call = self._call(client, sender, recipient, delay, _ATTEMPT)
        if expected is None or self._store.where is None:
            return call
        key, field = expected
        return call._replace(keys=(*call.keys, key), args=(*call.args, 0, 0, field))

    def glance(self, client: str, sender: str, recipient: str, delay: int) -> Call:
        """The call that says what an attempt would mean now, changing nothing."""
        return self._call(client, sender, recipient, delay, _LOOK)

    def attempt_by_domain(self, domain: str, sender: str, recipient: str, delay: int, network: Touch) -> Call:
        """The call that notes an attempt of a client that SPF proves to be the domain's.

        `network`: what was found for its network, of which an earlier first attempt counts here too.  Where
        too many wait there, nothing new is kept here either.
        """
        mode = _KEEP_NOTHING if network.state is State.FULL else _ATTEMPT
        return self._by_domain(domain, sender, recipient, delay, mode, network.age)

    def glance_by_domain(self, domain: str, sender: str, recipient: str, delay: int, network: Touch) -> Call:
        """The call that says what `attempt_by_domain` would mean now, changing nothing."""
        return self._by_domain(domain, sender, recipient, delay, _LOOK, network.age)

    def hand_over(self, client: str, sender: str, recipient: str, domain: Touch) -> Call | None:
        """The call by which a network takes over what was found for a domain: a pass, or the earlier attempt.

        None where there is nothing to take over: the domain's credit holds for whom SPF proves only.
        """
        if domain.state is State.NETWORK:
            return None
        keys = self._all_keys(client, sender, recipient)
        rest = (_TAKE_OVER, *self._bounds, domain.age, int(domain.accepted))
        return Call(SCRIPT, keys, (0, *self._limits, *rest))

    def keys(self, client: str, sender: str, recipient: str) -> tuple[bytes, bytes]:
        """The keys of a triplet and of its network's count."""
        network = self._part("network", normalise.client_network(client, *self._networks))
        return self._tagged(network, sender, recipient)

    def domain_keys(self, domain: str, sender: str, recipient: str) -> tuple[bytes, bytes]:
        """The keys of a triplet by domain, and of the domain's count."""
        return self._tagged(DOMAIN.encode() + self._part("domain", domain), sender, recipient)

    def _tagged(self, client: bytes, sender: str, recipient: str) -> tuple[bytes, bytes]:
        part, tag = self._part, b"%s:{%s}" % (NAMESPACE.encode(), client)
        name = part("sender", normalise.sender(sender)), part("recipient", normalise.recipient(recipient))
        return b"%s:%s:%s" % (tag, *name), tag

    def _all_keys(self, client: str, sender: str, recipient: str) -> tuple[bytes, bytes, bytes, bytes]:
        """The keys of one call, in the script's order."""
        triplet, network = self.keys(client, sender, recipient)
        address = normalise.client_network(client, *ADDRESS_PREFIXES, self.clients).partition("/")[0]
        waiting = note_key(network, Note.WAITING, self._part("address", address))
        return triplet, network, note_key(network, Note.CREDIT), waiting

    def _call(self, client: str, sender: str, recipient: str, delay: int, look: int) -> Call:
        keys = self._all_keys(client, sender, recipient)
        return Call(SCRIPT, keys, (delay, *self._limits, look, *self._bounds))

    def _by_domain(self, domain: str, sender: str, recipient: str, delay: int, mode: int, age: int) -> Call:
        triplet, count = self.domain_keys(domain, sender, recipient)
        # What waits is bounded for each address under its network, and so here.
        interval, bound = self._bounds[0], 0
        keys = (triplet, count, note_key(count, Note.CREDIT))
        return Call(SCRIPT, keys, (delay, *self._limits, mode, interval, bound, age))


def _clear_part(domain: str, text: str) -> bytes:
    """A part as escaped clear text of at most MAX_PART bytes."""
    raw = text.encode("utf-8", "surrogatepass")
    escaped = (_ESCAPED_IN_TAG if domain in _OF_CLIENTS else _ESCAPED).sub(_escape, raw)
    if len(escaped) <= MAX_PART:
        return escaped
    cut = re.sub(rb"%[0-9A-F]?\Z", b"", escaped[:_KEPT])  # never half an escape
    return cut + b"~" + _short(hashlib.sha256(raw).digest())


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _hidden_part(secret: str) -> Callable[[str, str], bytes]:
    """A function that gives a part as HMAC of `secret`."""
    key = secret.encode("utf-8", "surrogatepass")

    def part(domain: str, text: str) -> bytes:
        message = f"{NAMESPACE} {domain}\0{text}".encode("utf-8", "surrogatepass")
        return _short(hmac.digest(key, message, "sha256"))

    return part


def _short(digest: bytes) -> bytes:
    """128 bits of a digest as 22 characters that need no escape."""
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=")
