"""Counts by time in bounded memory: when there are too many bins, each becomes wider.

A bin is named by its beginning, in Unix seconds, and has one of the widths of `STEPS`; each of them divides
the next, and all divide a day.  So counts of any width can be added to those of a wider one.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86400
STEPS: Final = (MINUTE, 300, 900, HOUR, 3 * HOUR, 6 * HOUR, DAY)
MOST: Final = 20_000
"""Bins of all series together: ten years by the day, or three days by the minute, of five series."""


class Bins:
    """Counts of some series; `step` is the width of a bin in seconds."""

    def __init__(self, step: int = MINUTE, most: int = MOST) -> None:
        self.step = step
        self._most = most
        self._size = 0
        self._counts: dict[str, Counter[int]] = {}

    def add(self, series: str, moment: float, number: int = 1) -> None:
        """Count `number` at a moment."""
        start = int(moment) // self.step * self.step
        counts = self._counts.setdefault(series, Counter())
        self._size += start not in counts
        counts[start] += number
        if self._size > self._most and self.step < STEPS[-1]:
            self.widen(STEPS[STEPS.index(self.step) + 1])

    def widen(self, step: int) -> None:
        """Make the bins at least as wide as `step`."""
        if step <= self.step:
            return
        before, self._counts = self._counts, {}
        self.step, self._size = step, 0
        for series, counts in before.items():
            for start, number in counts.items():
                self.add(series, start, number)

    def merge(self, other: Bins) -> None:
        """Add the counts of another."""
        self.widen(other.step)
        for series, counts in other._counts.items():
            for start, number in counts.items():
                self.add(series, start, number)

    def counts(self, series: str) -> Counter[int]:
        """The counts of a series by the beginning of their bin."""
        return self._counts.get(series, Counter())
