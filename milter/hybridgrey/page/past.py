"""Verdicts before the latest ones, searched from the newest to the oldest, a second's worth at a time.

The page asks on from where the last answer has got, so that no question keeps the store or another page
waiting, however many verdicts are kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from hybridgrey.clientaddress import ClientReader
from hybridgrey.history.chunks import SPAN_MAX, time_of
from hybridgrey.history.view import Chronicle
from hybridgrey.page import verdicts
from hybridgrey.page.site import BadQuestionError
from hybridgrey.page.verdicts import Verdict

LOOKING: Final = 1.0
"""Seconds that one look may take."""
STRIDE: Final = 900.0
"""Seconds of the past that are looked through first; more and more as long as it is quick."""
LONGEST: Final = 4 * 3600.0
"""Seconds that are looked through at once at most: where nothing is it is quick, and what is next unknown."""
MOST_OF_A_MOMENT: Final = 1000


def limit(parameters: Mapping[str, str]) -> int:
    """How many verdicts are asked for; raises BadQuestionError."""
    text = parameters.get("limit", "50")
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 6):
        raise BadQuestionError("limit is a number")
    return int(text)


def moment(parameters: Mapping[str, str], name: str) -> float:
    """A time in Unix seconds, 0 where none is named; raises BadQuestionError."""
    text = parameters.get(name, "")
    if text and not re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", text, re.ASCII):
        raise BadQuestionError(f"{name} is a time in Unix seconds")
    return float(text or 0)


def searched(
    chronicle: Chronicle,
    wanted: str,
    clients: ClientReader,
    times: tuple[float, float],
    hosts: Sequence[str] | None,
    most: int,
) -> dict[str, object]:
    """The verdicts before a moment that are wanted, until there are so many or the time is up.

    times: that moment, and now. `reached` in the answer is where to go on, None at the end. Raises
    StoreError.
    """
    asked = verdicts.words(wanted)
    search, needles = verdicts.Search(asked, clients), verdicts.needles(asked)
    found: list[Verdict] = []
    end = time.monotonic() + LOOKING
    # What is dated later than now, by a clock that is ahead, is of the next hour.
    last, first = min(times[0], times[1] + SPAN_MAX), times[1] - chronicle.terms.verdicts - SPAN_MAX
    for start, before in _strides(last, first):
        for record in chronicle.verdicts(start, before, hosts, needles):
            one = verdicts.safe(record)
            if one is not None and search.finds(one):
                found.append(verdicts.named(one))
            if len(found) >= most or time.monotonic() > end:
                return {"verdicts": found, "reached": time_of(record)}
        if time.monotonic() > end:
            return {"verdicts": found, "reached": start}
    return {"verdicts": found, "reached": None}


def _strides(before: float, floor: float) -> Iterator[tuple[float, float]]:
    """Pieces of the past, the newest first; longer ones while they take no time."""
    stride = STRIDE
    while before > floor:
        began = time.monotonic()
        yield max(floor, before - stride), before
        before -= stride
        if time.monotonic() - began < LOOKING / 8:
            stride = min(2 * stride, LONGEST)


def at(chronicle: Chronicle, when: float) -> list[Verdict]:
    """The verdicts of a moment.  Raises StoreError."""
    there = islice(chronicle.verdicts(when - 0.001, when + 0.001), MOST_OF_A_MOMENT)
    return [one for record in there if (one := verdicts.shown(record)) is not None]
