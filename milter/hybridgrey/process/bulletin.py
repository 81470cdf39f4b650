"""What the keeper tells the workers at any moment: bytes in memory that all of them share.

The keeper *publishes*, and each time the *generation* grows; a worker looks at that number, which costs no
system call, and reads what is new.  Two places take turns, so that a reader has time; one that was too slow
finds a checksum that is wrong and reads again a moment later.

Memory rather than a file: there may be no folder that the daemon's account can write to, and no worker
waits for a disk.  Pages that are never written cost nothing.
"""

from __future__ import annotations

import mmap
from typing import Final
from zlib import crc32

_GENERATION, _OFFSET, _PLACES = 0, 1, 2
_CELLS: Final = 8


class Bulletin:
    """One kind of news; made by the master before it forks, and kept over reloads."""

    def __init__(self, most: int) -> None:
        """`most`: bytes that can be published."""
        self._most = most
        self._cells = memoryview(mmap.mmap(-1, _CELLS * 8)).cast("d")
        self._memory = mmap.mmap(-1, 2 * most)

    @property
    def generation(self) -> int:
        """How often something was published."""
        return int(self._cells[_GENERATION])

    @property
    def offset(self) -> float:
        """Seconds that the publisher's clock is ahead of this machine's."""
        return self._cells[_OFFSET]

    def set_offset(self, seconds: float) -> None:
        """Say how far another clock is ahead.  Keeper only."""
        self._cells[_OFFSET] = seconds

    def publish(self, data: bytes) -> None:
        """Replace what is there.  Keeper only, or the master before it forks.  Raises ValueError."""
        if len(data) > self._most:
            raise ValueError(f"is larger than {self._most} bytes")
        generation = self.generation + 1
        place = generation % 2
        self._memory[place * self._most : place * self._most + len(data)] = data
        self._cells[_PLACES + 2 * place] = len(data)
        self._cells[_PLACES + 2 * place + 1] = crc32(data)
        self._cells[_GENERATION] = generation

    def read(self) -> tuple[int, bytes] | None:
        """The generation and what was published; None when it is being replaced just now, or never was."""
        generation = self.generation
        place = generation % 2
        length, check = int(self._cells[_PLACES + 2 * place]), self._cells[_PLACES + 2 * place + 1]
        data = self._memory[place * self._most : place * self._most + length]
        return (generation, data) if generation and crc32(data) == check else None
