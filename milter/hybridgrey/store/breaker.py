"""When to leave a store alone that fails: a breaker for each of its shards.

A *shard* is what fails by itself: all of a single server, one primary of a Redis Cluster. While its breaker
is open, calls about its keys fail at once, so that no mail waits for it, and those about other shards go on.
To the log all of it is one trouble: it begins when the first shard is given up and ends when none is.

Without I/O.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Final

from hybridgrey.breaker import Breaker, OnChange

_MOST: Final = 1000  # shards; a Redis Cluster has no more primaries


class Breakers:
    """The breakers of one store, by shard, made as shards are seen. May be used from any thread."""

    def __init__(self, on_change: OnChange, *, limit: int) -> None:
        """`on_change(available, reason)` is called when the first one opens and when the last one closes."""
        self._on_change = on_change
        self._limit = limit
        self._lock = threading.Lock()
        self._made: dict[str, Breaker] = {}
        self._given_up: set[str] = set()

    def of(self, shard: str) -> Breaker:
        """The breaker of a shard; "" is a name too, for what has but one."""
        return self._made.get(shard) or self._make(shard)

    def given_up(self) -> list[Breaker]:
        """Those that are open."""
        return [one for one in list(self._made.values()) if one.open]

    @property
    def reason(self) -> str:
        """Why a shard is given up, or else why one failed last; "" when none has since it succeeded."""
        found = [*self.given_up(), *list(self._made.values())]
        return next((one.reason for one in found if one.reason), "")

    def _make(self, shard: str) -> Breaker:
        with self._lock:
            if len(self._made) >= _MOST:
                shard = ""  # its cluster changes its nodes all the time
            if shard not in self._made:
                self._made[shard] = Breaker(partial(self._changed, shard), limit=self._limit)
            return self._made[shard]

    def _changed(self, shard: str, available: bool, reason: str) -> None:
        with self._lock:
            before = bool(self._given_up)
            (self._given_up.discard if available else self._given_up.add)(shard)
            if bool(self._given_up) != before:
                self._on_change(available, reason)
