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
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from zlib import crc32

from hybridgrey.metrics.journal import Journal
from hybridgrey.metrics.meter import Meter
from hybridgrey.metrics.ring import Rings
from hybridgrey.metrics.series import (
    CAPACITY,
    HEALTH,
    NO_LIST_WORKS,
    PASSING,
    SCANNER_DOWN,
    Schema,
    none_works,
)


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
        for index in range(PASSING):
            self._cells[slot * CAPACITY + index] = 0.0
        if slot != self._rows - 1:
            self._free.append(slot)

    def row(self, slot: int) -> memoryview[float]:
        """Return the cells of one slot, writable."""
        return self._cells[slot * CAPACITY : (slot + 1) * CAPACITY]

    def total(self, index: int) -> float:
        """Return the sum of one cell over all slots."""
        return sum(self._cells[index::CAPACITY])


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

    @property
    def none_works(self) -> bool:
        """Whether no list can have a say."""
        return none_works(HEALTH[byte] for byte in self.health[: len(self.labels)])


class Pooled(NamedTuple):
    """Pools of senders: domains that rules name, of which so many were never resolved; networks of all.

    `oldest`: when the one that was resolved longest ago was, Unix seconds, 0 for none.  `problems`: domains
    whose last answer was a failure or a bad record.
    """

    domains: int
    unknown: int
    networks: int
    oldest: float
    problems: int


class Scanning(NamedTuple):
    """The content scanner as the workers have found it, Unix seconds.

    `worked`: when it last gave a score, 0 for never; `since`: when the failures began that have gone on since
    then, 0 while there are none.
    """

    worked: float
    since: float


class Board:
    """What the master tells the keeper: workers alive and wanted, is it ready, how the last reload went.

    And what is found by one process, and told by the keeper: pools, store, scanner.
    """

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 168)).cast("d")
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
        if ok:
            self._cells[9] = time.time()

    def set_store_memory(self, used: int, limit: int) -> None:
        """Say how many bytes the store uses, and of how many (0: no limit, or unknown). Keeper only."""
        self._cells[5], self._cells[6] = used, limit

    @property
    def store_memory(self) -> tuple[int, int]:
        """Bytes that the store uses, and the most it may; 0 for what is unknown."""
        return int(self._cells[5]), int(self._cells[6])

    def set_store(self, serves: bool, keys: int) -> None:
        """Say whether every part of the store serves, and how many keys it has (-1: unknown). Keeper only."""
        self._cells[7], self._cells[8] = (1 if serves else -1), keys

    @property
    def store_up(self) -> bool | None:
        """Whether the store serves; None before the first look."""
        return None if self._cells[7] == 0 else self._cells[7] > 0

    @property
    def store_keys(self) -> int | None:
        """Keys in the store, None while they are unknown."""
        return int(self._cells[8]) if self.store_up and self._cells[8] >= 0 else None

    def set_pools(self, *, domains: int, unknown: int, networks: int, oldest: float, problems: int) -> None:
        """Say what is known of the pools (`Pooled`). Keeper only."""
        self._cells[10], self._cells[11], self._cells[12] = domains, unknown, networks
        self._cells[13], self._cells[14] = oldest, problems

    @property
    def pools(self) -> Pooled:
        """What is known of the pools; all 0 where rules name none."""
        domains, unknown, networks, oldest, problems = self._cells[10:15]
        return Pooled(int(domains), int(unknown), int(networks), oldest, int(problems))

    def set_verdicts(self, size: int, number: int) -> None:
        """Say what the verdicts of this host take in the store: bytes, and how many. Keeper only."""
        self._cells[15], self._cells[16] = size, number

    def set_dropped(self, number: int) -> None:
        """Say how many verdicts have waited for the store in vain. Keeper only."""
        self._cells[17] = number

    @property
    def verdicts(self) -> tuple[int, int]:
        """Bytes that the verdicts of this host take in the store, and how many there are."""
        return int(self._cells[15]), int(self._cells[16])

    @property
    def dropped(self) -> int:
        """Verdicts that have waited for the store in vain."""
        return int(self._cells[17])

    def scans_with(self, place: str) -> None:
        """Say which content scanner rules ask, "" for none; of a new one nothing is known. Master only."""
        mark = _mark(place) if place else 0.0
        if mark != self._cells[18]:
            self._cells[18], self._cells[19], self._cells[20] = mark, 0.0, 0.0

    def scanned(self, worked: bool) -> None:
        """Say whether the scanner gave a score. Any worker; they need no lock, for the last word counts."""
        if worked:
            self._cells[19], self._cells[20] = time.time(), 0.0
        elif not self._cells[20]:
            self._cells[20] = time.time()

    @property
    def scanning(self) -> Scanning | None:
        """How the scanner is; None where no rule asks one."""
        return Scanning(self._cells[19], self._cells[20]) if self._cells[18] else None

    def served(self, address: str) -> bool:
        """Note where metrics are served; whether that is new. Keeper only."""
        mark = _mark(address)
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
    def loaded(self) -> float:
        """When the configuration in effect was taken, Unix seconds."""
        return self._cells[9]

    @property
    def reload_ok(self) -> bool:
        """Whether the last reload went well; true before the first."""
        return bool(self._cells[3])


def _mark(text: str) -> float:
    """What stands for a text in a cell; never 0."""
    return float(crc32(text.encode()) + 1)


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

    @property
    def scanner_up(self) -> bool | None:
        """Whether the content scanner works; None where none is asked, and before the first answer.

        A failure or two say little: it is down once a worker leaves it alone, until one has a score again.
        """
        found = self.board.scanning
        if found is None or not any(found):
            return None
        return not (found.since and self.counters.total(self.schema.at("scanner_left_alone")))

    @property
    def notes(self) -> list[str]:
        """What does not work though the daemon is well (`series.NOTES`)."""
        lists = [NO_LIST_WORKS] if self.flags.none_works else []
        return lists + ([SCANNER_DOWN] if self.scanner_up is False else [])

    def meter(self, slot: int) -> Meter:
        """Return the handles of the process that holds `slot`; call it in that process."""
        return Meter(self.schema, self.counters.row(slot), enforced=self.enforced)
