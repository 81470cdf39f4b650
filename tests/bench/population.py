"""The clients of the benchmarks and the lists that know them: pure functions, shared by lists and load.

    11.0.0.0/8   block     a quarter in bl.test, half in zen.test, a quarter in both
    22.0.0.0/8   trusted   half in rep.test, half in wl.test, with a code that the allowlists' patterns want
    33.0.0.0/8   unknown   in no list: to be greylisted

Within its network a client's address is its number, spread by an odd multiplier, which is a bijection on 24
bits: every number below 16 million is a new client, and neighbours share no network of the greylist.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

MIX = {"block": 60, "trusted": 15, "unknown": 25}
SHARES = ",".join(map(str, MIX.values()))
NETWORKS = {"block": 11, "trusted": 22, "unknown": 33}
WANTED = {"block": "5", "trusted": "c", "unknown": "4"}
SPREAD = 2654435761

ZONES = {
    "bl.test": ":127.0.0.2:Listed, see http://bl.test/$\n11.0.0.0/9\n",
    "zen.test": ":127.0.0.4:Listed, see http://zen.test/$\n11.64.0.0/10\n11.128.0.0/9\n",
    "rep.test": ":127.0.0.18:\n22.0.0.0/9\n",
    "wl.test": ":127.0.5.2:\n22.128.0.0/9\n",
}
BLOCK = ["bl.test", "zen.test=127.0.0.[2..11]"]
ALLOW = ["rep.test=127.0.0.[18..20]", "wl.test=127.0.[0..255].[2..3]"]
RULES: list[dict[str, object]] = [
    {"name": "authenticated", "authenticated": True, "action": "accept"},
    {"name": "local", "clients": ["127.0.0.0/8", "::1"], "action": "accept"},
    {"name": "blocklists", "dns": BLOCK, "action": "reject"},
    {"name": "allowlists", "dns": ALLOW, "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]


def address(kind: str, number: int) -> str:
    """The address of a kind's client."""
    value = number * SPREAD & 0xFFFFFF
    return f"{NETWORKS[kind]}.{value >> 16}.{value >> 8 & 255}.{value & 255}"


def clients(first: int = 0, pool: int = 0, mix: dict[str, int] | None = None) -> Iterator[tuple[str, int]]:
    """Clients for ever, as (kind, number), from each kind's number `first`; `pool`: only so many, cycled."""
    mix = mix or MIX
    total = sum(mix.values())
    numbers = dict.fromkeys(mix, 0)
    kinds, weights = list(mix), list(mix.values())
    chance = random.Random(first)
    while True:
        for kind in chance.choices(kinds, weights, k=1000):
            number = numbers[kind]
            numbers[kind] += 1
            yield kind, first + (number % max(1, pool * mix[kind] // total) if pool else number)
