"""A span of time as the page shows it: rows of counts for its chart, and totals for its tables.

Pure: counts by series and moment go in (`history.layout` names the series), what JSON is made of
comes out.  Series of another version, or that somebody else has written to the store, are passed over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Final, NamedTuple, TypeVar, cast

from hybridgrey.cleaning import clean
from hybridgrey.history.layout import FIRST_DELAY, NOTED, OUTCOMES, Rows, Step, labels_of
from hybridgrey.metrics.series import DELAY_BUCKETS, RESULTS, STATES
from hybridgrey.outcome import LABELS, Outcome, outcome_of
from hybridgrey.page import flow

MOST_NAMES: Final = 500
"""Lists or rules that are shown; a configuration has fewer."""
MOST_COUNTED: Final = 10**12
"""A count in one step above which it is none: so that all sums stay numbers that JSON and browsers have."""

_BOUNDS: Final = (*DELAY_BUCKETS, inf)
_FINE: Final = [bound for bound in DELAY_BUCKETS if bound <= FIRST_DELAY]

Value = TypeVar("Value")


class Span(NamedTuple):
    """`number` steps of `width` seconds, added up from the history's steps `unit`."""

    unit: Step
    width: int
    number: int

    def start(self, now: float) -> int:
        """Where it begins, so that its last step has `now` in it."""
        return int(now) // self.width * self.width - (self.number - 1) * self.width


SPANS: Final[Mapping[str, Span]] = {
    "hour": Span(Step.MINUTE, 60, 60),
    "day": Span(Step.MINUTE, 600, 144),
    "week": Span(Step.HOUR, 3600, 168),
    "month": Span(Step.HOUR, 6 * 3600, 124),
    "year": Span(Step.DAY, 86400, 366),
}


def shown(name: str, now: float, counts: Rows, order: Sequence[tuple[str, str]] = ()) -> dict[str, object]:
    """What the page needs of a span of time but for marks and hosts.

    name: one of SPANS. order: the rules of now, with their actions.
    """
    span = SPANS[name]
    start = span.start(now)
    counts = {
        series: {moment: count for moment, count in steps.items() if 0 <= count <= MOST_COUNTED}
        for series, steps in counts.items()
    }
    rows, observed = _outcomes(counts, span, start)
    totals = {series: sum(steps.values()) for series, steps in counts.items()}
    return {
        "span": name,
        "now": now,
        "start": start,
        "step": span.width,
        "elapsed": now - (start + (span.number - 1) * span.width),
        "outcomes": rows,
        "observed": observed,
        "rules": _rules(totals),
        "lists": _lists(totals),
        "delays": (delays := _delays(totals)),
        "flow": flow.flow(totals, order),
        "waits": flow.waits(sum(rows[LABELS[Outcome.ACCEPTED]]), _buckets(delays["buckets"])),
        "thanks": flow.thanks(totals),
        "later": flow.later(totals),
        "greylist": {state: totals.get(f"greylist:{state}", 0) for state in STATES},
        "both": totals.get("claimed_by_both", 0),
        "sessions": totals.get("sessions", 0),
        "store_failures": totals.get("store_failures", 0),
    }


def _outcomes(counts: Rows, span: Span, start: int) -> tuple[dict[str, list[int]], int]:
    """A row for each outcome, and how many recipients were only observed."""
    rows = {outcome: [0] * span.number for outcome in OUTCOMES}
    observed = 0
    for (word, mode), steps in _of(counts, "outcome", 2):
        outcome = _label(word)
        for moment, count in steps.items():
            at = (moment - start) // span.width
            if outcome in rows and 0 <= at < span.number:
                rows[outcome][at] += count
                observed += count if mode == "observed" else 0
    return rows, observed


def _rules(totals: Mapping[str, int]) -> list[dict[str, object]]:
    by_rule: dict[str, Counter[str]] = defaultdict(Counter)
    for (rule, word), count in _of(totals, "rule", 2):
        outcome = _label(word)
        if outcome in (*OUTCOMES, NOTED) and count:
            by_rule[rule][outcome] += count
    decided = {rule: sum(by[outcome] for outcome in OUTCOMES) for rule, by in by_rule.items()}
    ordered = sorted(by_rule.items(), key=lambda row: (-decided[row[0]], row[0]))
    return [{"rule": rule, **by} for rule, by in ordered[:MOST_NAMES]]


