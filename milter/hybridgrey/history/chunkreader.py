"""The verdicts that are kept in the store, read back by time: of some hosts or all, forwards or backwards.

They come one after another, in the order of their times, and are never all in memory: of each host some
chunks and the records of one or two. What is read may have been written by anybody (see `chunks`).

All functions raise StoreError, and only that.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, cast

from hybridgrey.history import layout
from hybridgrey.history.chunks import CHUNK_MAX, SPAN_MAX, Chunk, Needles, Record, head, time_of, unpacked
from hybridgrey.history.chunkwriter import Size
from hybridgrey.store.connection import Script, Store, StoreError

_PAGE: Final = 32  # chunks a call
_PAGE_BYTES: Final = 192 * 1024
_OVERLAP: Final = 5.0
"""Seconds by which chunks of one host may overlap: a worker's verdicts are read up to a second late."""
_HELD_MAX: Final = 8000
"""Records that wait for their turn: what somebody else made may overlap by years."""

# Gives pairs of score and chunk, as many as one call may cost, at least one; what is too large comes as "".
_READ: Final = Script(f"""
local command = ARGV[1] == 'down' and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE'
local found = redis.pcall(command, KEYS[1], ARGV[2], ARGV[3], 'WITHSCORES', 'LIMIT', ARGV[4], {_PAGE})
if found.err then return {{}} end
local reply, size = {{}}, 0
for i = 1, #found, 2 do
  local chunk = #found[i] <= {CHUNK_MAX} and found[i] or ''
  size = size + #chunk
  if i > 1 and size > {_PAGE_BYTES} then break end
  reply[#reply + 1] = found[i + 1]
  reply[#reply + 1] = chunk
end
return reply
""")

_SIZE: Final = Script("""
local found = redis.pcall('HMGET', KEYS[2], 'bytes', 'number')
local first = redis.pcall('ZRANGE', KEYS[1], 0, 0)
return {found[1] or '0', found[2] or '0', first[1] or ''}
""")


class Kept(NamedTuple):
    """What there is of a host: how much, and since when (Unix seconds; None: nothing)."""

    size: Size
    since: float | None


def records(
    store: Store,
    hosts: Sequence[str],
    since: float,
    until: float,
    *,
    newest_first: bool = False,
    needles: Needles = (),
) -> Iterator[Record]:
    """The verdicts of some hosts in a time, both ends included, in order; those that may have the needles."""
    rows = [_of_host(store, host, since, until, needles, down=newest_first) for host in hosts]
    return heapq.merge(*rows, key=time_of, reverse=newest_first)


def kept(store: Store, host: str) -> Kept:
    """What there is of a host."""
    reply = cast(Sequence[object], store.run(_SIZE, layout.verdict_keys(host), ()))
    texts = [one if isinstance(one, bytes) else b"" for one in (*reply, b"", b"", b"")][:3]
    first = head(texts[2])
    numbers = [int(one) if one.isdigit() and len(one) < 16 else 0 for one in texts[:2]]
    return Kept(Size(*numbers), first.first if first else None)


def _of_host(
    store: Store, host: str, since: float, until: float, needles: Needles, *, down: bool
) -> Iterator[Record]:
    """The records of one host, sorted across its chunks.

    What is later than the begin of the next chunk waits for its turn (backwards: earlier than its end), and
    a little longer, for the one after that may begin before it.
    """
    sign = -1 if down else 1
    held: list[tuple[float, int, Record]] = []
    number = 0
    for chunk in _chunks(store, host, since, until, down=down):
        edge = sign * (chunk.last if down else chunk.first) - _OVERLAP
        while held and (held[0][0] < edge or len(held) > _HELD_MAX):
            yield heapq.heappop(held)[2]
        for record in unpacked(chunk, needles):
            if since <= (moment := time_of(record)) <= until:
                number += 1
                heapq.heappush(held, (sign * moment, number, record))
    while held:
        yield heapq.heappop(held)[2]


def _chunks(store: Store, host: str, since: float, until: float, *, down: bool) -> Iterator[Chunk]:
    """The chunks of one host that touch a time, in the order of their ends."""
    key = layout.verdict_keys(host)[:1]
    low, high = b"%.3f" % max(0.0, since), b"%.3f" % min(until + SPAN_MAX, 1e12)
    at, end = (high, low) if down else (low, high)
    # Several may have the same time: so many of those at which we are have been read.
    passed = 0
    while True:
        words = (b"down" if down else b"up", at, end, passed)
        reply = cast(Sequence[object], store.run(_READ, key, words))
        pairs = [one for one in zip(reply[::2], reply[1::2], strict=False) if _is_pair(one)]
        if not pairs:
            return
        for score, data in cast("list[tuple[bytes, bytes]]", pairs):
            passed = passed + 1 if score == at else 1
            at = score
            chunk = head(data)
            if chunk is not None and chunk.first <= until and chunk.last >= since:
                yield chunk


def _is_pair(pair: tuple[object, object]) -> bool:
    if not all(isinstance(one, bytes) for one in pair):
        raise StoreError("the store gave an answer that the script does not give")
    return True
