"""What this host has counted and the store does not have yet, in a form that a successor can go on from.

The workers' counters only grow.  `Ledger.count` takes what has been added to them since the last time, under
its minute, hour and day; `cut` makes a batch of it for `writer.Writer`, `written` forgets that batch.  A
batch that was cut stays as it is, under its number, until it is written: sent again, it is the same.  `dump`
and `load` are for the journal.

While the store is away all of it is kept, as far as there is room: then the oldest minutes go, then the
oldest hours; days stay.  The latest verdicts and the day's tops are kept for the page too.  Verdicts for the
store are in chunks, which stay as they are until `stored` says that they are there; the oldest go first.

Pure.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from hybridgrey.history.chunks import MOST_RECORDS, Chunk, cut, head
from hybridgrey.history.layout import Step
from hybridgrey.history.records import DAY_MAX, TODAY_MAX, Batch, Mark, heaviest
from hybridgrey.metrics.ring import Place

CELLS_MAX: Final = 50_000
"""Counts that are kept while the store is away: with 30 series a minute those of a day."""
BATCH_CELLS: Final = 2000
MEMORY_MAX: Final = 1000
MARKS_MAX: Final = 500
WAITING_MAX: Final = 2 * 2**20
"""Bytes of chunks that wait for the store: some 30,000 verdicts."""
DAYS_MAX: Final = 8
"""Days of tops that are kept where the store has none."""

Increments = dict[tuple[Step, int], dict[str, int]]
Tops = dict[tuple[str, str], dict[str, int]]


@dataclass(slots=True)
class Standing:
    """What was so at the last look, so that a change of it can be a mark."""

    policy: dict[str, str] = field(default_factory=dict)
    mode: str = ""
    private: bool = False
    suspended: list[str] = field(default_factory=list)
    failing_since: float = 0.0
    """When the store began to fail; 0 while it serves."""
    down: bool = False


@dataclass(slots=True)
class Ledger:
    """See the module.  `writer` is the name by which the store knows our batches, `number` the last one's."""

    writer: str
    number: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    """Up to where each counter is in the books, by its cell."""
    places: dict[int, Place] = field(default_factory=dict)
    """Up to where each ring has been read, by its slot."""
    state: Standing = field(default_factory=Standing)
    counts: Increments = field(default_factory=dict)
    tops: Tops = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    day: str = ""
    """The day of the newest tops."""
    latest: deque[bytes] = field(default_factory=lambda: deque(maxlen=MEMORY_MAX))
    """The last verdicts, of which the newest `fresh` are in no chunk yet."""
    fresh: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    """Those that the store may not have yet, the oldest first."""
    dropped: int = 0
    """Verdicts that have waited for the store in vain."""
    sent: Batch | None = None
    cells: int = 0
    """Counts in `counts`."""

    def count(
        self, sources: Iterable[tuple[int, tuple[str, ...]]], total: Callable[[int], float], moment: float
    ) -> bool:
        """Enter what was added to the counters until `moment`; whether there was anything."""
        added: list[tuple[str, int]] = []
        for cell, names in sources:
            now = int(total(cell))
            if more := now - self.seen.get(cell, 0):
                self.seen[cell] = now
                added += ((name, more) for name in names)
        if not added:
            return False
        current = [(step, int(moment) // step * step) for step in Step]
        for at in current:
            row = self.counts.setdefault(at, {})
            self.cells -= len(row)
            for name, more in added:
                row[name] = row.get(name, 0) + more
            self.cells += len(row)
        self._shed(current)
        return True

    def _shed(self, current: Sequence[tuple[Step, int]]) -> None:
        """Make room: the finest and oldest counts go."""
        while self.cells > CELLS_MAX:
            shed = min(
                (at for at in self.counts if at[0] is not Step.DAY and at not in current), default=None
            )
            if shed is None:
                return
            self.cells -= len(self.counts.pop(shed))

    def verdict(
        self, record: bytes, day: str, tops: Iterable[tuple[str, str]], *, kept: bool = False
    ) -> None:
        """Enter a verdict.

        tops: kinds of tops, each with the name that it counts for. kept: whether it is for the store.
        """
        self.latest.append(record)
        if kept:
            self.fresh += 1
            if self.fresh >= MOST_RECORDS:
                self.pack()
        if day > self.day:
            self._begin_day(day)
        for kind, name in tops:
            row = self.tops.setdefault((day, kind), {})
            row[name] = row.get(name, 0) + 1
            if len(row) > 2 * TODAY_MAX:
                self.tops[day, kind] = dict(heaviest(row, TODAY_MAX))

    def _begin_day(self, day: str) -> None:
        if self.day:
            self.over.append(self.day)
            del self.over[:-DAYS_MAX]
        self.day = day
        for at, row in list(self.tops.items()):
            self.tops[at] = dict(heaviest(row, DAY_MAX))
        kept = sorted({one for one, _ in self.tops})[1 - DAYS_MAX :]
        self.tops = {at: row for at, row in self.tops.items() if at[0] in kept}

    def pack(self) -> None:
        """Put the fresh verdicts in a chunk; where there are too many chunks the oldest go."""
        if self.fresh:
            self.chunks += cut(list(self.latest)[-self.fresh :])
            self.fresh = 0
        size = sum(len(one.data) for one in self.chunks)
        gone = 0
        while size > WAITING_MAX:
            size -= len(self.chunks[gone].data)
            self.dropped += self.chunks[gone].number
            gone += 1
        del self.chunks[:gone]

    def stored(self, number: int) -> None:
        """So many of the chunks, the oldest, are in the store."""
        del self.chunks[:number]

    def mark(self, mark: Mark) -> None:
        """Enter a notable moment."""
        self.marks.append(mark)
        del self.marks[:-MARKS_MAX]

    def cut(self, *, private: bool) -> Batch | None:
        """The batch to be written now, the one before if that was not; None when there is nothing to say.

        With `private` it has no client, sender or recipient in it.
        """
        if self.sent is None:
            batch = Batch(counts=self._some_counts(), marks=self.marks)
            self.marks = []
            if not private:
                batch.tops, batch.over = self.tops, self.over
                self.tops, self.over = {}, []
            if batch:
                self.sent = batch
                self.number += 1
        return self.sent

    def _some_counts(self) -> Increments:
        """The oldest counts, as many as make a batch."""
        some: Increments = {}
        for at in sorted(self.counts, key=lambda at: at[1]):
            some[at] = self.counts.pop(at)
            self.cells -= len(some[at])
            if sum(map(len, some.values())) >= BATCH_CELLS:
                break
        return some

    def forget_addresses(self) -> None:
        """Keep those from the store that are not there yet: they were or are not meant for it."""
        self.fresh = 0
        self.chunks = []
        self.tops = {}
        if self.sent is not None:
            self.sent.tops = {}

    def written(self) -> None:
        """The batch is in the store."""
        self.sent = None

    @property
    def unwritten(self) -> list[Batch]:
        """What is not in the store, as far as is known."""
        return [*([self.sent] if self.sent else []), Batch(self.counts, self.tops, self.marks)]

    def dump(self) -> bytes:
        """All of it as a note for the successor."""
        return orjson.dumps(
            {
                "writer": self.writer,
                "number": self.number,
                "seen": list(self.seen.items()),
                "places": [(slot, *place) for slot, place in self.places.items()],
                "state": self.state,
                "batch": _dumped(Batch(self.counts, self.tops, self.marks, self.over)),
                "sent": _dumped(self.sent) if self.sent else None,
                "day": self.day,
                "latest": [record.decode("utf-8", "replace") for record in self.latest],
                "fresh": self.fresh,
                "chunks": [b64encode(one.data).decode() for one in self.chunks],
                "dropped": self.dropped,
            }
        )

    @classmethod
    def load(cls, note: bytes) -> Ledger:
        """The ledger of a note of ours."""
        found: dict[str, Any] = orjson.loads(note)
        batch = _loaded(found["batch"])
        return cls(
            writer=found["writer"],
            number=found["number"],
            seen=dict(found["seen"]),
            places={slot: Place(*place) for slot, *place in found["places"]},
            state=Standing(**found["state"]),
            counts=batch.counts,
            tops=batch.tops,
            marks=batch.marks,
            over=batch.over,
            day=found["day"],
            latest=deque((record.encode() for record in found["latest"]), maxlen=MEMORY_MAX),
            fresh=found["fresh"],
            chunks=[one for data in found["chunks"] if (one := head(b64decode(data)))],
            dropped=found["dropped"],
            sent=_loaded(found["sent"]) if found["sent"] else None,
            cells=sum(map(len, batch.counts.values())),
        )


def _dumped(batch: Batch) -> dict[str, object]:
    """A batch as JSON has it, whose tables have texts for keys only."""
    return {
        "counts": [(*at, row) for at, row in batch.counts.items()],
        "tops": [(*at, row) for at, row in batch.tops.items()],
        "marks": batch.marks,
        "over": batch.over,
    }


def _loaded(found: dict[str, Any]) -> Batch:
    return Batch(
        counts={(Step(step), moment): row for step, moment, row in found["counts"]},
        tops={(day, kind): row for day, kind, row in found["tops"]},
        marks=[Mark(**mark) for mark in found["marks"]],
        over=found["over"],
    )
