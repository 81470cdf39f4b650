"""When an attempt that is put off is made again, in seconds after the first.

A schedule is a function of chance: real queues run when they run. The providers' are measured (DSN 2016, by a
greylist with a threshold of six hours); the others are the defaults of their programs. No schedule here goes
beyond two days, which is as long as a waiting triplet lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from random import Random
from types import MappingProxyType
from typing import Final

Schedule = Callable[[Random], list[float]]
"""Seconds after the first attempt, rising; the first attempt is not in it."""

LONGEST: Final = 2 * 86_400
MOST: Final = 14
"""Retries that are simulated: by then all that can pass has passed."""


def _clock(text: str) -> tuple[int, ...]:
    return tuple(int(m) * 60 + int(s) for m, _, s in (one.partition(":") for one in text.split()))


MEASURED: Final = MappingProxyType(
    {
        "gmail": _clock("6:02 29:02 56:36 98:44 162:03 229:44 309:05 434:46"),
        "yahoo": _clock("2:07 5:39 12:58 27:16 55:13 109:35 216:47 430:36"),
        "hotmail": _clock("1:01 2:03 3:04 5:06 8:07 12:08 16:10 20:10 24:10 28:10 32:10 36:10 40:10"),
        "gmx": _clock("5:01 12:33 23:50 40:46 66:09 104:14 161:22 247:04 375:36"),
        "mail.ru": _clock("1:18 19:15 49:14 79:49 113:20 154:18 187:53 235:20 271:03 305:50 340:38 373:45"),
        "yandex": _clock("1:05 2:58 6:53 14:55 30:28 45:41 61:01 76:31 92:01 107:31"),
        "aol": _clock("5:32 11:32 21:32 31:32"),
        "qq": _clock("5:05 5:11 5:17 6:19 8:22 12:25 20:29 52:31 84:35 144:42 204:56"),
    }
)
"""DSN 2016; aol and qq give up after the last."""


def measured(name: str) -> Schedule:
    """A provider's, as it was seen, give or take a few seconds."""
    times = MEASURED[name]
    return lambda chance: [at + chance.uniform(0, 5) for at in times]


def postfix(chance: Random) -> list[float]:
    """`minimal_backoff_time` 300 s, doubled up to 4000 s; the queue is looked through each 300 s."""
    return _until_late(_backing_off(chance, 300, 2.0, 4000, 300))


def each(minutes: int) -> Schedule:
    """A queue that is run at a fixed interval, by chance against the first attempt; never within 1 minute."""

    def schedule(chance: Random) -> list[float]:
        first = max(60.0, chance.uniform(0, minutes * 60))
        return _until_late(first + n * minutes * 60 for n in range(MOST))

    return schedule


def exim(chance: Random) -> list[float]:
    """The default rule, each 15 minutes for two hours, then each time half as long again."""
    early = [900.0 * n + chance.uniform(0, 60) for n in range(1, 9)]
    return _until_late(early + [7200 + 3600 * 1.5**n for n in range(1, 7)])


def bulk(minutes: float) -> Schedule:
    """A platform's: the first retry after some minutes, then twice as long each time."""
    return lambda chance: _until_late(_backing_off(chance, minutes * 60, 2.0, 4 * 3600, minutes * 12))


def once(low: float, high: float) -> Schedule:
    """One retry between two times, in seconds."""
    return lambda chance: [chance.uniform(low, high)]


def never(_: Random) -> list[float]:
    """No retry."""
    return []


def too_early(chance: Random) -> list[float]:
    """One to three retries within the first minute."""
    return sorted(chance.uniform(1, 59) for _ in range(chance.randint(1, 3)))


def _backing_off(chance: Random, first: float, factor: float, most: float, jitter: float) -> Iterator[float]:
    at, pause = 0.0, first
    for _ in range(MOST):
        at += pause + chance.uniform(0, jitter)
        yield at
        pause = min(most, pause * factor)


def _until_late(times: Iterator[float] | list[float]) -> list[float]:
    return list(takewhile(lambda at: at < LONGEST, times))[:MOST]
