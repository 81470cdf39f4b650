"""What the history is made of: marks, batches and the records of verdicts, and how much of each is kept.

A *mark* is a notable moment of a host, a *top* the heaviest client networks or sender domains of a day, the
*latest* are verdicts as they were recorded (`chunks` has how they are kept).  What is read back may have been
written by anybody: a reading that fails gives None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import orjson

from hybridgrey import envelope
from hybridgrey.history.layout import OUTCOMES, Step

TOPS: Final = tuple(f"{what}/{outcome}" for what in ("network", "domain") for outcome in OUTCOMES)
"""What there are tops of: client networks and sender domains, by what their recipients got."""

HOSTS_MAX: Final = 64
MARKS_MAX: Final = 2000
LATEST_MAX: Final = 500
TODAY_MAX: Final = 2000
"""Members of each of a day's tops while it lasts: a newcomer must not be the first to go at every write."""
DAY_MAX: Final = 100
"""Members of each of a day's tops when it is over."""
TEXT_MAX: Final = 400
"""Characters of a name that is read back."""
NAME_MAX: Final = 120
"""Characters of a sender domain."""
TOPS_KEPT: Final = 32 * 86400


@dataclass(frozen=True, slots=True)
class Mark:
    """A notable moment of a host, Unix seconds.

    `kind`: start, reload (of a changed policy), mode, suspended and restored (a list), store_down,
    store_back; `text`: the mode, the list's label, what has changed.
    """

    time: float
    host: str
    kind: str
    text: str = ""


@dataclass(slots=True)
class Batch:
    """What is added at once; the counts are increments.

    counts: by step and its first second, then by series.  tops: by day (``2026-01-31``) and one of TOPS.
    over: days that have ended, whose tops are cut to DAY_MAX.
    """

    counts: dict[tuple[Step, int], dict[str, int]] = field(default_factory=dict)
    tops: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    over: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.counts or self.tops or self.marks or self.over)


def heaviest(counts: Mapping[str, int], limit: int) -> list[tuple[str, int]]:
    """The names with the highest counts, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]


def newest(records: Iterable[dict[str, object]], limit: int) -> list[dict[str, object]]:
    """Records by their time `t`, the newest first."""
    return sorted(records, key=lambda record: -cast(float, record["t"]))[:limit]


def sender_domain(sender: str) -> str:
    """The domain of a sender as tops name it: "" for the null sender, its path where it is uncertain."""
    box = envelope.read(sender)
    return envelope.shortened(box.domain or box.local if box.certain else sender, NAME_MAX, NAME_MAX // 2)


def packed(mark: Mark) -> bytes:
    """A mark as the store has it."""
    return orjson.dumps([mark.time, mark.host, mark.kind, mark.text])


def read_mark(raw: bytes) -> Mark | None:
    """A mark as the store has it, read back."""
    match _json(raw):
        case [int() | float() as time, str() as host, str() as kind, str() as text] if math.isfinite(time):
            return Mark(float(time), host[:TEXT_MAX], kind[:TEXT_MAX], text[:TEXT_MAX])
    return None


def read_record(raw: bytes) -> dict[str, object] | None:
    """The record of a verdict, read back."""
    record = _json(raw)
    if not isinstance(record, dict):
        return None
    moment = record.get("t")
    return record if isinstance(moment, (int, float)) and math.isfinite(moment) else None


def _json(raw: bytes) -> object:
    try:
        return cast(object, orjson.loads(raw))
    except orjson.JSONDecodeError:
        return None
