"""The latest verdicts on their way from the workers to the keeper: a ring of records in shared memory each.

The worker that holds a slot writes, the keeper reads; nobody waits for anybody.  A reader that is too slow
loses records, and counts them when the next one comes.  A record that was being overwritten while it was
read, or whose writer was killed over it, is known by its checksum and dropped.

A record is JSON: what the log has of a verdict, with its time `t` (Unix seconds) and the host `mx`.  Records
are numbered, and a place is how many bytes were ever written before it, so that a keeper can go on where
another one ended.
"""

from __future__ import annotations

import mmap
import struct
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson

from hybridgrey.cleaning import clean

SIZE: Final = 256 * 1024
"""Bytes of one ring, some 500 verdicts; untouched ones take no memory."""
RECORD_MAX: Final = 1024

_HEAD: Final = struct.Struct("=IIQ")  # length, checksum, number
_ROUND: Final = 0xFFFFFFFF
"""Stands for a length where the rest of the ring is not used."""
_SHORT: Final = 64  # characters of a text of a record that was too long
_SHORTEST: Final = 24
_LEAST: Final = frozenset(
    (
        "t",
        "mx",
        "client",
        "sender",
        "rule",
        "action",
        "outcome",
        "reason",
        "state",
        "age",
        "wait_ms",
        "enforced",
    )
)


class Place(NamedTuple):
    """Where in a ring: the bytes before it, and the number of the next record."""

    bytes: int = 0
    number: int = 0


class Read(NamedTuple):
    """What was read, and where it ends."""

    records: list[bytes]
    place: Place


class Rings:
    """One ring for each of `slots` processes."""

    def __init__(self, slots: int, size: int = SIZE) -> None:
        """`size` in bytes, a multiple of 16."""
        self.slots = slots
        self._size = size
        # A ring's two numbers as in Place, apart from the rings, so that a look at them touches no more.
        self._ends: memoryview[int] = memoryview(mmap.mmap(-1, slots * 16 + 8)).cast("Q")
        self._memory = memoryview(mmap.mmap(-1, max(1, slots) * size))

    def writer(self, slot: int) -> RingWriter | None:
        """The writer of a slot; None for the slot that the surplus processes share."""
        if slot >= self.slots:
            return None
        return RingWriter(self._ends[2 * slot : 2 * slot + 2], self._ring(slot))

    @property
    def lost(self) -> int:
        """Records that the keeper never saw."""
        return self._ends[2 * self.slots]

    def read(self, slot: int, place: Place) -> Read:
        """The records from `place` on.  Keeper only."""
        end = self._ends[2 * slot]
        if end == place.bytes:
            return Read([], place)
        ring, size = self._ring(slot), self._size
        records: list[bytes] = []
        at, number = place
        lost = 0
        if not 0 <= end - at <= size:
            at = end
        while at < end:
            begin = at % size
            length, checksum, this = _HEAD.unpack_from(ring, begin)
            if length == _ROUND:
                at += size - begin
                continue
            begin += _HEAD.size
            record = bytes(ring[begin : begin + min(length, RECORD_MAX)])
            if checksum != _sum(record, this):
                break
            records.append(record)
            lost += max(0, this - number)
            number = this + 1
            at += _room(length)
        self._ends[2 * self.slots] += lost
        return Read(records, Place(end, number))

    def _ring(self, slot: int) -> memoryview[int]:
        return self._memory[slot * self._size : (slot + 1) * self._size]


class RingWriter:
    """The writing end of one ring; thread safe within its process."""

    def __init__(self, end: memoryview[int], ring: memoryview[int]) -> None:
        self._end = end
        self._ring = ring
        self._size = len(ring)
        self._lock = threading.Lock()

    def write(self, record: bytes) -> None:
        """Add a record of at most RECORD_MAX bytes."""
        length = len(record)
        ring, end = self._ring, self._end
        with self._lock:
            at, number = end
            begin = at % self._size
            if begin + _HEAD.size + length > self._size:
                _HEAD.pack_into(ring, begin, _ROUND, 0, 0)
                at += self._size - begin
                begin = 0
            _HEAD.pack_into(ring, begin, length, _sum(record, number), number)
            begin += _HEAD.size
            ring[begin : begin + length] = record
            end[1] = number + 1
            # Last, so that a reader sees whole records only; were it not in time, the checksum would tell.
            end[0] = at + _room(length)


def _sum(record: bytes, number: int) -> int:
    return crc32(record, number & 0xFFFFFFFF)


def packed(record: Mapping[str, Any]) -> bytes:
    """A record as JSON of at most RECORD_MAX bytes: what is too long is cut, what is no text made one."""
    try:
        data = orjson.dumps(record)
    except (TypeError, ValueError):  # an envelope address that is no UTF-8
        data = orjson.dumps(_cut(record, RECORD_MAX))
    if len(data) > RECORD_MAX:
        data = orjson.dumps(_cut(record, _SHORT))
    if len(data) > RECORD_MAX:
        least = _cut({key: value for key, value in record.items() if key in _LEAST}, _SHORTEST)
        data = orjson.dumps(least | {"client": _cut(record["client"], _SHORT)})
    return data


def _cut(value: Any, limit: int) -> Any:  # noqa: ANN401 (whatever JSON has)
    if isinstance(value, str):
        return clean(value, limit)
    if isinstance(value, Mapping):
        return {_cut(key, limit): _cut(one, limit) for key, one in list(value.items())[:_SHORT]}
    if isinstance(value, (list, tuple)):
        return [_cut(one, limit) for one in value[:8]]
    return value


def _room(length: int) -> int:
    """What a record takes: as much as heads have, so that there is always room for one at the end."""
    return _HEAD.size + -(-length // _HEAD.size) * _HEAD.size
