"""Sets of IP addresses, as tables of networks need them: what a row covers, and which row comes first.

A set is a sorted list of *spans*, pairs of a first and a last number.  IPv4 addresses are the numbers below
2**32, IPv6 addresses those from there on, so one list holds both and no span has addresses of both.

Pure; no function raises.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range
from itertools import pairwise
from typing import Final

Network = IPv4Network | IPv6Network
Span = tuple[int, int]
Spans = list[Span]

_V6: Final = 1 << 32
_ALL_V4: Final = (0, _V6 - 1)
_ALL_V6: Final = (_V6, _V6 + (1 << 128) - 1)
ALL: Final = (_ALL_V4, _ALL_V6)
_MAPPED: Final = (_V6 + (0xFFFF << 32), _V6 + (0xFFFF << 32) + _V6 - 1)  # ::ffff:0:0/96


def span(network: Network) -> Span:
    """The addresses of a network."""
    start = int(network.network_address) + (_V6 if network.version == 6 else 0)
    return start, start + network.num_addresses - 1


def outside(network: Network) -> Spans:
    """The other addresses of the same version."""
    return minus([_ALL_V6 if network.version == 6 else _ALL_V4], [span(network)])


def both(one: Sequence[Span], other: Sequence[Span]) -> Spans:
    """The addresses that are in both sets."""
    shared: Spans = []
    i = j = 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start <= end:
            shared.append((start, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return shared


def minus(one: Sequence[Span], other: Sequence[Span]) -> Spans:
    """The addresses of the first set that are not in the second."""
    left: Spans = []
    j = 0
    for first, last in one:
        start = first
        while j < len(other) and other[j][1] < start:
            j += 1
        at = j
        while at < len(other) and other[at][0] <= last:
            if start < other[at][0]:
                left.append((start, other[at][0] - 1))
            start = max(start, other[at][1] + 1)
            at += 1
        if start <= last:
            left.append((start, last))
    return left


def union(spans: Iterable[Span]) -> Spans:
    """The addresses of any of the spans."""
    joined: Spans = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + 1 and start != _V6:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def shares(sets: Sequence[Sequence[Span]]) -> list[Spans]:
    """What each set has that no set before it has: the addresses for which a table's row is the first."""
    starts = sorted((start, row, end) for row, spans in enumerate(sets) for start, end in spans)
    points = sorted({p for start, _row, end in starts for p in (start, end + 1)})
    parts: list[Spans] = [[] for _ in sets]
    open_: list[tuple[int, int]] = []
    begun = 0
    for point, following in pairwise(points):
        while begun < len(starts) and starts[begun][0] <= point:
            _start, row, end = starts[begun]
            heapq.heappush(open_, (row, end))
            begun += 1
        while open_ and open_[0][1] < point:
            heapq.heappop(open_)
        if open_:
            parts[open_[0][0]].append((point, following - 1))
    return [union(spans) for spans in parts]


def networks(spans: Iterable[Span]) -> Iterator[Network]:
    """The fewest networks with these addresses, without ::ffff:0:0/96: such a client is an IPv4 one."""
    for start, end in minus(list(spans), [_MAPPED]):
        if start < _V6:
            yield from summarize_address_range(IPv4Address(start), IPv4Address(end))
        else:
            yield from summarize_address_range(IPv6Address(start - _V6), IPv6Address(end - _V6))
