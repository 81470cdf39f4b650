"""One process's handles to what it counts, in cells of `shared` whose places `series` gives.

What belongs to one event is counted under one lock, which costs as much as a count itself.  Counts for labels
that nobody foresaw go nowhere: they must not cost a recipient.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple, Protocol

from hybridgrey.metrics.series import (
    DELAY_BUCKETS,
    LIST_BUCKETS,
    NO_RULE,
    NOWHERE,
    RESULTS,
    SCAN_BUCKETS,
    STATES,
    STORE_BUCKETS,
    WAIT_BUCKETS,
    Schema,
    flag,
)
from hybridgrey.outcome import LABELS, Outcome

# Where a histogram has its sum, seen from its first cell.
_WAIT_SUM = len(WAIT_BUCKETS) + 1
_SCAN_SUM = len(SCAN_BUCKETS) + 1
_STORE_SUM = len(STORE_BUCKETS) + 1
_DELAY_SUM = len(DELAY_BUCKETS) + 1
_LIST_SUM = len(LIST_BUCKETS) + 1

ListAnswer = tuple[Sequence[bytes], str, float, bool]
"""What a list said, as `policy.judge.Answer` has it: codes, error, seconds, whether no answer came."""


class Labelled(Protocol):
    """A list."""

    @property
    def label(self) -> str:
        """What it is called in metrics."""


class _ListPlaces(NamedTuple):
    """The cells of a list, the results in the order of RESULTS."""

    listed: int
    unlisted: int
    error: int
    timeout: int
    latency: int
    sole: int
    shared: int


_NO_LIST = _ListPlaces(*(7 * (NOWHERE,)))


class Counter:
    """One cell that grows; thread safe within its process."""

    __slots__ = ("_cells", "_index", "_lock")

    def __init__(self, cells: memoryview[float], index: int, lock: threading.Lock) -> None:
        self._cells = cells
        self._index = index
        self._lock = lock

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`."""
        # `+=` is a read, an add and a store. CPython 3.11 to 3.13 happen not to switch threads between them,
        # which nothing promises; the lock costs 0.2 µs.
        with self._lock:
            self._cells[self._index] += amount


class Meter:
    """One process's handles to everything it counts. Made once, after the fork.

    ``counter`` gives the handle of one series, to be kept; the other methods count what belongs to one event,
    under one lock. None of them raises for labels nobody foresaw.
    """

    def __init__(self, schema: Schema, cells: memoryview[float], *, enforced: bool = True) -> None:
        self._schema = schema
        self._cells = cells
        self._lock = threading.Lock()
        self._enforced = flag(enforced)
        self._open = schema.at("sessions_open")
        self._sessions = schema.at("sessions")
        self.claimed_by_both = self.counter("claimed_by_both")
        self._wait = schema.at("rcpt_wait_seconds")
        self._stored = schema.at("store_seconds")
        self._delay = schema.at("greylist_delay_seconds")
        self._failures = schema.at("store_failures")
        self._scan = schema.at("scan_seconds")
        self._scan_failures = schema.at("scan_failures")
        self._left_alone = schema.at("scanner_left_alone")
        self._states = {state: schema.at("greylist", state) for state in STATES}
        self._decided: dict[tuple[str | None, str, Outcome, str], tuple[int, int, int]] = {}
        self._lists: dict[str, _ListPlaces] = {}
        for family, labels in schema.index:
            if family == "list_latency_seconds":
                places = [schema.at("list_answers", *labels, result) for result in RESULTS]
                places += [schema.at(family, *labels)]
                places += [schema.at("list_rejects", *labels, sole) for sole in ("true", "false")]
                self._lists[labels[0]] = _ListPlaces._make(places)

    def counter(self, family: str, *labels: str) -> Counter:
        """Return the handle of one counter."""
        return Counter(self._cells, self._schema.at(family, *labels), self._lock)

    def opened(self) -> None:
        """Count a session that begins."""
        with self._lock:
            self._cells[self._sessions] += 1.0
            self._cells[self._open] += 1.0

    def closed(self) -> None:
        """Count its end."""
        with self._lock:
            self._cells[self._open] -= 1.0

    def decided(
        self, rule: str | None, action: str, outcome: Outcome, waited: float, reason: str = ""
    ) -> None:
        """Count one judged recipient; `rule`: the name, or None when none matched; `waited` in seconds."""
        key = rule, action, outcome, reason
        places = self._decided.get(key)
        if places is None:
            places = self._decided[key] = self._places(*key)
        verdict, result, why = places
        cells, wait = self._cells, self._wait
        bucket = wait + bisect_left(WAIT_BUCKETS, waited)
        with self._lock:
            cells[verdict] += 1.0
            cells[result] += 1.0
            cells[why] += 1.0
            cells[bucket] += 1.0
            cells[wait + _WAIT_SUM] += waited

    def _places(self, rule: str | None, action: str, outcome: Outcome, reason: str) -> tuple[int, int, int]:
        name, at = NO_RULE if rule is None else rule, self._schema.at
        result = at("outcomes", name, LABELS[outcome], self._enforced)
        return at("verdicts", name, action, self._enforced), result, at("reasons", reason, LABELS[outcome])

    def noted(self, rule: str) -> None:
        """Count a recipient for a rule that only takes note."""
        self.counter("verdicts", rule, "none", self._enforced).inc()

    def greylisted(self, state: str, age: float, stored: float) -> None:
        """Count a look-up by its state, the seconds it took, and the age of a triplet that passed."""
        cells = self._cells
        place = self._states.get(state, NOWHERE)
        call = self._stored + bisect_left(STORE_BUCKETS, stored)
        with self._lock:
            cells[place] += 1.0
            cells[call] += 1.0
            cells[self._stored + _STORE_SUM] += stored
            if state == "passed":
                cells[self._delay + bisect_left(DELAY_BUCKETS, age)] += 1.0
                cells[self._delay + _DELAY_SUM] += age

    def store_failed(self) -> None:
        """Count a call of the store that failed."""
        with self._lock:
            self._cells[self._failures] += 1.0

    def scanned(self, seconds: float | None) -> None:
        """Count a message whose score was wanted, and the seconds that it took; None if there is none."""
        with self._lock:
            if seconds is None:
                self._cells[self._scan_failures] += 1.0
                return
            self._cells[self._scan + bisect_left(SCAN_BUCKETS, seconds)] += 1.0
            self._cells[self._scan + _SCAN_SUM] += seconds

    def left_alone(self, now: bool) -> None:
        """Say whether this process leaves the content scanner alone between tries."""
        self._cells[self._left_alone] = float(now)

    def list_answers(self, answers: Iterable[tuple[Labelled, ListAnswer]]) -> None:
        """Count answers of lists, and the seconds that they took if they came at all."""
        cells, lists = self._cells, self._lists
        with self._lock:
            for zone, (codes, error, seconds, silent) in answers:
                listed, unlisted, failed, silences, latency, _, _ = lists.get(zone.label, _NO_LIST)
                if silent:
                    cells[silences] += 1.0
                    continue
                cells[failed if error else listed if codes else unlisted] += 1.0
                cells[latency + bisect_left(LIST_BUCKETS, seconds)] += 1.0
                cells[latency + _LIST_SUM] += seconds

    def list_rejects(self, labels: Set[str], recipients: int) -> None:
        """Count rejected recipients for the blocklists that had their client."""
        alone = len(labels) == 1
        with self._lock:
            for label in labels:
                places = self._lists.get(label, _NO_LIST)
                self._cells[places.sole if alone else places.shared] += recipients
