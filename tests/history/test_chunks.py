"""Verdicts in the store: all of what was recorded comes back, in order, and no more is kept than may be."""

from __future__ import annotations

import contextlib
import random
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from faults.shared import cluster, under_sentinel
from hybridgrey.greylist.triplets import parse_key
from hybridgrey.history import chunkreader, chunks, chunkwriter, layout, recorder
from hybridgrey.history.chunkwriter import ChunkWriter, allowance
from hybridgrey.history.ledger import Ledger
from hybridgrey.history.reader import Reader
from hybridgrey.history.records import Batch
from hybridgrey.history.writer import Writer
from hybridgrey.metrics.ring import packed
from hybridgrey.store.connection import Store
from hybridgrey.store.embedded import EmbeddedServer
from parts.base import LOOPBACK
from parts.redisserver import Redis

NOW = 1_767_225_600.0
WEEK = 7 * 86400
EVER = 1e11


def record(moment: float, **more: object) -> bytes:
    """A record as a worker leaves it."""
    event = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": "b@example.net"}
    return packed(event | {"outcome": "rejected"} | more | {"t": moment, "mx": "mx1"})


def times(found: Iterator[chunks.Record] | list[chunks.Record]) -> list[float]:
    return [chunks.time_of(one) for one in found]


# -- chunks by themselves


@given(st.lists(st.floats(0, 4e9), max_size=40), st.text(max_size=50))
def test_what_is_packed_comes_back(moments: list[float], text: str) -> None:
    """Every record, once, in the order of its time; heads say how many, and no time lies beside them."""
    raw = [record(moment, helo=text, number=number) for number, moment in enumerate(moments)]
    made = chunks.cut(raw)
    assert [chunks.head(one.data) for one in made] == made
    found = [(one, chunk) for chunk in made for one in chunks.unpacked(chunk)]
    assert sorted(str(one) for one, _ in found) == sorted(str(orjson.loads(one)) for one in raw)
    assert times([one for one, _ in found]) == sorted(times([one for one, _ in found]))
    assert all(chunk.first <= chunks.time_of(one) <= chunk.last for one, chunk in found)
    assert all(chunk.last - chunk.first <= chunks.SPAN_MAX + 0.01 for chunk in made)


def test_a_text_cannot_pose_as_the_time() -> None:
    """Whatever a client says, the time is the record's own."""
    (chunk,) = chunks.cut([record(NOW, helo='","t":1,"mx":"x', sender=',"t":2,"mx":"')])
    assert (chunk.first, chunk.last) == (NOW, NOW)


def test_many_records_are_several_chunks() -> None:
    """A chunk has some hundred at most, so that none is too large for what reads it."""
    made = chunks.cut([record(NOW + number, x=random.randbytes(300).hex()) for number in range(1200)])
    assert [one.number for one in made] == [500, 500, 200]
    assert max(len(one.data) for one in made) < chunks.CHUNK_MAX


def test_the_dictionary_of_version_1() -> None:
    """Not a byte of it changes, or verdicts of an earlier version could not be read."""
    assert (len(chunks._DICTIONARY), zlib.crc32(chunks._DICTIONARY)) == (3251, 2042972552)


def test_needles() -> None:
    """Records that cannot have them are passed over, none that has them is."""
    (chunk,) = chunks.cut([record(NOW, sender="Joe@Example.org"), record(NOW + 1), record(NOW + 2)])
    assert times(list(chunks.unpacked(chunk, [[b"joe@example.org"]]))) == [NOW]
    assert times(list(chunks.unpacked(chunk, [[b"joe@", b"a@example"], [b"b@example.net"]]))) == [
        NOW,
        NOW + 1,
        NOW + 2,
    ]
    assert list(chunks.unpacked(chunk, [[b"nobody"]])) == []


def bomb() -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, chunks._DICTIONARY)
    return deflate.compress(b" " * 100_000_000) + deflate.flush()


def squeezed(raw: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, chunks._DICTIONARY)
    return deflate.compress(raw) + deflate.flush()


