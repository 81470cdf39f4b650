"""When to leave a server alone that fails: after so many failures in a row, but for one try in each pause.

Without I/O.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

OnChange = Callable[[bool, str], None]


def unheard(_available: bool, _reason: str) -> None:
    """The change of state is not wanted."""


class Breaker:
    """Opens after `limit` failures in a row; while open one caller each `pause` seconds may try.

    Without I/O; `clock` gives seconds. `on_change(available, reason)` is called once a change, under the
    lock, so that two changes cannot be reported in the wrong order: it must not call back. The lock is only
    taken when something is or was wrong.
    """

    def __init__(
        self,
        on_change: OnChange = unheard,
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
    def down(self) -> bool:
        """Whether whoever asked now would be refused."""
        return self._open and self._clock() < self._next_try

    @property
    def reason(self) -> str:
        """The last failure; "" when the last call succeeded."""
        return self._reason

    def admits(self) -> bool:
        """Whether the caller may try now; while open True for one caller in each pause."""
        if not self._open:
            return True
        with self._lock:
            if self.down:
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
