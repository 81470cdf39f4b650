"""What became of the mail of a time, as one flow through the rules, and what waiting there was in it.

The counts are of recipients judged, and a mail that was put off is judged again when it comes back. A flow
has each mail once: what came back, or tried too early, is not counted among what came. So a flow has what
each rule took, what the greylist let in at once, and what it put off; of that what came back and got in,
and what did not (yet).

Mail that came back may have been put off before the time that is shown. It counts as put off all the same.

Pure: totals by series go in (`history.layout` names them), what JSON is made of comes out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from hybridgrey.cleaning import clean
from hybridgrey.history.layout import OUTCOMES, labels_of, series_name
from hybridgrey.logline import LATEST
from hybridgrey.metrics.series import NO_RULE
from hybridgrey.outcome import LABELS, LET_IN_EARLY, Outcome, Reason, outcome_of, why

MOST_ROWS: Final = 40
"""Rows of rules; what more there are is one row together."""
OTHERS: Final = "(others)"
_ACCEPT, _DELAY = LABELS[Outcome.ACCEPTED], LABELS[Outcome.GREYLISTED]

Totals = Mapping[str, int]


class Bucket(NamedTuple):
    """Mail that came back after so many seconds, more than `low` and at most `high`."""

    low: float
    high: float
    number: int


def flow(totals: Totals, rules: Sequence[tuple[str, str]]) -> dict[str, object]:
    """The flow; `rules`: names and actions in their order, as far as they are known.

    rows: {kind, rule, outcome, count} from the first to the last that takes mail; `kind` is ``rule``, or for
    what greylisting let in at once ``known``, ``network``, ``domain``, ``expected``, ``other``.
    """
    by_rule, reasons = _by(totals, "rule"), _by(totals, "reason")
    greylists = {name for name, counts in by_rule.items() if counts[_DELAY]}
    greylists |= {name for name, action in rules if action == "greylist"} & set(by_rule)
    rows = list(_taken(by_rule, [name for name, _ in rules], greylists))
    accepted = sum(by_rule[name][_ACCEPT] for name in greylists)
    delayed = sum(by_rule[name][_DELAY] for name in greylists)
    early = max(_state(totals, "early") - reasons[Reason.EXPECTED][_ACCEPT], reasons[Reason.EARLY][_DELAY])
    passed = min(_state(totals, "passed"), accepted)
    rows += _at_once(totals, reasons, accepted - passed)
    waiting = delayed - min(early, delayed)
    put_off = max(waiting, passed)
    return {
        "mails": sum(int(str(row["count"])) for row in rows) + put_off,
        "rows": rows,
        "put_off": put_off,
        "back": passed,
        "never": put_off - passed,
        "early": early,
    }


def _by(totals: Totals, what: str) -> dict[str, Counter[str]]:
    """Recipients by outcome, for each rule or each reason: `what` is the name of the series."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for series, count in totals.items():
        match labels_of(series):
            case [family, name, word] if family == what and (outcome := outcome_of(word)) and count:
                counts[name][LABELS[outcome]] += count
    return counts


def _taken(
    by_rule: Mapping[str, Counter[str]], order: Sequence[str], greylists: set[str]
) -> Iterator[dict[str, object]]:
    """What each rule took for good: those of now in their order, then others, last what no rule matched."""
    known = [name for name in order if name in by_rule]
    others = sorted(name for name in by_rule if name not in known and name != NO_RULE)
    names = [name for name in (*known, *others) if name not in greylists]
    names += [name for name in (*known, *others) if name in greylists]
    names += [NO_RULE] if NO_RULE in by_rule and NO_RULE not in names else []
    rest: Counter[str] = Counter()
    number = 0
    for name in names:
        for outcome in OUTCOMES:
            count = by_rule[name][outcome]
            if not count or (name in greylists and outcome in (_ACCEPT, _DELAY)):
                continue
            number += 1
            if number > MOST_ROWS:
                rest[outcome] += count
            else:
                yield {"kind": "rule", "rule": clean(name), "outcome": outcome, "count": count}
    for outcome, count in rest.items():
        yield {"kind": "rule", "rule": OTHERS, "outcome": outcome, "count": count}


