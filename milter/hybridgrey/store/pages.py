"""Keys and their values looked through a page at a time, on all servers that hold them.

For the command line: there may be millions, so nothing grows with their number.  SCAN may show a key twice
while the server grows its table.  All methods raise StoreError, and only that.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import redis

from hybridgrey.store.connection import StoreError
from hybridgrey.store.link import reason
from hybridgrey.store.redis_py import primaries

PAGE: Final = 1000  # keys a round trip: some 100 KiB, and the server is busy for a millisecond or two
_LEAST_TIMEOUT: Final = 5.0  # s; a page is more work than a mail
_SPECIAL = re.compile(rb"([*?\[\]\\^])")

# {cursor, the store's clock, then key, value and seconds to live of each entry}
_SCRIPT: Final = """
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local found = {page[1], redis.call('TIME')[1]}
for _, key in ipairs(page[2]) do
  local value = redis.pcall('GET', key)
  found[#found + 1] = key
  found[#found + 1] = type(value) == 'string' and value or ''
  found[#found + 1] = redis.call('TTL', key)
end
return found
"""


class Row(NamedTuple):
    """A key, its value ("" where that is no text), and for how many seconds it lives (-1: for ever)."""

    key: bytes
    value: bytes
    expires: int


class Page(NamedTuple):
    """Some rows, the store's clock in Unix seconds, and the server that has them."""

    server: redis.Redis
    now: int
    rows: Sequence[Row]


class Pages:
    """The keys of one store."""

    def __init__(self, url: str, timeout: float) -> None:
        """`timeout` in seconds, for each round trip."""
        self._servers = primaries(url, max(timeout, _LEAST_TIMEOUT))

    def through(self, pattern: bytes) -> Iterator[Page]:
        """All that a pattern of SCAN's matches, in no order."""
        for server in self._servers:
            cursor: bytes | int = 0
            while cursor != b"0":
                with _translated():
                    reply: Any = server.eval(_SCRIPT, 0, cursor, pattern, PAGE)
                cursor, now, *flat = reply
                yield Page(server, int(now), [Row(*one) for one in zip(*[iter(flat)] * 3, strict=True)])

    def close(self) -> None:
        """Close all connections."""
        for server in self._servers:
            server.close()


def forget(server: redis.Redis, keys: Sequence[bytes]) -> list[int]:
    """Forget keys of one page; of each 1 if it was there."""
    if not keys:
        return []
    with _translated():
        # One command a key: the keys of a page may be in different slots of a cluster.
        pipeline = server.pipeline(transaction=False)
        for key in keys:
            pipeline.unlink(key)
        return list(pipeline.execute())


def quoted(text: bytes) -> bytes:
    """Text that a pattern of SCAN's takes as it is."""
    return _SPECIAL.sub(rb"\\\1", text)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """redis-py's errors as ours."""
    try:
        yield
    except (OSError, redis.RedisError) as error:
        raise StoreError(reason(error)) from None
