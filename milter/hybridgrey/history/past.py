"""How far back the history goes, when the filter was switched on, and the counts of a graph from it.

What is kept for years is kept by the day, what is kept for days by the minute (`layout`).  So the
beginning is looked for from coarse to fine, and a graph gets the finest counts that are there for all of its
time.

All functions raise StoreError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hybridgrey.history.layout import LAYOUTS, OUTCOMES, Rows, Step, series_name
from hybridgrey.history.reader import Reader
from hybridgrey.history.records import Mark

_FINER: Final = (Step.DAY, Step.HOUR, Step.MINUTE)
_SLACK: Final = 3600.0  # s; what is about to expire is not relied upon
_BEFORE: Final = 3600.0  # s; the first mail may come so long after the switch
_ENFORCE: Final = "enforce"

Hosts = Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Past:
    """The moment of the first verdict that is known of, and that from which verdicts were carried out."""

    first: float
    switched_on: float | None


def survey(reader: Reader, now: float, hosts: Hosts = None) -> Past | None:
    """What the history has at all; None when it has nothing."""
    whole = reader.counts(0, now, Step.DAY, hosts)
    first = _narrowed(reader, known_since(whole), known_since, hosts)
    if first is None:
        return None
    enforced = _narrowed(reader, enforced_since(whole), enforced_since, hosts)
    if enforced is not None:
        enforced = _marked(reader.marks(enforced - _BEFORE, enforced + Step.DAY), enforced, hosts)
    return Past(min(first, enforced or first), enforced)


def enforced_since(counts: Rows) -> int | None:
    """The beginning of the first step in which a verdict was carried out; None if none was."""
    return _first(counts, "enforced")


def known_since(counts: Rows) -> int | None:
    """The beginning of the first step in which anything was judged."""
    return _first(counts, "enforced", "observed")


def _first(counts: Rows, *modes: str) -> int | None:
    names = (series_name("outcome", outcome, mode) for outcome in OUTCOMES for mode in modes)
    return min((start for name in names for start, n in counts.get(name, {}).items() if n > 0), default=None)


def least_step(start: float, now: float) -> Step:
    """The finest counts that are there for all of the time from `start` on."""
    for step in reversed(_FINER):
        if start >= now - LAYOUTS[step].kept + _SLACK:
            return step
    return Step.DAY


def read(reader: Reader, start: float, end: float, step: int, now: float, hosts: Hosts = None) -> Rows:
    """The counts for bins of `step` seconds, which is no less than `least_step` of `start`."""
    unit = next(one for one in _FINER if one <= step or one is Step.MINUTE)
    return reader.counts(max(start, 0), min(end, now), unit, hosts)


def _narrowed(
    reader: Reader, day: int | None, look: Callable[[Rows], int | None], hosts: Hosts
) -> float | None:
    """The beginning of the first hour, and if it is still known the first minute, of something in a day."""
    if day is None:
        return None
    found, width = day, int(Step.DAY)
    for step in (Step.HOUR, Step.MINUTE):
        finer = look(reader.counts(found, found + width - 1, step, hosts))
        if finer is None:
            break
        found, width = finer, int(step)
    return float(found)


def _marked(marks: Sequence[Mark], first: float, hosts: Hosts) -> float:
    """The moment of the switch itself, when a mark of it is near the first mail that felt it."""
    wanted = [
        mark.time
        for mark in marks
        if mark.kind in ("mode", "start")
        and mark.text.startswith(_ENFORCE)
        and (hosts is None or mark.host in hosts)
        and mark.time < first + Step.MINUTE
    ]
    return min(wanted, default=first)
