"""Durations as an admin writes them: ``"500ms"``, ``"2s"``, ``"5m"``, ``"1h30m"``, ``"36d"``; 300 is seconds.

Units go from large to small, each at most once: w, d, h, m, s, ms.  Inside the program a duration is a number
of seconds, a float where less than a second makes sense and an int elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hybridgrey.config import words

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
# Nine digits keep the sum far below what a store can take as an expiry in milliseconds.
_TEXT = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit in _UNITS))
_HELP = 'write a number and ms, s, m, h, d or w, such as "500ms", "5m" or "1h30m"'


def parse(value: object) -> float:
    """Seconds of a duration as it stands in the file, a string or an integer; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 10**9:
            raise ValueError("must be from 0 to 999999999 seconds")
        return float(value)
    if not isinstance(value, str):
        raise ValueError(f"must be a duration: {_HELP}")  # noqa: TRY004 (pydantic collects ValueError)
    text = value.strip()
    match = _TEXT.fullmatch(f"{text}s" if re.fullmatch("[0-9]+", text) else text)
    if match is None or match.lastindex is None:
        # The text is not shown: it may be a password that slipped into the wrong line.
        raise ValueError(f"is no duration: {_HELP}")
    amounts = (int(amount or 0) for amount in match.groups())
    return sum(a * unit for a, unit in zip(amounts, _UNITS.values(), strict=True)) / 1000


def show(seconds: float) -> str:
    """The duration in the notation of the file."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in _UNITS.items():
        amount, rest = divmod(rest, size)
        if amount and not (unit == "w" and rest):  # "36d" reads better than "5w1d"
            parts.append(f"{amount}{unit}")
        elif amount:
            rest += amount * size
    return "".join(parts) or "0s"


def between(low: str, high: str) -> Callable[[object], float]:
    """A reader of durations that must lie in a range, both ends included."""
    return words.within(parse, low, high)


def whole(low: str, high: str) -> Callable[[object], int]:
    """The same for durations in whole seconds."""
    ranged = between(low, high)

    def read(value: object) -> int:
        seconds = ranged(value)
        if seconds != int(seconds):
            raise ValueError("must be whole seconds")
        return int(seconds)

    return read
