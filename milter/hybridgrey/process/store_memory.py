"""How full the store is: a warning in time, and figures for `status` and Prometheus.

A full store refuses to write, or lets entries go, as its ``maxmemory-policy`` says. Both are told when there
is still time: from four fifths of ``maxmemory`` on, and again when it is well below. A policy that may take
any key is told as a trouble of its own.

What the server may not tell us (INFO can be forbidden to its user) is no trouble. Of a Redis Cluster one
shard is asked, for addresses spread evenly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from hybridgrey.store.connection import PROBE_KEY, Script, Store, StoreError
from hybridgrey.trouble.reporter import Report

SECONDS: Final = 10.0
"""Between two looks."""
HIGH: Final = 0.8
LOW: Final = 0.75  # lower than HIGH, or what sways around it would be told again and again
MEMORY: Final = "store memory"
POLICY: Final = "store eviction policy"

_POLICIES: Final = ("", "noeviction", "volatile-ttl", "volatile", "allkeys")
_ASK: Final = Script(
    """
local info = redis.pcall('INFO', 'memory')
if type(info) ~= 'string' then return {0, 0, 0} end
local function number(name) return tonumber(string.match(info, name .. ':(%d+)') or 0) end
local policy = string.match(info, 'maxmemory_policy:([%w-]+)') or ''
local places = {noeviction = 1, ['volatile-ttl'] = 2}
local place = places[policy]
if not place then
  place = string.find(policy, '^volatile') and 3 or string.find(policy, '^allkeys') and 4 or 0
end
return {number('used_memory'), number('maxmemory'), place}
"""
)


class Memory(NamedTuple):
    """Bytes used and the most there may be (0: unknown, or no limit), and what happens then: one of
    "noeviction", "volatile-ttl", "volatile" (another of these), "allkeys", or "" where it is unknown."""

    used: int = 0
    limit: int = 0
    policy: str = ""

    @property
    def share(self) -> float:
        """How much of the limit is used, 0 without one."""
        return self.used / self.limit if self.limit else 0.0


def ask(store: Store) -> Memory:
    """How full the store is. Raises StoreError."""
    reply = store.run(_ASK, (PROBE_KEY,), ())
    try:
        used, limit, place = reply
        return Memory(used, limit, _POLICIES[place])
    except (ValueError, IndexError, TypeError):
        raise StoreError("the store gave an answer that the script does not give") from None


def tell(memory: Memory, report: Report) -> None:
    """Tell of a store that fills up, or that may let go of anything."""
    if memory.share >= HIGH:
        of = f"{memory.used / 2**20:.0f} of {memory.limit / 2**20:.0f} MiB"
        report.failing(MEMORY, used=of, full=_WHEN_FULL.get(memory.policy, "entries are let go"))
    elif memory.share < LOW:
        report.recovered(MEMORY)
    if memory.limit and memory.policy == "allkeys":
        report.failing(POLICY, advice="set maxmemory-policy volatile-ttl, then triplets that wait go first")
    else:
        report.recovered(POLICY)


_WHEN_FULL: Final = {
    "noeviction": "new entries are refused, and unknown mail gets what on_failure says",
    "volatile-ttl": "triplets that wait are let go first",
}


def watch(store: Store, report: Report, note: Callable[[int, int], None], stop: threading.Event) -> None:
    """Look now and then until `stop` is set; `note` gets bytes used and the limit."""
    while True:
        try:
            memory = ask(store)
        except StoreError:
            memory = None  # told by who watches the store itself
        if memory is not None:
            note(memory.used, memory.limit)
            tell(memory, report)
        if stop.wait(SECONDS):
            return
