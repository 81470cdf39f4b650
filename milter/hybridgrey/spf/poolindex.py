"""Which pools a client is in, of all pools at once (see `policy.prefixes`).

A pool that has never been resolved is unknown for every client, and one that is not whole for those that are
in no network of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from hybridgrey.clientaddress import Carried
from hybridgrey.policy.prefixes import Prefixes, owners
from hybridgrey.policy.rule import Pools
from hybridgrey.spf.poolstate import NONE, States

# The pools of a client, by the mask of those it is in: there are hardly more of them than pools.
_MOST_KEPT = 4096


class PoolIndex:
    """The pools of some domains, as they are known at one moment; nothing in it changes."""

    def __init__(self, domains: Iterable[str], states: States = NONE) -> None:
        """`domains`: those that rules name, in A-labels and lower case."""
        self._domains = tuple(dict.fromkeys(domains))
        self._open = 0
        networks = Prefixes()
        for number, domain in enumerate(self._domains):
            state = states.get(domain)
            if state is None or not state.whole:
                self._open |= 1 << number
            for address, prefix in state.networks if state else ():
                networks.add(len(address), int.from_bytes(address, "big"), prefix, number)
        self._four, self._six = networks.tables(4), networks.tables(16)
        self._known: dict[int, Pools] = {}

    def of(self, packed: bytes | None, carried: Carried | None = None) -> Pools:
        """The pools of a client: its address, 4 or 16 octets, and the IPv4 address that it carries.

        One that is not proven speaks for nobody.  A client without an IP address is in no pool.
        """
        if packed is None:
            return Pools()
        mask = self._mask(packed)
        if carried is not None and carried.proven:
            mask |= self._mask(carried.address)
        known = self._known.get(mask)
        if known is None:
            known = Pools(self._names(mask), self._names(self._open & ~mask))
            if len(self._known) < _MOST_KEPT:
                self._known[mask] = known
        return known

    def _mask(self, packed: bytes) -> int:
        return owners(self._four if len(packed) == 4 else self._six, int.from_bytes(packed, "big"))

    def _names(self, mask: int) -> frozenset[str]:
        return frozenset(domain for number, domain in enumerate(self._domains) if mask >> number & 1)
