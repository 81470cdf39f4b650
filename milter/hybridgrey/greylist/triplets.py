"""Greylisting (RFC 6647): what one attempt of a triplet means.

A *triplet* is client network, normalised sender and recipient (`normalise`). Its states:

    new -> waiting (EARLY until the delay is over) -> passed -> known (renewed by each mail)

The script triplets.lua decides and remembers in one round trip, by the store's clock and the store's own
expiry; here are its keys, its call and its answer. `Greylist.touch` is an attempt,
`Greylist.peek` only looks, `parse_key` reads a key back.

Keys, all of one call with the client network as their hash tag, so that a Redis Cluster keeps them together:

    hg1:{192.0.2.0/24}:sender@example.org:recipient@example.net      a triplet
    hg1:{192.0.2.0/24}                                               count of the network's passed triplets

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
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Final, NamedTuple
from urllib.parse import unquote

from hybridgrey.clientaddress import ClientReader
from hybridgrey.greylist import normalise
from hybridgrey.store.connection import Script, Store, StoreError

NAMESPACE: Final = "hg1"
MAX_PART: Final = 120  # bytes of an escaped part; RFC 5321's longest real addresses stay clear text
_KEPT: Final = 80  # of these, when the rest becomes a digest
_ESCAPED = re.compile(rb"[^!-~]|[%:{}]")
_ESCAPED_IN_TAG = re.compile(rb"[^!-~]|[%{}]")  # the braces end it, and IPv6 needs its colons
_KEY = re.compile(r"hg1:\{([^{}]*)\}(?::([^:]*):([^:]*))?")


class State(StrEnum):
    """What this attempt was; the order is the script's numbering."""

    NEW = "new"
    EARLY = "early"
    PASSED = "passed"
    KNOWN = "known"
    NETWORK = "network"


_STATES: Final = tuple(State)
_ACCEPTED: Final = frozenset({State.PASSED, State.KNOWN, State.NETWORK})


class Touch(NamedTuple):
    """The answer to one attempt.

    `seconds_left`: until a retry passes, 1 to the delay; 0 when accepted. `age`: seconds since the triplet's
    first attempt, which for PASSED is the delay that the mail suffered; 0 for NEW, and for NETWORK when there
    is no such triplet.
    """

    state: State
    seconds_left: int
    age: int

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
    def hidden(self) -> bool:
        """Whether the parts are HMACs: only a clear network has a prefix length or is escaped text."""
        return "/" not in self.network and re.fullmatch(r"[A-Za-z0-9_-]{22}", self.network) is not None


def parse_key(key: bytes) -> ParsedKey | None:
    """The parts of one of our keys, unescaped; None for any other key."""
    match = _KEY.fullmatch(key.decode("latin-1"))
    if match is None:
        return None
    network, sender, recipient = (None if part is None else unquote(part) for part in match.groups())
    return ParsedKey(network or "", sender, recipient)


def key_pattern() -> bytes:
    """A SCAN pattern for all keys of this layout."""
    return f"{NAMESPACE}:{{*".encode()


class Greylist:
    """The triplets of one store.

    `retry_window` and `lifetime` in seconds, prefixes in bits, `auto_allow_after` in passed triplets (0 =
    never); `clients` reads their addresses. Thread safe: nothing changes after construction.
    """

    def __init__(
        self,
        store: Store,
        *,
        retry_window: int,
        lifetime: int,
        ipv4_prefix: int,
        ipv6_prefix: int,
        auto_allow_after: int,
        key_secret: str = "",
        clients: ClientReader | None = None,
    ) -> None:
        self._store = store
        self._limits = (max(1, retry_window), max(1, lifetime), max(0, auto_allow_after))
        self.clients = clients or ClientReader()
        self._networks = (ipv4_prefix, ipv6_prefix, self.clients)
        self._part = _hidden_part(key_secret) if key_secret else _clear_part
        self._script = load_script()

    def touch(self, client: str, sender: str, recipient: str, delay: int) -> Touch:
        """Note one attempt and say what it means; `delay` in seconds. Raises StoreError."""
        return self._run(client, sender, recipient, delay, 0)

    def peek(self, client: str, sender: str, recipient: str, delay: int) -> Touch:
        """What `touch` would answer now, changing nothing. Raises StoreError."""
        return self._run(client, sender, recipient, delay, 1)

    def keys(self, client: str, sender: str, recipient: str) -> tuple[bytes, bytes]:
        """The keys of a triplet and of its network's count."""
        part = self._part
        tag = b"%s:{%s}" % (
            NAMESPACE.encode(),
            part("network", normalise.client_network(client, *self._networks)),
        )
        name = part("sender", normalise.sender(sender)), part("recipient", normalise.recipient(recipient))
        return b"%s:%s:%s" % (tag, *name), tag

    def _run(self, client: str, sender: str, recipient: str, delay: int, look: int) -> Touch:
        reply = self._store.run(
            self._script, self.keys(client, sender, recipient), (delay, *self._limits, look)
        )
        try:
            state, left, age = reply
            return Touch(_STATES[state], left, age)
        except (ValueError, IndexError, TypeError):
            raise StoreError("the store gave an answer that the greylist script does not give") from None


@cache
def load_script() -> Script:
    """The greylist script as installed beside this module; read once."""
    return Script((resources.files("hybridgrey.greylist") / "triplets.lua").read_text(encoding="utf-8"))


def _clear_part(domain: str, text: str) -> bytes:
    """A part as escaped clear text of at most MAX_PART bytes."""
    raw = text.encode("utf-8", "surrogatepass")
    escaped = (_ESCAPED_IN_TAG if domain == "network" else _ESCAPED).sub(_escape, raw)
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
