"""The ring between a worker and the keeper, and the journal between a keeper and the next one."""

from __future__ import annotations

import os
import signal
import threading
import time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.metrics.journal import Journal
from hybridgrey.metrics.ring import RECORD_MAX, Place, Rings, packed
from parts.base import wait_until
from parts.laws import examples

SIZE = 4096


@pytest.fixture
def rings() -> Rings:
    return Rings(2, SIZE)


def written(rings: Rings, *records: bytes, slot: int = 0) -> None:
    writer = rings.writer(slot)
    assert writer is not None
    for record in records:
        writer.write(record)


def test_records_come_in_order_and_once(rings: Rings) -> None:
    """What is written is read once, in its order, by slot."""
    written(rings, b"one", b"two")
    written(rings, b"other", slot=1)
    first = rings.read(0, Place())
    assert first.records == [b"one", b"two"]
    assert rings.read(0, first.place).records == []
    written(rings, b"three")
    assert rings.read(0, first.place).records == [b"three"]
    assert rings.read(1, Place()).records == [b"other"]
    assert rings.lost == 0


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(st.integers(0, RECORD_MAX), max_size=60), st.integers(1, 3))
def test_round_and_round(lengths: list[int], every: int) -> None:
    """Records of any length survive the end of the ring, as long as the reader keeps up."""
    rings, place, found = Rings(1, SIZE), Place(), []
    records = [bytes([number % 256]) * length for number, length in enumerate(lengths)]
    for number, record in enumerate(records):
        written(rings, record)
        if number % every == 0:
            records_read, place = rings.read(0, place)
            found += records_read
    found += rings.read(0, place).records
    assert found == records
    assert rings.lost == 0


def test_a_slow_reader_loses_and_knows_how_many(rings: Rings) -> None:
    """After an overrun the reader goes on with what comes next, and the lost are counted."""
    records = [b"%04d" % number * 50 for number in range(100)]
    written(rings, *records)
    read = rings.read(0, Place())
    written(rings, b"next")
    assert rings.read(0, read.place).records == [b"next"]
    assert rings.lost == 100


def test_a_torn_record_is_dropped(rings: Rings) -> None:
    """A record that does not match its checksum is not given out, nor what follows it in the same look."""
    written(rings, b"one", b"two", b"three")
    at = rings._memory.tobytes().index(b"two")
    rings._memory[at] = ord("T")
    read = rings.read(0, Place())
    assert read.records == [b"one"]
    written(rings, b"four")
    assert rings.read(0, read.place).records == [b"four"]
    assert rings.lost == 2


def test_surplus_processes_have_no_ring(rings: Rings) -> None:
    """A slot that several processes share has no writer."""
    assert rings.writer(2) is None


def test_a_killed_writer() -> None:
    """A writer killed at any moment leaves whole records, and the next in its slot goes on."""
    rings = Rings(1)
    if (pid := os.fork()) == 0:
        writer = rings.writer(0)
        for number in range(100_000):
            assert writer is not None
            writer.write(b"%06d" % number * 20)
            time.sleep(0.0001)
        os._exit(0)
    place = Place()
    seen: list[bytes] = []

    def look() -> list[bytes]:
        nonlocal place
        records, place = rings.read(0, place)
        seen.extend(records)
        return seen

    try:
        wait_until(lambda: len(look()) > 200, "records")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    look()
    written(rings, b"successor")
    assert look()[-1] == b"successor"
    assert all(record == record[:6] * 20 for record in seen[:-1])
    assert seen[:-1] == sorted(set(seen[:-1]))


def test_threads_of_a_writer(rings: Rings) -> None:
    """Threads of one process write whole records, with as many numbers as records."""
    writer = rings.writer(0)
    assert writer is not None
    found: list[bytes] = []
    place = Place()
    threads = [
        threading.Thread(target=lambda: [writer.write(b"x" * 30) for _ in range(300)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        records, place = rings.read(0, place)
        found += records
        time.sleep(0)
    records, place = rings.read(0, place)
    written(rings, b"last")
    found += [*records, *rings.read(0, place).records]
    assert set(found) <= {b"x" * 30, b"last"}
    assert len(found) + rings.lost == 1201


TEXTS = st.text(st.characters(codec=None), max_size=600)


@settings(deadline=None, max_examples=examples(200))
@given(TEXTS, TEXTS, TEXTS, st.dictionaries(TEXTS, st.lists(TEXTS, max_size=40), max_size=40))
def test_any_record_is_bounded_json(sender: str, helo: str, rule: str, lists: dict[str, list[str]]) -> None:
    """Whatever a client says, its record is JSON of bounded length with its client and outcome."""
    record = {"client": "192.0.2.1", "sender": sender, "helo": helo, "rule": rule, "lists": lists}
    record |= {"recipient": sender, "host": helo, "reply": rule, "outcome": "reject", "t": 1.5}
    data = packed(record)
    assert len(data) <= RECORD_MAX
    found = orjson.loads(data)
    assert (found["client"], found["outcome"], found["t"]) == ("192.0.2.1", "reject", 1.5)


def test_the_longest_record_is_bounded() -> None:
    """With the longest texts of the widest characters in all of it a record has what must be in it."""
    names = ("mx", "queue_id", "host", "helo", "sender", "recipient", "rule", "action", "state", "reply")
    record: dict[str, object] = dict.fromkeys(names, "\N{GRINNING FACE}" * 500)
    record |= {"client": "2001:db8:1234:5678:9abc:def0:1234:5678", "outcome": "accept", "t": 1.5}
    record["lists"] = {"\N{GRINNING FACE}" * 100 + str(number): ["127.0.0.2"] * 50 for number in range(100)}
    data = packed(record)
    assert len(data) <= RECORD_MAX
    assert orjson.loads(data)["client"] == record["client"]


def test_an_ordinary_record_is_what_it_was() -> None:
    """A record that fits is not changed."""
    record = {"sender": "ä\\@example.org", "lists": {"bl.test": ["127.0.0.2"]}, "age": None}
    assert orjson.loads(packed(record)) == record


def test_journal_has_the_last_whole_note() -> None:
    """A note is read back by whoever comes next; one that was being written is not."""
    journal = Journal(100)
    assert journal.load() == b""
    assert journal.save(b"one")
    assert journal.save(b"two")
    assert not journal.save(b"x" * 101)
    assert journal.load() == b"two"
    at = journal._memory.tobytes().index(b"two")
    journal._memory[at] = 0
    assert journal.load() == b"one"
    assert journal.save(b"three")
    assert journal.load() == b"three"


def test_journal_has_one_keeper_at_a_time() -> None:
    """While one process has it another has not; when that is killed, the next one goes on."""
    journal = Journal()
    read_end, write_end = os.pipe()
    if (pid := os.fork()) == 0:
        journal.claim()
        journal.load()
        journal.save(b"from the child")
        os.write(write_end, b"R")
        time.sleep(60)
        os._exit(0)
    os.read(read_end, 1)
    taken = journal.claim()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not taken
    assert journal.claim()
    assert journal.load() == b"from the child"
