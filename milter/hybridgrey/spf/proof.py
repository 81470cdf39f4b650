"""How wide a match may be to prove a client.

A spammer's record can authorise the world; what it authorises then says nothing of who the client is.  Two
limits: one for a single network, one for all networks of the records that were read together.

The sum runs over the records that the evaluation has *reached*, each with all its networks, and over the
addresses of ``a`` and ``mx`` that were looked up.  Records behind the match are not fetched for it: that
would cost questions for each good message, and it is not needed.  All clients of a domain see the same
records in the same order, so whoever is proven last has all networks by which others are proven in his sum.
Hence the clients that a domain can prove at one time fit into a /11, in whatever includes forty /14s are
hidden.  The large providers' records, all that a company includes of them summed up, stay well below it.

IPv6 has the same limit by the same measure, eight networks of the widest kind: a record has room for some
hundred /32, and each is an access provider.  Records that authorise too much of one prove nobody of the other
either: who writes such things is not to be believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

WIDEST_TOTAL_IPV4 = 11
WIDEST_TOTAL_IPV6 = 29


class Widths(NamedTuple):
    """Prefix lengths of the widest networks that prove a client."""

    ipv4: int = 14
    ipv6: int = 32

    def widest(self, bits: int) -> int:
        """The shortest prefix of a single network; `bits`: 32 or 128."""
        return self.ipv4 if bits == 32 else self.ipv6

    def total(self, bits: int) -> int:
        """The number of addresses that all networks may have together; never fewer than one network may."""
        if bits == 32:
            return 1 << (32 - min(WIDEST_TOTAL_IPV4, self.ipv4))
        return 1 << (128 - min(WIDEST_TOTAL_IPV6, self.ipv6))


DEFAULT = Widths()

Span = tuple[int, int]
"""The first and the last address of a network, as numbers."""


def area(spans: Iterable[Span]) -> int:
    """The number of addresses in some networks, each counted once."""
    total, reached = 0, -1
    for first, last in sorted(spans):
        if last > reached:
            total += last - max(first, reached + 1) + 1
            reached = last
    return total
