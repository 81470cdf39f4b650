"""Networks of many owners in tables, one for each prefix length in use: each network has a mask of owners.

To find an address costs a look-up for each of these lengths, however many networks and owners there are.
"""

from __future__ import annotations

from typing import TypeAlias

Tables: TypeAlias = tuple[tuple[int, dict[int, int]], ...]
"""For addresses of one size: by how much to shift one, and the masks by what is left of it."""


class Prefixes:
    """Collects networks; `tables` is for who looks addresses up."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], dict[int, int]] = {}

    def add(self, size: int, address: int, prefix: int, owner: int) -> None:
        """Add a network: bytes of an address, one address in it, its prefix length, the number of a bit."""
        shift = 8 * size - prefix
        table = self._tables.setdefault((size, shift), {})
        value = address >> shift
        table[value] = table.get(value, 0) | 1 << owner

    def tables(self, size: int) -> Tables:
        """The tables for addresses of `size` bytes."""
        return tuple((shift, table) for (n, shift), table in sorted(self._tables.items()) if n == size)


def owners(tables: Tables, address: int) -> int:
    """The mask of those who own a network that an address is in."""
    mask = 0
    for shift, table in tables:
        mask |= table.get(address >> shift, 0)
    return mask
