"""When to leave a store alone that fails: a breaker for each of its shards.

A *shard* is what fails by itself: all of a single server, one primary of a Redis Cluster. While its breaker
is open, calls about its keys fail at once, so that no mail waits for it, and those about other shards go on.
To the log all of it is one trouble: it begins when the first shard is given up and ends when none is.

Without I/O.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

_MOST: Final = 1000  # shards; a Redis Cluster has no more primaries

OnChange = Callable[[bool, str], None]


class Breaker:
    """Opens after `limit` failures in a row; while open one caller each `pause` seconds may try.

    Without I/O; `clock` gives seconds. `on_change(available, reason)` is called once a change, under the
    lock, so that two changes cannot be reported in the wrong order: it must not call back. The lock is only
    taken when something is or was wrong.
    """

    def __init__(
        self,
        on_change: OnChange,
        *,
        limit: int = 3,
        pause: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_change = on_change
        self._limit = limit
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0
        self._reason = ""
        self._open = False

    @property
    def open(self) -> bool:
        """Whether calls are refused."""
        return self._open

    @property
    def reason(self) -> str:
        """The last failure; "" when the last call succeeded."""
        return self._reason

    def admits(self) -> bool:
        """Whether the caller may try now; while open True for one caller in each pause."""
        if not self._open:
            return True
        with self._lock:
            if self._open and self._clock() < self._next_try:
                return False
            self._next_try = self._clock() + self._pause
            return True

    def claim(self) -> None:
        """A prober is at work: callers leave the tries to it, unless it is not heard of for three pauses."""
        with self._lock:
            self._next_try = self._clock() + 3 * self._pause

    def succeeded(self) -> None:
        """Note a success: the breaker closes."""
        if not self._failures and not self._open:
            return
        with self._lock:
            self._failures = 0
            self._reason = ""
            if self._open:
                self._open = False
                self._on_change(True, "")

    def failed(self, reason: str) -> None:
        """Note a failure; the one that reaches the limit opens the breaker."""
        with self._lock:
            self._failures += 1
            self._reason = reason
            self._next_try = max(self._next_try, self._clock() + self._pause)
            if not self._open and self._failures >= self._limit:
                self._open = True
                self._on_change(False, reason)


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
