"""Writes chunks of verdicts to the store: those of one host, bounded in time, number and size.

A call has no effect when it is repeated (chunks.lua), so what may or may not have arrived is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hybridgrey.history import layout
from hybridgrey.history.chunks import Chunk
from hybridgrey.store.connection import Script, Store, StoreError

NUMBER_MAX: Final = 1_000_000
"""Verdicts that are kept of one host."""
BYTES_MAX: Final = 64 * 2**20
"""Bytes that they may take in the store."""
OVERHEAD: Final = 150
"""What a chunk takes in the server beside its own bytes: its names in a sorted set."""
SHARE: Final = 8
"""All hosts together may take this part of a store whose memory is limited."""
PRESSED: Final = 0.75
"""Above this part of its limit the store's memory is wanted for triplets: then they may take a quarter."""

_SCRIPT: Final = Script.installed("hybridgrey.history", "chunks.lua")
_BYTES_A_CALL: Final = 256 * 1024
_CHUNKS_A_CALL: Final = 32


class Size(NamedTuple):
    """What is kept of a host."""

    bytes: int = 0
    number: int = 0


def allowance(used: int, limit: int, hosts: int) -> int:
    """Bytes for one host, in a store that uses `used` of `limit` bytes (0: no limit, or unknown)."""
    if limit <= 0:
        return BYTES_MAX
    share = limit // SHARE // max(1, hosts)
    return min(BYTES_MAX, share // 4 if used > PRESSED * limit else share)


class ChunkWriter:
    """Writes those of one host; `kept` in seconds, 0 keeps none."""

    def __init__(self, store: Store, host: str, kept: int) -> None:
        self._store = store
        self._keys = layout.verdict_keys(host)
        self._kept = kept

    def write(self, chunks: Sequence[Chunk], now: float, most: int = BYTES_MAX) -> tuple[int, Size]:
        """Add the first chunks, as many as one call takes: how many, and what is kept then.

        `most`: bytes that all may take. Raises StoreError.
        """
        some: list[Chunk] = []
        size = 0
        for one in chunks[:_CHUNKS_A_CALL]:
            size += len(one.data)
            if some and size > _BYTES_A_CALL:
                break
            some.append(one)
        words = [word for one in some for word in (b"%.3f" % one.last, one.data)]
        terms = int(now), self._kept, most, NUMBER_MAX, OVERHEAD
        reply = self._store.run(_SCRIPT, self._keys, (*terms, *words))
        try:
            kept, number = reply
            return len(some), Size(int(kept), int(number))
        except (TypeError, ValueError):
            raise StoreError("the store gave an answer that the script does not give") from None

    def clear(self) -> None:
        """Take away all that is kept of the host. Raises StoreError."""
        self._store.run(_SCRIPT, self._keys, (0, 0, 0, 0, 0))