def _at_once(totals: Totals, reasons: Mapping[str, Counter[str]], left: int) -> Iterator[dict[str, object]]:
    """What the greylist let in without putting it off: so many in all."""
    domain = reasons[Reason.DOMAIN][_ACCEPT]
    parts = {
        "known": _state(totals, "known"),
        "network": max(0, _state(totals, "network") - domain),
        "domain": domain,
        "expected": reasons[Reason.EXPECTED][_ACCEPT],
        "other": left,
    }
    for kind, count in parts.items():
        part = min(count, left)
        left -= part
        if part:
            yield {"kind": kind, "rule": None, "outcome": _ACCEPT, "count": part}


def _state(totals: Totals, state: str) -> int:
    return totals.get(f"greylist:{state}", 0)


def thanks(totals: Totals) -> list[dict[str, object]]:
    """Why mail was let in without waiting, the most frequent first: {reason, why, count}."""
    counts = {
        reason: by[_ACCEPT]
        for reason, by in _by(totals, "reason").items()
        if by[_ACCEPT] and reason != Reason.PASSED
    }
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [{"reason": clean(one, 40), "why": clean(why(one)), "count": n} for one, n in ordered[:MOST_ROWS]]


def later(totals: Totals) -> dict[str, object]:
    """What was spam later of the mail that was let in early (`outcome.LET_IN_EARLY`).

    early: how much there was.  log, scanner: of how much of it a mail log or the scanner tells, and how much
    they call spam, {told, spam}.  reasons: the same for each.
    """
    accepted = _by(totals, "reason")
    rows = {
        str(reason): {"early": accepted[reason][_ACCEPT], **_told(totals, [reason])}
        for reason in sorted(LET_IN_EARLY)
        if accepted[reason][_ACCEPT]
    }
    early = sum(int(str(row["early"])) for row in rows.values())
    return {"early": early, **_told(totals, sorted(rows)), "reasons": rows}


def _told(totals: Totals, reasons: Sequence[str]) -> dict[str, object]:
    return {
        source: {
            what: sum(totals.get(series_name("later", reason, what, source), 0) for reason in reasons)
            for what in ("told", "spam")
        }
        for source in ("log", "scanner")
    }


def logs(read: Mapping[str, int]) -> list[dict[str, object]]:
    """Up to when there are mail logs of hosts, the oldest first: {host, until}, Unix seconds."""
    ordered = sorted(read.items(), key=lambda one: (one[1], one[0]))
    return [{"host": clean(host), "until": min(until, LATEST)} for host, until in ordered]


def waits(accepted: int, buckets: Sequence[Bucket]) -> dict[str, object]:
    """How long accepted mail waited, what was not delayed as 0: the seconds of half of it, and of 95 of 100.

    By nearest rank; within a bucket evenly spread. None where nothing was accepted, or for what lies above
    the last bound.
    """
    delayed = sum(bucket.number for bucket in buckets)
    whole = max(accepted, delayed)
    return {
        "accepted": whole,
        "delayed": delayed,
        "median": _rank(whole, 50, buckets),
        "p95": _rank(whole, 95, buckets),
        "over": sum(bucket.number for bucket in buckets if bucket.low >= 600),
    }


def _rank(whole: int, percent: int, buckets: Sequence[Bucket]) -> float | None:
    if not whole:
        return None
    rank = math.ceil(whole * percent / 100) - (whole - sum(bucket.number for bucket in buckets))
    if rank <= 0:
        return 0.0
    for bucket, reached in zip(buckets, accumulate(one.number for one in buckets), strict=True):
        if reached >= rank:
            part = (rank - (reached - bucket.number)) / bucket.number
            return None if math.isinf(bucket.high) else bucket.low + (bucket.high - bucket.low) * part
    return None
