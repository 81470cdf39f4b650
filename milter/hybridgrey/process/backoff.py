"""How long to wait before a process that died is started again.  Pure."""

from __future__ import annotations


class Backoff:
    """The pace of restarts of one thing: at once, then after 1, 2, 4 ... 30 seconds.

    A life of `healthy` seconds or more makes good for what was before.
    """

    def __init__(self, first: float = 1.0, longest: float = 30.0, healthy: float = 60.0) -> None:
        self._first = first
        self._longest = longest
        self._healthy = healthy
        self._deaths = 0

    def died(self, lived: float) -> float:
        """Note a death after `lived` seconds; the seconds to wait before the next start."""
        self._deaths = 1 if lived >= self._healthy else self._deaths + 1
        if self._deaths == 1:
            return 0.0
        exponent = min(self._deaths - 2, 32)  # the power must not outgrow a float
        return min(self._longest, self._first * 2.0**exponent)

    @property
    def looping(self) -> bool:
        """Whether it has died again without a healthy life between."""
        return self._deaths > 1

    @property
    def new_loop(self) -> bool:
        """Whether this is the moment to say that it keeps dying."""
        return self._deaths == 2
