"""Mail per second before and after the filter was switched on: what `hybridgrey report` draws.

Counts come from mail logs (`maillog`) and from the history in the store.  Where a log covers the time it is
believed, for it has what Postfix refused by itself too, and it counts the same way before and after;
elsewhere the history is.  In observe mode all mail passed: there the history's outcomes, whatever they would
have been, are accepted mail.

The history counts recipients, a log counts messages where they are accepted; most mail has one recipient.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from hybridgrey.cleaning import clean
from hybridgrey.history.layout import Rows
from hybridgrey.report.bins import DAY, STEPS
from hybridgrey.report.maillog import ACCEPTED, DEFERRED, GREYLISTED, REJECTED, SPAM, Tally

MOST_BINS: Final = 400
"""Bins of a graph, as long as a day is not too narrow for it."""
MOST_LISTS: Final = 12
WOULD_REJECT: Final = "would reject"
WOULD_GREYLIST: Final = "would greylist"
SHOWN: Final = (ACCEPTED, SPAM, REJECTED, GREYLISTED)
"""The graphs, in their order; `SPAM` only where a log has some."""

_WOULD: Final = (WOULD_REJECT, WOULD_GREYLIST)
_OUTCOMES: Final = {
    "outcome:accept:enforced": (ACCEPTED,),
    "outcome:reject:enforced": (REJECTED,),
    "outcome:delay:enforced": (GREYLISTED,),
    "outcome:tempfail:enforced": (DEFERRED,),
    "outcome:accept:observed": (ACCEPTED,),
    "outcome:reject:observed": (ACCEPTED, WOULD_REJECT),
    "outcome:delay:observed": (ACCEPTED, WOULD_GREYLIST),
    "outcome:tempfail:observed": (ACCEPTED,),
}
_NEAR: Final = DAY  # s; a silence no longer than this between two logs is a quiet time, not a gap
_ENOUGH: Final = 0.25  # of a bin that has to be covered, lest a few seconds become a rate

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of a graph: `seconds` of it are known, from a mail log if `logged`; `counts` by series."""

    start: int
    seconds: float
    counts: Mapping[str, int]
    logged: bool = False

    def knows(self, series: str) -> bool:
        """Whether it is known how much there was: only logs have spam, only the history has observe mode."""
        return (
            bool(self.seconds) and (self.logged or series != SPAM) and not (self.logged and series in _WOULD)
        )

    def rate(self, series: str) -> float | None:
        """Mail per second; None where it is not known."""
        return self.counts.get(series, 0) / self.seconds if self.knows(series) else None


@dataclass(frozen=True, slots=True)
class Means:
    """Mail per second before and after; None where nothing is known of it."""

    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """The change as a share of what was before: -0.7 is 70 % less."""
        if self.before is None or self.after is None or not self.before:
            return None
        return self.after / self.before - 1


@dataclass(frozen=True, slots=True)
class ListRejects:
    """Recipients rejected whose client a list has: `sole` if no other blocklist has it, or `shared`."""

    label: str
    sole: int
    shared: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What there is to show. Times are Unix seconds; `step` is the width of a bin."""

    start: float
    end: float
    step: int
    switched_on: float | None
    bins: Sequence[Bin]
    lists: Sequence[ListRejects]
    sources: Sequence[str]

    def has(self, series: str) -> bool:
        """Whether a series was counted at all."""
        return any(bin_.counts.get(series) for bin_ in self.bins)

    @property
    def shown(self) -> tuple[str, ...]:
        """The series that have a graph."""
        return tuple(series for series in SHOWN if series != SPAM or self.has(SPAM))

    def total(self, series: str) -> int:
        """How much of it there was."""
        return sum(bin_.counts.get(series, 0) for bin_ in self.bins)

    def means(self, series: str) -> Means:
        """Means over the bins wholly before, and wholly after the moment it was switched on."""
        on = self.switched_on
        if on is None:
            return Means(None, None)
        return Means(
            self._mean(series, lambda bin_: bin_.start + self.step <= on),
            self._mean(series, lambda bin_: bin_.start >= on),
        )

    def _mean(self, series: str, wanted: Callable[[Bin], bool]) -> float | None:
        chosen = [bin_ for bin_ in self.bins if bin_.knows(series) and wanted(bin_)]
        seconds = sum(bin_.seconds for bin_ in chosen)
        return sum(bin_.counts.get(series, 0) for bin_ in chosen) / seconds if seconds else None


def step_for(start: float, end: float, least: int = STEPS[0]) -> int:
    """The width of the bins of a graph of this time, no less than `least`."""
    fitting = (step for step in STEPS if step >= least and end - start <= step * MOST_BINS)
    return next(fitting, STEPS[-1])


def outcomes(history: Rows) -> dict[str, Counter[int]]:
    """The history's outcomes as the series of a graph, by the beginning of their bins."""
    totals: dict[str, Counter[int]] = {}
    for name, counts in history.items():
        for series in _OUTCOMES.get(name, ()):
            totals.setdefault(series, Counter()).update(counts)
    return totals


def lists(history: Rows) -> list[ListRejects]:
    """The lists by which most was rejected, the heaviest first."""
    shares: dict[str, Counter[str]] = {}
    for name, counts in history.items():
        kind, _, rest = name.partition(":")
        label, _, share = rest.rpartition(":")
        if kind == "list_reject" and label and share in ("sole", "shared"):
            shares.setdefault(clean(unquote(label)), Counter())[share] += sum(counts.values())
    rows = [ListRejects(label, both["sole"], both["shared"]) for label, both in shares.items()]
    rows = [row for row in rows if row.sole + row.shared > 0]
    return sorted(rows, key=lambda row: (-row.sole - row.shared, row.label))[:MOST_LISTS]


def merged(spans: Iterable[Interval], near: float = _NEAR) -> list[Interval]:
    """Spans of time put together where they meet or nearly do."""
    whole: list[Interval] = []
    for start, end in sorted(spans):
        if whole and start - whole[-1][1] <= near:
            whole[-1] = whole[-1][0], max(whole[-1][1], end)
        else:
            whole.append((start, end))
    return whole


def bins(
    start: float,
    end: float,
    step: int,
    log: Tally,
    history: Mapping[str, Counter[int]],
    known: Interval | None,
) -> list[Bin]:
    """The bins of a graph; `known` is the time that the history covers, `history` has the series of a graph.

    Both sources have bins no wider than `step`.
    """
    spans = merged(log.spans)
    of_log = {series: _coarser(log.bins.counts(series), step) for series in (*SHOWN, DEFERRED)}
    of_history = {series: _coarser(counts, step) for series, counts in history.items()}
    made = []
    for begin in range(int(start) // step * step, int(end), step):
        inside = max(begin, start), min(begin + step, end)
        width = inside[1] - inside[0]
        counts, seconds = of_log, _covered(spans, inside)
        logged = seconds >= _ENOUGH * width
        if not logged and known is not None:
            counts, seconds = of_history, _covered([known], inside)
        if width <= 0 or seconds < _ENOUGH * width:
            made.append(Bin(begin, 0.0, {}))
        else:
            these = {series: counted[begin] for series, counted in counts.items() if counted[begin]}
            made.append(Bin(begin, seconds, these, logged))
    return made


def _coarser(counts: Mapping[int, int], step: int) -> Counter[int]:
    wide: Counter[int] = Counter()
    for start, number in counts.items():
        wide[start // step * step] += number
    return wide


def _covered(spans: Sequence[Interval], inside: Interval) -> float:
    """Seconds of `inside` that the spans cover."""
    return sum(max(0.0, min(end, inside[1]) - max(start, inside[0])) for start, end in spans)
