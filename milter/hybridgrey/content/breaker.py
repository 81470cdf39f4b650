"""When to leave a scanner alone: after `LIMIT` failures in a row, but for one try in each `PAUSE`."""

from __future__ import annotations

import threading
from typing import Final

LIMIT: Final = 3
PAUSE: Final = 30.0
"""Seconds."""


class Breaker:
    """Thread safe; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0

    def down(self, now: float) -> bool:
        """Whether it is left alone now."""
        return self._failures >= LIMIT and now < self._next_try

    def admits(self, now: float) -> bool:
        """Whether the caller may ask; once it has failed too often, one caller in each pause may."""
        if self._failures < LIMIT:
            return True
        with self._lock:
            if self.down(now):
                return False
            self._next_try = now + PAUSE
            return True

    def succeeded(self) -> None:
        """It has given a score."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self, now: float) -> None:
        """It has not."""
        with self._lock:
            self._failures += 1
            self._next_try = now + PAUSE
