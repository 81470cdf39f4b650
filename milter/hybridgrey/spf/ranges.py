"""Sets of addresses as spans, first and last address as numbers.

A span need not be a network: a network without one of its addresses is two spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from ipaddress import summarize_address_range as summarize

from hybridgrey.spf.proof import Span


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same addresses, in order, in spans that neither overlap nor touch."""
    whole: list[Span] = []
    for first, last in sorted(spans):
        if whole and first <= whole[-1][1] + 1:
            whole[-1] = whole[-1][0], max(last, whole[-1][1])
        else:
            whole.append((first, last))
    return whole


def without(spans: Iterable[Span], others: Sequence[Span]) -> list[Span]:
    """The addresses of the first that are not in the others, which are `merged`."""
    left: list[Span] = []
    for first, last in spans:
        for begin, end in others:
            if end < first:
                continue
            if begin > last:
                break
            if begin > first:
                left.append((first, begin - 1))
            first = end + 1
        if first <= last:
            left.append((first, last))
    return left


def networks4(spans: Iterable[Span], most: int) -> list[IPv4Network]:
    """The fewest networks for them; at most `most` + 1 are made."""
    made: list[IPv4Network] = []
    for first, last in merged(spans):
        made += summarize(IPv4Address(first), IPv4Address(last))
        if len(made) > most:
            return made[: most + 1]
    return list(collapse_addresses(made))


def networks6(spans: Iterable[Span], most: int) -> list[IPv6Network]:
    """The fewest networks for them; at most `most` + 1 are made."""
    made: list[IPv6Network] = []
    for first, last in merged(spans):
        made += summarize(IPv6Address(first), IPv6Address(last))
        if len(made) > most:
            return made[: most + 1]
    return list(collapse_addresses(made))
