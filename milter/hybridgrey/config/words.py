"""Values of rules and sections that are no plain text: lists of words, a score, a size.

Each reader raises ValueError with what is wrong, in words for an admin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Final, TypeVar

from hybridgrey.policy.conditions import Hand, Score

N = TypeVar("N", int, float)

_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20}


def word_of(known: Sequence[str]) -> Callable[[str], str]:
    """A reader of one of these words, ``!`` before it for all others."""

    def read(text: str) -> str:
        mark = "!" if text.lstrip().startswith("!") else ""
        word = text.strip().removeprefix("!").strip()
        if word in known:
            return mark + word
        raise ValueError(f"must be {choice(known)}{_meant(word, known)}")

    return read


def one_of(value: object, known: Sequence[str]) -> str:
    """A value that must be one of these words."""
    if not isinstance(value, str):
        raise ValueError(f"must be {choice(known)}, in quotes")  # noqa: TRY004 (pydantic collects ValueError)
    if value not in known:
        raise ValueError(f"must be {choice(known)}{_meant(value, known)}")
    return value


def choice(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _meant(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word.lower(), known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def hand(value: object) -> Hand | None:
    """``by_hand``."""
    return None if value is None else Hand(one_of(value, tuple(Hand)))


def score(value: object) -> Score | None:
    """``score``."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError('must be <, <=, > or >= and a number, in quotes, such as ">=4"')  # noqa: TRY004 (as above)
    return Score.parse(value)


def within(read: Callable[[object], N], low: str, high: str) -> Callable[[object], N]:
    """A reader of what `read` reads, which must lie in a range, both ends included."""
    least, most = read(low), read(high)

    def bounded(value: object) -> N:
        number = read(value)
        if not least <= number <= most:
            raise ValueError(f"must be from {low} to {high}")
        return number

    return bounded


def size(low: str, high: str) -> Callable[[object], int]:
    """A reader of sizes in bytes that must lie in a range, both ends included."""
    return within(_bytes, low, high)


def _bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9]{1,9})([kKmM]?)", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a size: write a number and k or m, such as "512k"')
    return int(match[1]) * _UNITS[match[2].lower()]