def _lists(totals: Mapping[str, int]) -> list[dict[str, object]]:
    kinds = (*RESULTS, "sole", "shared")
    by_list: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(kinds, 0))
    for family in ("list", "list_reject"):
        for (label, kind), count in _of(totals, family, 2):
            if kind in kinds and (label in by_list or len(by_list) < MOST_NAMES):
                by_list[label][kind] += count
    return [{"list": label, **kinds_of} for label, kinds_of in sorted(by_list.items())]


def _delays(totals: Mapping[str, int]) -> dict[str, object]:
    row = _row(totals, "delay_le", [bound for bound in _BOUNDS if bound >= FIRST_DELAY])
    fine = _row(totals, "delay_within", _FINE)
    # Counted by hosts of a version that does not tell them apart.
    coarse = max(0, row[0] - sum(fine))
    whole = [*fine, *row[1:]]
    median, exact = middle(row, DELAY_BUCKETS[len(_FINE) - 1 :]) if coarse else middle(whole, DELAY_BUCKETS)
    number = sum(whole) + coarse
    buckets = [
        {"from": low, "le": None if high == inf else high, "count": count}
        for low, high, count in zip((0.0, *_BOUNDS), _BOUNDS, whole, strict=False)
    ]
    if coarse:
        buckets.insert(0, {"from": 0.0, "le": FIRST_DELAY, "count": coarse})
    return {
        "buckets": buckets,
        "coarse": coarse,
        "median": median,
        "median_exact": exact,
        "mean": totals.get("delay_sum", 0) / number if number else None,
    }


def _buckets(shown_ones: object) -> list[flow.Bucket]:
    """The histogram of `_delays` as numbers."""
    rows = cast("list[dict[str, float | None]]", shown_ones)
    return [
        flow.Bucket(row["from"] or 0.0, inf if row["le"] is None else row["le"], int(row["count"] or 0))
        for row in rows
    ]


def _row(totals: Mapping[str, int], family: str, bounds: Sequence[float]) -> list[int]:
    return [totals.get(f"{family}:{bound:g}", 0) for bound in bounds]


def middle(row: Sequence[int], bounds: Sequence[float]) -> tuple[float | None, bool]:
    """The median of a histogram, evenly spread within a bucket, and whether it is one.

    In the first bucket it is only known to be at most its bound, in the last to be above the last bound.
    """
    sums = list(accumulate(row))
    half = sums[-1] / 2
    if not half:
        return None, False
    at = bisect_left(sums, half)
    if at == 0 or at == len(bounds):
        return bounds[max(0, at - 1)], False
    low, high = bounds[at - 1], bounds[at]
    return low + (high - low) * (half - sums[at - 1]) / row[at], True


def heaviest(tops: Mapping[str, Sequence[tuple[str, int]]], what: str, limit: int) -> list[dict[str, object]]:
    """The names with the most recipients, each with its counts by outcome; `what`: "network", "domain"."""
    by_name: dict[str, Counter[str]] = defaultdict(Counter)
    for key, pairs in tops.items():
        kind, _, outcome = key.partition("/")
        if kind == what and outcome in OUTCOMES:
            for name, count in pairs:
                by_name[name][outcome] += count
    ordered = sorted(by_name.items(), key=lambda row: (-row[1].total(), row[0]))
    return [{"name": name, **by_outcome} for name, by_outcome in ordered[:limit]]


def _label(word: str) -> str:
    """The page's name of an outcome."""
    known = outcome_of(word)
    return word if known is None else LABELS[known]


def _of(series: Mapping[str, Value], family: str, labels: int) -> Iterator[tuple[list[str], Value]]:
    """The series of a family, with their labels."""
    for name, value in series.items():
        first, *rest = labels_of(name)
        if first == family and len(rest) == labels:
            yield [clean(label) for label in rest], value
