"""Expected mail: a recipient for whom what would be greylisted passes, for some minutes.

Somebody waits for a login code or the link that resets a password; an admin says so with ``hybridgrey
expect``. It is read from the store when a recipient would be delayed, and only then: so it holds on all
hosts as soon as the command returns.  Where one server has all keys, the greylist's script looks at it in the
same call.  It lets pass and earns nothing: the triplet goes on waiting.

A recipient is found by the key that the greylist has for it (`Mailbox.key`).  With a ``key_secret`` that
is stored as its HMAC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from hybridgrey.envelope import Mailbox
from hybridgrey.hand.entries import MAX_NAME, plain
from hybridgrey.hand.hidden import hidden
from hybridgrey.store.connection import Call, Script, Store, StoreError

LONGEST: Final = 86400
"""Seconds that mail can be expected for: a day is more than a login code lives."""
MOST: Final = 10_000
"""Recipients at once."""
KEY: Final = b"hg1:expected"  # no hash tag: never taken for a triplet
_SCRIPT: Final = Script.installed("hybridgrey.hand", "expected.lua")


class Waiting(NamedTuple):
    """Expected mail: for whom (its HMAC with a secret), for how many seconds more, who said so."""

    recipient: str
    seconds: int
    who: str


class FullError(StoreError):
    """Too many recipients expect mail."""


class Expected:
    """The expected mail of one store; thread safe."""

    def __init__(self, key_secret: str = "") -> None:
        self._secret = key_secret.encode("utf-8", "surrogatepass")

    def ask(self, recipient: Mailbox) -> Call:
        """The call that says whether mail for a recipient is expected; `read` takes the reply."""
        return Call(_SCRIPT, (KEY,), (b"ask", self._field(recipient)))

    def place(self, recipient: Mailbox) -> tuple[bytes, bytes]:
        """Where the store has it: the key of a hash, and a field."""
        return KEY, self._field(recipient)

    @staticmethod
    def read(reply: Sequence[object]) -> bool:
        """What the store has answered to `ask`.  Raises StoreError for what the script does not answer."""
        return _seconds(reply) > 0

    def put(self, store: Store, recipient: Mailbox, seconds: int, who: str) -> None:
        """Expect mail for a recipient from now on, for `seconds`.  Raises StoreError, and FullError."""
        name = plain(who, MAX_NAME).encode("utf-8", "replace")
        words = (b"put", self._field(recipient), seconds, name, MOST)
        if _seconds(store.run(_SCRIPT, (KEY,), words)) < 0:
            raise FullError(f"{MOST} recipients expect mail already")

    def take(self, store: Store, recipient: Mailbox) -> int:
        """Expect it no longer; the seconds that were left, 0 where it was not.  Raises StoreError."""
        return _seconds(store.run(_SCRIPT, (KEY,), (b"take", self._field(recipient))))

    @staticmethod
    def list(store: Store) -> list[Waiting]:
        """All that is expected now, by recipient.  Raises StoreError."""
        flat = cast(list[object], store.run(_SCRIPT, (KEY,), (b"list",)))
        rows = zip(flat[::3], flat[1::3], flat[2::3], strict=False)
        return sorted(
            Waiting(_text(name), seconds, _text(who))
            for name, seconds, who in rows
            if isinstance(name, bytes) and isinstance(seconds, int) and isinstance(who, bytes)
        )

    def _field(self, recipient: Mailbox) -> bytes:
        key = recipient.key.encode("utf-8", "surrogatepass")
        if not self._secret:
            return key
        return hidden(self._secret, b"hg1 expected", key)


def _seconds(reply: Sequence[object]) -> int:
    if len(reply) == 1 and isinstance(reply[0], int):
        return reply[0]
    raise StoreError("the store gave an answer that the script of expected mail does not give")


def _text(raw: bytes) -> str:
    return plain(raw.decode("utf-8", "replace"), 600)