HOSTILE = [
    b"",
    b"1",
    b"1 1 1 1 ",
    b"2 1 1 1 x",
    b"1 0 1 1 x",
    b"1 999999 1 1 x",
    b"1 1 5 1 x",
    b"1 1 nan nan x",
    b"1 1 1e9 1e9 x",
    b"1 1 1 1 " + random.Random(1).randbytes(2000),
    b"1 5 1.0 2.0 " + squeezed(b'null\n[]\n{}\n{"t":"x"}\n{"t":NaN}\n{"t":1e999}\n' + b"[" * 5000),
    b"1 500 1 2 " + squeezed(b"\n" * 1_000_000),
    b"1 1 0 1 " + bomb(),
    b"x" * 600_000,
]


def test_hostile_chunks() -> None:
    """Nothing comes of them, and no memory goes into them."""
    for one in HOSTILE:
        chunk = chunks.head(one)
        assert chunk is None or list(chunks.unpacked(chunk)) == []


# -- in a store


def fill(writer: ChunkWriter, made: list[chunks.Chunk], now: float = NOW, most: int = 2**26) -> None:
    """Write all of them."""
    while made:
        number, _ = writer.write(made, now, most)
        made = made[number:]


def shuffled(hosts: int, number: int) -> dict[str, list[float]]:
    """Times of verdicts of some hosts."""
    mess = random.Random(7)
    return {
        f"mx{host}": sorted(round(NOW - mess.random() ** 5 * 80_000, 3) for _ in range(number))
        for host in range(hosts)
    }


def write_overlapping(store: Store, all_of_them: dict[str, list[float]]) -> None:
    """In chunks that overlap, as rings are read one after another."""
    for host, moments in all_of_them.items():
        some = moments[:]
        for at in range(0, len(some) - 7, 7):
            if some[at + 5] - some[at] < 4:
                some[at], some[at + 5] = some[at + 5], some[at]
        for at in range(0, len(some), 40):
            fill(
                ChunkWriter(store, host, WEEK),
                chunks.cut([record(one, mx=host) for one in some[at : at + 40]]),
            )


SPANS = [(0.0, EVER), (NOW - 40_000, NOW - 30_000), (NOW - 40_000, NOW - 39_999), (NOW, EVER), (0.0, 1.0)]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(("since", "until"), SPANS)
def test_all_hosts_in_order(store: Store, since: float, until: float, newest_first: bool) -> None:
    """Those of a time, all of them, by time, forwards and backwards."""
    wanted = shuffled(3, 900)
    write_overlapping(store, wanted)
    found = times(chunkreader.records(store, list(wanted), since, until, newest_first=newest_first))
    every = sorted(one for moments in wanted.values() for one in moments if since <= one <= until)
    assert found == (every[::-1] if newest_first else every)
    assert all(
        times(chunkreader.records(store, [host], 0, EVER)) == moments for host, moments in wanted.items()
    )


def test_many_chunks_of_one_moment(store: Store) -> None:
    """A reader that goes on where it ended leaves out none that have the same time."""
    for number in range(150):
        fill(ChunkWriter(store, "mx1", WEEK), chunks.cut([record(NOW, number=number)]))
    found = list(chunkreader.records(store, ["mx1"], 0, EVER))
    assert sorted(str(one["number"]) for one in found) == sorted(map(str, range(150)))


def test_a_call_that_is_repeated(store: Store) -> None:
    """Nothing is there twice, nor counted twice."""
    made = chunks.cut([record(NOW), record(NOW + 1)])
    writer = ChunkWriter(store, "mx1", WEEK)
    assert writer.write(made, NOW) == writer.write(made, NOW)
    assert chunkreader.kept(store, "mx1") == (writer.write([], NOW)[1], NOW)
    assert writer.write([], NOW)[1].number == 2


def test_bounded_in_time(store: Store, server: Redis) -> None:
    """What is older than it may be goes at the next write, and all of it when nobody writes any more."""
    writer = ChunkWriter(store, "mx1", 3600)
    for minute in range(180):
        now = NOW + 60 * minute
        fill(writer, chunks.cut([record(now)]), now)
    found = times(chunkreader.records(store, ["mx1"], 0, EVER))
    assert found == [NOW + 60 * minute for minute in range(119, 180)]
    assert writer.write([], now)[1].number == 61
    with server.client() as client:
        for key in layout.verdict_keys("mx1"):
            assert 3500 < client.ttl(key) <= 3600


