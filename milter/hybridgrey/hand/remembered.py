"""The correspondents as an admin sees them: looked through, and forgotten.

One is found by its very address, with a ``key_secret`` too: its HMAC is what is looked up.  Patterns need
clear text.  Not even a list shows an address that is stored as an HMAC, for nothing leads back from there.

All methods raise StoreError, and only that.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from hybridgrey.envelope import Mailbox
from hybridgrey.hand.correspondents import PREFIX, Correspondents
from hybridgrey.store import pages
from hybridgrey.store.connection import Script, Store, StoreError
from hybridgrey.store.pages import Page, Pages, Row

_NUMBER = re.compile(rb"[0-9]{1,12}")
_LOOK: Final = Script("""
local value = redis.pcall('GET', KEYS[1])
return {redis.call('TTL', KEYS[1]), type(value) == 'string' and value or ''}
""")
_FORGET: Final = Script("return {redis.call('UNLINK', KEYS[1])}")


class Remembered(NamedTuple):
    """A correspondent: the address, or with `hidden` its HMAC.

    `wrote`: when we last wrote, Unix seconds, None where that is damaged; `expires`: for how many seconds it
    is still remembered, -1 for ever.
    """

    address: str
    wrote: int | None
    expires: int
    hidden: bool


class All:
    """Those of one store."""

    def __init__(self, url: str, timeout: float, store: Store, by: Correspondents) -> None:
        """`store` is for single ones; `timeout` in seconds, for each round trip."""
        self._pages = Pages(url, timeout)
        self._store = store
        self._by = by

    def one(self, address: Mailbox) -> Remembered | None:
        """The correspondent of this very address, if it is one."""
        reply = self._store.run(_LOOK, (self._by.key(address),), ())
        expires, value = (*reply, None, None)[:2]
        if isinstance(expires, int) and isinstance(value, bytes):
            return None if expires == -2 else Remembered(address.key, _time(value), expires, False)
        raise StoreError("the store gave an answer that nobody asked for")

    def find(self, pattern: str = "*") -> Iterator[Remembered]:
        """Those that a pattern (``*``, ``?``, ``[…]``) matches, in any case of letters, in no order."""
        for page in self._through():
            yield from (one for _key, one in _meant(page, pattern))

    def forget_one(self, address: Mailbox) -> int:
        """Forget the one of this very address; 1 if it was one."""
        reply = self._store.run(_FORGET, (self._by.key(address),), ())
        return int(reply[0] == 1)

    def forget(self, pattern: str) -> int:
        """Forget those that a pattern matches; how many these were."""
        return sum(
            sum(pages.forget(page.server, [key for key, _one in _meant(page, pattern)]))
            for page in self._through()
        )

    def close(self) -> None:
        """Close all connections."""
        self._pages.close()
        self._store.close()

    def _through(self) -> Iterator[Page]:
        return self._pages.through(pages.quoted(PREFIX) + b"*")


def _meant(page: Page, pattern: str) -> Iterator[tuple[bytes, Remembered]]:
    fits = re.compile(fnmatch.translate(pattern), re.IGNORECASE)
    for row in page.rows:
        one = _read(row)
        if fits.fullmatch(one.address):
            yield row.key, one


def _read(row: Row) -> Remembered:
    name = row.key.removeprefix(PREFIX).decode("utf-8", "replace")
    # An address of somebody elsewhere has a domain, an HMAC no "@"; a digest of what is too long begins so.
    return Remembered(name, _time(row.value), row.expires, name.find("@") < 1)


def _time(value: bytes) -> int | None:
    return int(value) if _NUMBER.fullmatch(value) else None
