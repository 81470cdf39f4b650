"""What is counted: cells of shared memory that every process adds to and the keeper reads.

The master makes one ``Shared`` before it forks. Terms:

- *series*: one number (counter, gauge) or one row of buckets (histogram) with its label values, as Prometheus
  has it. A ``series.Schema`` gives each one the index of its first cell, once, when a config is loaded.
- *slot*: the cells of one process. Only that process writes them, so no lock is shared between processes; a
  total is the sum over all slots. A slot keeps its numbers when its process ends, and the next one adds to
  them: totals never go back while the master lives.
- *reload*: ``Shared.renewed`` adds the new config's series behind the old ones. Old and new workers count
  into the same cells for what both have, so there is nothing to merge.

A worker takes its handles once, after the fork: ``meter = shared.meter(slot)``, then ``meter.verdict(…)``,
``meter.store_seconds.observe(…)``. Cells are doubles: exact for counts up to 2**53.
"""

from __future__ import annotations

import mmap
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from hybridgrey.series import CAPACITY, FAMILIES, NO_RULE, Key, Schema, flag


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


class Gauge(Counter):
    """One cell that may also be set; a process's own share of the whole."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Set this process's share to `value`."""
        self._cells[self._index] = value


class Histogram:
    """A row of cells: counts by upper bound (not yet cumulated), above the last bound, and the sum."""

    __slots__ = ("_bounds", "_cells", "_index", "_lock")

    def __init__(
        self, cells: memoryview[float], index: int, lock: threading.Lock, bounds: tuple[float, ...]
    ) -> None:
        self._cells = cells
        self._index = index
        self._lock = lock
        self._bounds = bounds

    def observe(self, value: float) -> None:
        """Count one observation, in the family's unit (seconds)."""
        index = self._index
        bucket = index + bisect_left(self._bounds, value)
        with self._lock:
            self._cells[bucket] += 1.0
            self._cells[index + len(self._bounds) + 1] += value


class Meter:
    """One process's handles to everything it counts. Made once, after the fork.

    ``counter`` and ``histogram`` give the handle of one series, to be kept; ``verdict``, ``list_answer`` and
    ``greylisted`` look it up by the labels of the event. None of them raises for labels nobody foresaw.
    """

    def __init__(self, schema: Schema, cells: memoryview[float], *, enforced: bool = True) -> None:
        self._schema = schema
        self._cells = cells
        self._lock = threading.Lock()
        self._enforced = flag(enforced)
        self._made: dict[Key, Counter] = {}
        self._timed: dict[str, Histogram] = {}
        self.sessions_open = Gauge(cells, schema.at("sessions_open"), self._lock)
        self.sessions = self.counter("sessions")
        self.rcpt_wait = self.histogram("rcpt_wait_seconds")
        self.greylist_delay = self.histogram("greylist_delay_seconds")
        self.store_seconds = self.histogram("store_seconds")
        self.store_failures = self.counter("store_failures")
        for family, labels in schema.index:
            if FAMILIES[family].kind == "counter":
                self._made[family, labels] = self.counter(family, *labels)
            elif family == "list_latency_seconds":
                self._timed[labels[0]] = self.histogram(family, *labels)
        self._nowhere = Counter(cells, CAPACITY - 1, self._lock)

    def counter(self, family: str, *labels: str) -> Counter:
        """Return the handle of one counter."""
        return Counter(self._cells, self._schema.at(family, *labels), self._lock)

    def histogram(self, family: str, *labels: str) -> Histogram:
        """Return the handle of one histogram."""
        bounds = FAMILIES[family].buckets
        return Histogram(self._cells, self._schema.at(family, *labels), self._lock, bounds)

    def verdict(self, rule: str | None, action: str) -> None:
        """Count one judged recipient; `rule`: the name, or None when none matched."""
        key = ("verdicts", (NO_RULE if rule is None else rule, action, self._enforced))
        self._made.get(key, self._nowhere).inc()

    def list_answer(self, label: str, result: str, seconds: float | None = None) -> None:
        """Count one answer of a list: one of ``RESULTS``, and the seconds it took if it came at all."""
        self._made.get(("list_answers", (label, result)), self._nowhere).inc()
        if seconds is not None and (timed := self._timed.get(label)) is not None:
            timed.observe(seconds)

    def greylisted(self, state: str, age: float | None = None) -> None:
        """Count one look-up by its state (one of ``STATES``), and the delay suffered when it passed."""
        self._made.get(("greylist", (state,)), self._nowhere).inc()
        if state == "passed" and age is not None:
            self.greylist_delay.observe(age)


class Flags:
    """One byte for each zone, 1 while it is suspended: written by the prober, read by the workers.

    A worker asks ``flags.index(zone)`` once and then reads ``flags.view[index]``.
    """

    def __init__(self, zones: Iterable[tuple[str, str]]) -> None:
        pairs = dict(zones)
        self.labels = tuple(pairs.values())
        """The label of each zone, in the order of the bytes."""
        self._index = {zone: index for index, zone in enumerate(pairs)}
        self.view: memoryview[int] = memoryview(mmap.mmap(-1, max(1, len(pairs))))

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
        return cls(schema, Counters(max(32, 4 * workers + 4)), Board(), Flags(zones), enforced)

    def renewed(
        self, rules: Sequence[tuple[str, str]], zones: Sequence[tuple[str, str]], *, enforced: bool = True
    ) -> Shared:
        """Return the memory for a reloaded config: same counters and board, longer schema, new flags."""
        labels = (label for _zone, label in zones)
        schema = Schema.build(rules, labels, enforced=enforced, before=self.schema)
        return Shared(schema, self.counters, self.board, Flags(zones), enforced)

    def meter(self, slot: int) -> Meter:
        """Return the handles of the process that holds `slot`; call it in that process."""
        return Meter(self.schema, self.counters.row(slot), enforced=self.enforced)
