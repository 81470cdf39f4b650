"""What is counted: cells of shared memory that every process adds to and the keeper reads.

The master makes one ``Shared`` before it forks. Terms:

- *series*: one number (counter, gauge) or one row of buckets (histogram) with its label values, as Prometheus
  has it. A ``series.Schema`` gives each one the index of its first cell, once, when a config is loaded.
- *slot*: the cells of one process. Only that process writes them, so no lock is shared between processes; a
  total is the sum over all slots. A slot keeps its numbers when its process ends, and the next one adds to
  them: totals never go back while the master lives.
- *reload*: ``Shared.renewed`` adds the new config's series behind the old ones. Old and new workers count
  into the same cells for what both have, so there is nothing to merge.

A worker takes its handles once, after the fork: ``meter = shared.meter(slot)``, then ``meter.decided(…)``,
``meter.opened()``. Cells are doubles: exact for counts up to 2**53.
"""

from __future__ import annotations

import mmap
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol
from zlib import crc32

from hybridgrey.journal import Journal
from hybridgrey.ring import Rings
from hybridgrey.series import (
    CAPACITY,
    DELAY_BUCKETS,
    HEALTH,
    LIST_BUCKETS,
    NO_RULE,
    NOWHERE,
    RESULTS,
    STATES,
    STORE_BUCKETS,
    WAIT_BUCKETS,
    Schema,
    flag,
)

# Where a histogram has its sum, seen from its first cell.
_WAIT_SUM = len(WAIT_BUCKETS) + 1
_STORE_SUM = len(STORE_BUCKETS) + 1
_DELAY_SUM = len(DELAY_BUCKETS) + 1
_LIST_SUM = len(LIST_BUCKETS) + 1

ListAnswer = tuple[Sequence[bytes], str, float, bool]
"""What a list said, as `policy.Answer` has it: codes, error, seconds, whether no answer came."""


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


class Counters:
    """The cells: `slots` rows of ``CAPACITY`` doubles in anonymous memory shared over fork."""

    def __init__(self, slots: int) -> None:
        # One row more, shared by the processes that found no free slot: their sums may lose an update.
        self._rows = slots + 1
        self._cells = memoryview(mmap.mmap(-1, self._rows * CAPACITY * 8)).cast("d")
        self._free = list(range(slots - 1, -1, -1))

    def lease(self) -> int:
        """Return a slot for a process about to be forked. Master only."""
        return self._free.pop() if self._free else self._rows - 1

    @property
    def slots(self) -> int:
        """How many processes can have a slot of their own; the surplus ones have this number's."""
        return self._rows - 1

    def release(self, slot: int) -> None:
        """Take back the slot of a process that ended. Its counts stay, its open sessions are gone."""
        self._cells[slot * CAPACITY] = 0.0
        if slot != self._rows - 1:
            self._free.append(slot)

    def row(self, slot: int) -> memoryview[float]:
        """Return the cells of one slot, writable."""
        return self._cells[slot * CAPACITY : (slot + 1) * CAPACITY]

    def total(self, index: int) -> float:
        """Return the sum of one cell over all slots."""
        return sum(self._cells[index::CAPACITY])


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
        self._states = {state: schema.at("greylist", state) for state in STATES}
        self._decided: dict[tuple[str | None, str, str], tuple[int, int]] = {}
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

    def decided(self, rule: str | None, action: str, outcome: str, waited: float) -> None:
        """Count one judged recipient; `rule`: the name, or None when none matched; `waited` in seconds."""
        key = rule, action, outcome
        places = self._decided.get(key)
        if places is None:
            places = self._decided[key] = self._places(*key)
        verdict, result = places
        cells, wait = self._cells, self._wait
        bucket = wait + bisect_left(WAIT_BUCKETS, waited)
        with self._lock:
            cells[verdict] += 1.0
            cells[result] += 1.0
            cells[bucket] += 1.0
            cells[wait + _WAIT_SUM] += waited

    def _places(self, rule: str | None, action: str, outcome: str) -> tuple[int, int]:
        name, at = NO_RULE if rule is None else rule, self._schema.at
        return at("verdicts", name, action, self._enforced), at("outcomes", name, outcome, self._enforced)

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