def test_bounded_in_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go."""
    monkeypatch.setattr(chunkwriter, "NUMBER_MAX", 1000)
    writer = ChunkWriter(store, "mx1", WEEK)
    for at in range(30):
        fill(writer, chunks.cut([record(NOW + 100 * at + one) for one in range(100)]))
    assert writer.write([], NOW)[1].number == 1000
    assert times(chunkreader.records(store, ["mx1"], 0, EVER))[0] == NOW + 2000


def test_bounded_in_size(store: Store, server: Redis) -> None:
    """So is what it takes in the server, which is what we think; a smaller bound takes effect bit by bit."""
    writer = ChunkWriter(store, "mx1", WEEK)
    with server.client() as client:
        before = client.info("memory")["used_memory"]
        for at in range(0, 60_000, 100):
            some = [record(NOW + at + n, x=random.randbytes(150).hex()) for n in range(100)]
            fill(writer, chunks.cut(some), NOW + at, 4 * 2**20)
        size = writer.write([], NOW, 4 * 2**20)[1]
        used = client.info("memory")["used_memory"] - before
    assert 3 * 2**20 < size.bytes <= 4 * 2**20
    assert used == pytest.approx(size.bytes, rel=0.35)
    assert size.number == len(list(chunkreader.records(store, ["mx1"], 0, EVER)))
    for _ in range(5):
        size = writer.write([], NOW, 2**20)[1]
    assert size.bytes <= 2**20


ALLOWED = [
    # used, limit in MiB, hosts; MiB
    (0, 0, 1, 64),
    (1, 32, 1, 4),
    (1, 128, 1, 16),
    (1, 128, 4, 4),
    (100, 128, 1, 4),
    (100, 4096, 1, 64),
    (1, 128, 0, 16),
]


@pytest.mark.parametrize(("used", "limit", "hosts", "mib"), ALLOWED)
def test_what_may_be_taken_of_a_small_store(used: int, limit: int, hosts: int, mib: int) -> None:
    """An eighth for all hosts, and a quarter of that when the store fills: triplets need the room."""
    assert allowance(used * 2**20, limit * 2**20, hosts) == mib * 2**20


def test_nothing_is_kept(store: Store, server: Redis) -> None:
    """Cleared it is gone, and with 0 seconds nothing stays; nothing of other hosts is touched."""
    for host in ("mx1", "mx2"):
        fill(ChunkWriter(store, host, WEEK), chunks.cut([record(NOW)]))
    ChunkWriter(store, "mx1", WEEK).clear()
    assert set(server.keys()) == set(layout.verdict_keys("mx2"))
    ChunkWriter(store, "mx2", 0).write(chunks.cut([record(NOW)]), NOW)
    assert server.keys() == []


def test_keys_of_any_name() -> None:
    """Both keys of a host are in one slot of a cluster, none is a triplet's, no two hosts share one."""
    names = ["mx1", "a:b%c {d}\n\x7f*ü", "}", "{", "mx1:size", "", "host=mx1"]
    keys = [layout.verdict_keys(name) for name in names]
    assert len({key for pair in keys for key in pair}) == 2 * len(names)
    for pair in keys:
        assert len({key_slot(key) for key in pair}) == 1
        assert all(b"{host=" in key and not parse_key(key) for key in pair)
    assert len({key_slot(pair[0]) for pair in keys}) > 1


def test_hostile_content(store: Store, server: Redis) -> None:
    """Whatever others have written is passed over, forwards and backwards, and ours is found beside it."""
    wanted = [NOW + number for number in range(300)]
    fill(ChunkWriter(store, "mx1", WEEK), chunks.cut([record(one) for one in wanted]))
    whole, size = layout.verdict_keys("mx1")
    with server.client() as client:
        for number, one in enumerate(HOSTILE):
            client.zadd(whole, {one: NOW + number})
        client.zadd(whole, {b"inf": "inf", b"-inf": "-inf", b"same": NOW, b"1 1 0 9 ": 0})
        client.hset(size, mapping={"bytes": "many", "number": "-5"})
    for newest_first in (False, True):
        found = times(chunkreader.records(store, ["mx1"], 0, EVER, newest_first=newest_first))
        assert found == (wanted[::-1] if newest_first else wanted)
    assert chunkreader.kept(store, "mx1").size == (0, 0)
    fill(ChunkWriter(store, "mx1", WEEK), chunks.cut([record(NOW + 500)]))
    assert times(chunkreader.records(store, ["mx1"], NOW + 400, EVER)) == [NOW + 500]


