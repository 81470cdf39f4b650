"""What a process notes down for its successor: it survives the process, not the master.

The keeper may be killed, and each reload has a new one, for a moment beside the old.  So what it must not
forget is in memory that the master made before it forked, twice: a new note goes over the older of the two,
and a checksum tells which are whole.  Only one process at a time may go on with it: who holds the lock of a
file that has no name.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
from typing import Final
from zlib import crc32

SIZE: Final = 8 * 2**20
"""Bytes that a note may have; untouched ones take no memory."""

_HEAD: Final = struct.Struct("=QQQ")  # number, length, checksum


class Journal:
    """The notes; made by the master."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._memory = memoryview(mmap.mmap(-1, 2 * (size + _HEAD.size)))
        self._lock = _nameless_file()
        self._number = self._last = 0

    def claim(self) -> bool:
        """Whether this process may read and write from now on, until it ends."""
        try:
            # Not flock: that lock would belong to all children together, for the descriptor is one.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def load(self) -> bytes:
        """The last note; b"" before the first."""
        halves = [self._half(0), self._half(1)]
        self._number, note = max(halves)
        self._last = halves.index((self._number, note))
        return note

    def save(self, note: bytes) -> bool:
        """Note something down, after `load`; whether there was room for it."""
        if len(note) > self._size:
            return False
        self._number += 1
        self._last = 1 - self._last
        at = self._last * (self._size + _HEAD.size)
        begin = at + _HEAD.size
        self._memory[begin : begin + len(note)] = note
        _HEAD.pack_into(self._memory, at, self._number, len(note), _sum(self._number, note))
        return True

    def _half(self, which: int) -> tuple[int, bytes]:
        """Number and note of one of the two; 0 for one that is not whole."""
        at = which * (self._size + _HEAD.size)
        number, length, checksum = _HEAD.unpack_from(self._memory, at)
        begin = at + _HEAD.size
        note = bytes(self._memory[begin : begin + length]) if number > 0 and length <= self._size else b""
        return (number, note) if number and checksum == _sum(number, note) else (0, b"")


def _sum(number: int, note: bytes) -> int:
    return crc32(note, number & 0xFFFFFFFF)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hybridgrey")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
