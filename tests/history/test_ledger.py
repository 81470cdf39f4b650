"""The ledger: counts under the time they were made, cut into batches that never change, within bounds."""

from __future__ import annotations

import random
from collections import Counter

import orjson
import pytest

from hybridgrey.history import layout, ledger
from hybridgrey.history.layout import Step
from hybridgrey.history.ledger import Ledger
from hybridgrey.history.records import Mark
from hybridgrey.metrics.journal import SIZE
from hybridgrey.metrics.ring import packed

EVENT = {"client": "192.0.2.7", "sender": "a@example.org", "outcome": "reject", "mx": "mx1"}


def entered(book: Ledger, totals: dict[int, float], moment: float) -> None:
    """Enter totals of cells, each of a series named by its number."""
    book.count([(cell, (f"s{cell}",)) for cell in totals], totals.__getitem__, moment)


def test_counts_go_under_the_time_they_were_made() -> None:
    """Only what was added counts, under the minute, hour and day of its moment."""
    book = Ledger("w")
    entered(book, {1: 5.0, 2: 0.0}, 119.0)
    entered(book, {1: 5.0, 2: 0.0}, 121.0)
    entered(book, {1: 7.5, 2: 1.0}, 3600.0)
    assert book.counts == {
        (Step.MINUTE, 60): {"s1": 5},
        (Step.HOUR, 0): {"s1": 5},
        (Step.DAY, 0): {"s1": 7, "s2": 1},
        (Step.MINUTE, 3600): {"s1": 2, "s2": 1},
        (Step.HOUR, 3600): {"s1": 2, "s2": 1},
    }
    entered(book, {1: 8.0, 2: 1.0}, 3601.0)
    assert book.counts[Step.DAY, 0] == {"s1": 8, "s2": 1}, "halves are not lost"


def test_a_batch_stays_as_it_was_cut() -> None:
    """Until it is written, the same batch is given under the same number, whatever happens meanwhile."""
    book = Ledger("w")
    assert book.cut(private=False) is None
    entered(book, {1: 5.0}, 60.0)
    book.verdict(b"{}", "1970-01-01", [("domain/reject", "example.org")])
    first = book.cut(private=False)
    entered(book, {1: 6.0}, 60.0)
    book.verdict(b"{}", "1970-01-01", [("domain/reject", "example.org")])
    assert book.cut(private=False) is first
    assert first is not None
    assert book.number == 1
    assert first.counts[Step.DAY, 0] == {"s1": 5}
    book.written()
    second = book.cut(private=False)
    assert second is not None
    assert (book.number, second.counts[Step.DAY, 0]) == (2, {"s1": 1})
    assert second.tops == {("1970-01-01", "domain/reject"): {"example.org": 1}}
    book.written()
    assert book.cut(private=False) is None


def test_the_successor_has_it_all() -> None:
    """What is dumped and loaded goes on as if nothing had been."""
    book = Ledger("w")
    entered(book, {1: 5.0, 3: 2.0}, 60.0)
    book.verdict(packed(EVENT | {"t": 5.0}), "1970-01-01", [("domain/reject", "ä\n")], kept=True)
    book.pack()
    assert [one.number for one in book.chunks] == [1]
    book.mark(Mark(1.5, "mx1", "start", "ü"))
    book.cut(private=False)
    entered(book, {1: 9.0, 3: 2.0}, 4000.0)
    book.verdict(packed(EVENT), "1970-01-02", [("network/reject", "192.0.2.0/24")])
    book.mark(Mark(2.5, "mx1", "mode", "observe"))
    book.state.suspended = ["bl.test"]
    assert Ledger.load(book.dump()) == book


def test_a_long_outage_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room the oldest minutes go, then the oldest hours; days stay, as does the present."""
    monkeypatch.setattr(ledger, "CELLS_MAX", 300)
    book = Ledger("w")
    for minute in range(3 * 1440):
        entered(book, {cell: float(minute + 1) for cell in range(4)}, minute * 60.0)
    assert book.cells == sum(map(len, book.counts.values())) <= 300
    assert [book.counts[Step.DAY, day * 86400]["s0"] for day in range(3)] == [1440] * 3
    minutes = sorted(at for step, at in book.counts if step is Step.MINUTE)
    hours = sorted(at for step, at in book.counts if step is Step.HOUR)
    assert minutes
    assert minutes == list(range(minutes[0], 3 * 86400, 60))
    assert hours[-1] == 3 * 86400 - 3600
    assert len(hours) > 20


def test_a_backlog_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage each batch is of bounded size, and together they have all of it."""
    monkeypatch.setattr(ledger, "BATCH_CELLS", 50)
    book = Ledger("w")
    for minute in range(600):
        entered(book, {cell: float(minute + 1) for cell in range(4)}, minute * 60.0)
    found: Counter[str] = Counter()
    while batch := book.cut(private=False):
        assert sum(map(len, batch.counts.values())) < 60
        for (step, _), row in batch.counts.items():
            if step is Step.MINUTE:
                found.update(row)
        book.written()
    assert found == {f"s{cell}": 600 for cell in range(4)}
    assert book.number > 40
    assert book.cells == 0


def test_the_largest_note_fits() -> None:
    """With everything at its bound the note for the successor is one that the journal takes."""
    book = Ledger("w")
    name = "rule:a rule with a name that is not short:reject "
    totals = dict.fromkeys(range(100), 0.0)
    sources = [(cell, (f"{name}{cell}",)) for cell in totals]
    for minute in range(700):
        totals = {cell: value + 1 for cell, value in totals.items()}
        book.count(sources, totals.__getitem__, minute * 60.0)
    assert book.cells > ledger.CELLS_MAX - 200
    for kind in ("network", "domain"):
        for outcome in layout.OUTCOMES:
            book.tops["2026-01-31", f"{kind}/{outcome}"] = {
                f"{i:04}".ljust(100, "x"): 10**6 for i in range(4000)
            }
    for _ in range(2 * ledger.MEMORY_MAX):
        book.verdict(b"x" * 1024, "2026-01-31", [])
    book.cut(private=False)
    for _ in range(ledger.MEMORY_MAX):
        book.verdict(b"x" * 1024, "2026-01-31", [])
    record = {"t": 5.0, "client": "192.0.2.1"}
    while not book.dropped:
        book.verdict(orjson.dumps(record | {"x": random.randbytes(400).hex()}), "2026-01-31", [], kept=True)
    assert sum(len(one.data) for one in book.chunks) > ledger.WAITING_MAX * 0.8
    note = book.dump()
    assert len(note) < SIZE, len(note)


def test_a_new_day_lets_the_tops_of_the_last_one_go() -> None:
    """The day that is over is told to the store once; where nothing is written a few days are kept."""
    book = Ledger("w")
    for day in range(10, 30):
        for number in range(300):
            book.verdict(b"{}", f"2026-01-{day}", [("domain/reject", f"{number}.test")])
    assert sorted({day for day, _ in book.tops}) == [f"2026-01-{day}" for day in range(22, 30)]
    assert {len(row) for (day, _), row in book.tops.items() if day < "2026-01-29"} == {100}
    batch = book.cut(private=False)
    assert batch is not None
    assert batch.over[-1] == "2026-01-28"