@pytest.mark.parametrize("kind", ["set", "hash", "list"])
def test_another_type(store: Store, server: Redis, kind: str) -> None:
    """A key of another type has no verdicts, and begins anew with the next."""
    whole, size = layout.verdict_keys("mx1")
    with server.client() as client:
        for key in (whole, size):
            {
                "set": lambda: client.sadd(key, "x"),  # noqa: B023 (called at once)
                "hash": lambda: client.hset(key, "x", "y"),  # noqa: B023
                "list": lambda: client.rpush(key, "x"),  # noqa: B023
            }[kind]()
    assert list(chunkreader.records(store, ["mx1"], 0, EVER)) == []
    assert chunkreader.kept(store, "mx1").since is None
    fill(ChunkWriter(store, "mx1", WEEK), chunks.cut([record(NOW)]))
    assert chunkreader.kept(store, "mx1").size.number == 1


def test_a_chunk_that_pretends_to_be_everywhere(store: Store, server: Redis) -> None:
    """Others' chunks that span years do not hold up what is ours, nor gather it in memory."""
    with server.client() as client:
        for number in range(50):
            raw = b"\n".join(record(NOW + at * 10.0) for at in range(500))
            client.zadd(
                layout.verdict_keys("mx1")[0],
                {b"1 500 0 99999999999 " + squeezed(b'{"t":1,"n":%d}\n' % number + raw): NOW + number},
            )
    held = []
    for one in chunkreader.records(store, ["mx1"], 0, EVER):
        held.append(one)
    assert len(held) == 50 * 500


def test_in_a_cluster() -> None:
    """Hosts are spread over the shards; each is written to and read as in one server."""
    with cluster() as nodes, contextlib.closing(Store.open(nodes.url, 5.0)) as store:
        for number in range(8):
            fill(ChunkWriter(store, f"mx{number}", WEEK), chunks.cut([record(NOW + number)]))
            Writer(store, f"mx{number}", f"w{number}").write(1, Batch(), NOW)
        reader = Reader(store)
        assert times(reader.verdicts(0, EVER)) == [NOW + number for number in range(8)]
        assert {one.size.number for one in reader.kept().values()} == {1}


def test_embedded(tmp_path: Path) -> None:
    """The embedded server keeps them, over a restart."""
    server = EmbeddedServer(tmp_path / "store")
    server.start()
    try:
        with contextlib.closing(Store.open(server.url, 5.0)) as store:
            fill(ChunkWriter(store, "mx1", WEEK), chunks.cut([record(NOW), record(NOW + 1)]))
        server.stop()
        server.start()
        with contextlib.closing(Store.open(server.url, 5.0)) as store:
            assert times(chunkreader.records(store, ["mx1"], 0, EVER)) == [NOW, NOW + 1]
    finally:
        server.stop()


def test_under_sentinel() -> None:
    """Written to the primary that Sentinel names, and read from it."""
    with under_sentinel() as (_, _, sentinel):
        url = f"sentinel://{LOOPBACK}:{sentinel.port}/mymaster/0"
        with contextlib.closing(Store.open(url, 5.0)) as store:
            fill(ChunkWriter(store, "mx1", WEEK), chunks.cut([record(NOW)]))
            assert times(chunkreader.records(store, ["mx1"], 0, EVER)) == [NOW]


# -- the ledger


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away the oldest go first, and are counted."""
    from hybridgrey.history import ledger

    monkeypatch.setattr(ledger, "WAITING_MAX", 100_000)
    book = Ledger("w")
    for number in range(6000):
        book.verdict(record(NOW + number), "2026-01-01", [], kept=True)
    book.pack()
    assert sum(len(one.data) for one in book.chunks) <= 100_000
    assert book.dropped + sum(one.number for one in book.chunks) == 6000
    assert book.chunks[-1].last == NOW + 5999
    assert Ledger.load(book.dump()) == book


def test_a_verdict_is_in_the_store_in_time() -> None:
    """A look at the rings and the longest pause together are less than what is promised."""
    assert recorder._LOOK + recorder.SHIP * (1 + recorder._JITTER) < 15 - 1
    assert time.time() > NOW
