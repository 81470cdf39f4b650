"""Where mail comes from, and the attempts that are made from there.

Addresses are of networks that nobody has: servers are in 10.0.0.0/8 and 2001:db8::/32, bots in 240.0.0.0/4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple

from hybridgrey.replay.messages import Attempt, Heard
from simulate.schedules import Schedule

LISTED_CODE: Final = bytes((127, 0, 0, 4))
ALLOWED_CODE: Final = bytes((127, 0, 5, 2))
BLOCKLISTS: Final = ("bl.mailspike.net", "zen.spamhaus.org")
ALLOWLISTS: Final = ("list.dnswl.org", "rep.mailspike.net")


def said(*, listed: bool, allowed: bool) -> Heard:
    """What the lists of the default rules say of a client."""
    return _SAID[listed, allowed]


def _said(*, listed: bool, allowed: bool) -> Heard:
    codes = dict.fromkeys((*BLOCKLISTS, *ALLOWLISTS), ())
    found = codes | ({"zen.spamhaus.org": (LISTED_CODE,)} if listed else {})
    found |= {"list.dnswl.org": (ALLOWED_CODE,)} if allowed else {}
    return tuple(sorted(found.items()))


_SAID: Final = MappingProxyType(
    {(a, b): _said(listed=a, allowed=b) for a in (False, True) for b in (False, True)}
)


class Spf(NamedTuple):
    """What SPF says of a sender's mail from its own origin, and whether that proves the client."""

    result: str
    proved: bool


PROVED: Final = Spf("pass", True)
UNPROVEN: Final = Spf("pass", False)
NO_SPF: Final = Spf("none", False)
FAILED: Final = Spf("temperror", False)


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a sender's mail comes from.

    `width`: from so many addresses, chosen anew for each message, its attempts come; 1: a retry comes from
    the address of the first attempt. `lists`: what lists say of an address where it is not nothing.
    """

    addresses: Sequence[str]
    schedule: Schedule
    host: str | None
    spf: Spf = PROVED
    pools: tuple[str, ...] = ()
    width: int = 1
    lists: Mapping[str, Heard] = field(default_factory=dict)


NOTHING: Final = said(listed=False, allowed=False)
LISTED: Final = said(listed=True, allowed=False)


class Places:
    """Hands out addresses, each network once."""

    def __init__(self) -> None:
        self._networks = 0

    def network(self) -> str:
        """The first three octets of a new /24."""
        self._networks += 1
        high, low = divmod(self._networks, 256)
        return f"10.{high}.{low}"

    def pool(self, addresses: int, apart: float) -> list[str]:
        """Addresses of which a share has a /24 of its own."""
        networks = [self.network() for _ in range(max(1, round(addresses * apart)))]
        return [f"{networks[n % len(networks)]}.{n // len(networks) + 1}" for n in range(addresses)]

    def six(self) -> str:
        """An IPv6 address in a new /64."""
        self._networks += 1
        return f"2001:db8:{self._networks >> 16:x}:{self._networks & 0xFFFF:x}::25"


def bot(chance: Random) -> str:
    """The address of a host somewhere."""
    middle = f"{chance.randrange(256)}.{chance.randrange(256)}"
    return f"{chance.randint(240, 254)}.{middle}.{chance.randint(1, 254)}"


def lists_of(chance: Random, addresses: Sequence[str], allowed: float, listed: float) -> dict[str, Heard]:
    """What lists say of a pool's addresses, drawn for each network."""
    drawn: dict[str, Heard] = {}
    found: dict[str, Heard] = {}
    for address in addresses:
        network = address.rpartition("." if "." in address else ":")[0]
        if network not in drawn:
            drawn[network] = said(listed=chance.random() < listed, allowed=chance.random() < allowed)
        if drawn[network] is not NOTHING:
            found[address] = drawn[network]
    return found


class Told(NamedTuple):
    """What is to be said beside the origin; times in Unix seconds. `listed_at`: when blocklists have it."""

    correspondent: bool = False
    expected_until: float = 0.0
    listed_at: float = math.inf
    gives_up: bool = False


NOTHING_MORE: Final = Told()


def attempts(
    chance: Random, at: float, origin: Origin, failing: float, told: Told = NOTHING_MORE
) -> tuple[Attempt, ...]:
    """All attempts of a message whose first is at `at`; `failing`: the share of SPF questions that fail."""
    times = [at] if told.gives_up else [at, *(at + later for later in origin.schedule(chance))]
    some = origin.addresses
    if origin.width < len(some):
        some = chance.sample(some, origin.width)
    return tuple(
        _attempt(chance, round(when, 1), chance.choice(some), origin, failing, told) for when in times
    )


def _attempt(chance: Random, at: float, client: str, origin: Origin, failing: float, told: Told) -> Attempt:
    spf = FAILED if origin.spf.result != "none" and chance.random() < failing else origin.spf
    heard = origin.lists.get(client, NOTHING)
    if at >= told.listed_at:
        heard = said(listed=True, allowed=heard is not NOTHING and heard is not LISTED)
    return Attempt(
        at=at,
        client=client,
        host=origin.host,
        helo=origin.host or "localhost",
        authenticated=False,
        heard=heard,
        spf=spf.result,
        proved=spf.proved,
        pools=origin.pools,
        correspondent=told.correspondent,
        expected=at < told.expected_until,
    )