class Flags:
    """A byte for each zone, 1 while it is suspended, and one for its health: written by the prober.

    A worker asks ``flags.index(zone)`` once and then reads ``flags.view[index]``.
    """

    def __init__(self, zones: Iterable[tuple[str, str]]) -> None:
        pairs = dict(zones)
        self.labels = tuple(pairs.values())
        """The label of each zone, in the order of the bytes."""
        self._index = {zone: index for index, zone in enumerate(pairs)}
        self.view: memoryview[int] = memoryview(mmap.mmap(-1, max(1, len(pairs))))
        self.health: memoryview[int] = memoryview(mmap.mmap(-1, max(1, len(pairs))))
        """The place of each zone's state in ``series.HEALTH``."""

    def index(self, zone: str) -> int:
        """Return a zone's place in ``view``; KeyError for a zone the config does not name."""
        return self._index[zone]

    def set(self, zone: str, suspended: bool) -> None:
        """Suspend a zone or let it vote again. Prober only."""
        self.view[self._index[zone]] = suspended

    def suspended(self) -> Mapping[str, bool]:
        """Return each label with whether any zone under it is suspended."""
        found: dict[str, bool] = {}
        for label, byte in zip(self.labels, self.view, strict=False):  # the memory has one byte at least
            found[label] = found.get(label, False) or bool(byte)
        return found

    def states(self) -> Mapping[str, str]:
        """Return each label with the worst state of a zone under it."""
        found: dict[str, int] = {}
        for label, byte in zip(self.labels, self.health, strict=False):
            found[label] = max(found.get(label, 0), byte)
        return {label: HEALTH[worst] for label, worst in found.items()}


class Board:
    """What the master tells the keeper: workers alive and wanted, is it ready, how the last reload went."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 40)).cast("d")
        self.started = time.time()
        """When the daemon started, Unix seconds; a reload keeps the board, and with it the time."""
        self.set_reload_ok(True)

    def set_workers(self, alive: int, wanted: int) -> None:
        """Say how many workers take connections (draining ones excluded) and how many there should be."""
        self._cells[0], self._cells[1] = alive, wanted

    def set_ready(self, ready: bool) -> None:
        """Say whether connections are accepted: true once the workers run, false while stopping."""
        self._cells[2] = ready

    def set_reload_ok(self, ok: bool) -> None:
        """Say whether the last reload went well; a failed one leaves the old configuration in effect."""
        self._cells[3] = ok

    def served(self, address: str) -> bool:
        """Note where metrics are served; whether that is new. Keeper only."""
        mark = float(crc32(address.encode()) + 1)  # no cell holds a text; 0 is none yet
        known, self._cells[4] = self._cells[4] == mark, mark
        return not known

    @property
    def alive(self) -> int:
        """Workers that take connections."""
        return int(self._cells[0])

    @property
    def wanted(self) -> int:
        """Workers there should be."""
        return int(self._cells[1])

    @property
    def ready(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._cells[2])

    @property
    def reload_ok(self) -> bool:
        """Whether the last reload went well; true before the first."""
        return bool(self._cells[3])


@dataclass(frozen=True)
class Shared:
    """All shared memory of one config, made by the master before it forks that config's processes."""

    schema: Schema
    counters: Counters
    board: Board
    flags: Flags
    rings: Rings
    journal: Journal
    enforced: bool = True

    @classmethod
    def create(
        cls,
        rules: Sequence[tuple[str, str]],
        zones: Sequence[tuple[str, str]],
        *,
        enforced: bool = True,
        workers: int = 2,
    ) -> Shared:
        """Make the memory of a daemon that starts.

        rules: (name, action) pairs; zones: (zone, label) pairs; enforced: not in observe mode; workers: how
        many there will be, which sizes the slots, with room for the old workers of several reloads.
        """
        schema = Schema.build(rules, (label for _zone, label in zones), enforced=enforced)
        counters = Counters(max(32, 4 * workers + 4))
        return cls(schema, counters, Board(), Flags(zones), Rings(counters.slots), Journal(), enforced)

    def renewed(
        self, rules: Sequence[tuple[str, str]], zones: Sequence[tuple[str, str]], *, enforced: bool = True
    ) -> Shared:
        """Return the memory for a reloaded config: the same, but for a longer schema and new flags."""
        labels = (label for _zone, label in zones)
        schema = Schema.build(rules, labels, enforced=enforced, before=self.schema)
        return replace(self, schema=schema, flags=Flags(zones), enforced=enforced)

    def meter(self, slot: int) -> Meter:
        """Return the handles of the process that holds `slot`; call it in that process."""
        return Meter(self.schema, self.counters.row(slot), enforced=self.enforced)
