"""The history in real servers: what is written once is there once, whatever is asked is bounded."""

from __future__ import annotations

import contextlib
import random
import time
from calendar import timegm
from collections import Counter
from pathlib import Path

import pytest
from redis.crc import key_slot

from faults.shared import cluster
from hybridgrey.greylist.triplets import parse_key
from hybridgrey.history import layout, records
from hybridgrey.history import reader as reader_module
from hybridgrey.history.layout import Step
from hybridgrey.history.reader import Reader
from hybridgrey.history.records import TOPS, Batch, Mark
from hybridgrey.history.writer import Writer
from hybridgrey.store.connection import Store, StoreError
from hybridgrey.store.embedded import EmbeddedServer
from parts.base import wait_until
from parts.redisserver import Redis

NOW = float(timegm((2026, 1, 31, 23, 59, 30)))
"""The last half minute of a month."""


def counted(series: str, count: int, moment: float = NOW) -> Batch:
    """A batch with a count of one series by minute, hour and day."""
    return Batch(counts={(step, int(moment) // step * step): {series: count} for step in Step})


def full(moment: float = NOW) -> Batch:
    """A batch with something of everything."""
    batch = counted("sessions", 3, moment)
    batch.tops[layout.day(moment), "network/reject"] = {"192.0.2.0/24": 4, "2001:db8::/64": 1}
    batch.marks = [Mark(moment, "mx1", "start", "enforce")]
    return batch


def everything(reader: Reader) -> object:
    """All that a reader has to say."""
    span = NOW - 86400, NOW + 86400
    counts = [reader.counts(*span, step) for step in Step]
    return reader.hosts(), counts, reader.marks(*span), reader.tops(*span)


def test_a_batch_counts_by_minute_hour_and_day(store: Store) -> None:
    """A count is found under its minute, its hour and its day, each with the first second of it."""
    Writer(store, "mx1", "one").write(1, counted("list:bl.test:listed", 7), NOW)
    reader = Reader(store)
    wanted = {
        Step.MINUTE: (2026, 1, 31, 23, 59, 0),
        Step.HOUR: (2026, 1, 31, 23, 0, 0),
        Step.DAY: (2026, 1, 31, 0, 0, 0),
    }
    for step, at in wanted.items():
        assert reader.counts(NOW - 5, NOW, step) == {"list:bl.test:listed": {timegm(at): 7}}


def test_a_batch_sent_twice_counts_once(store: Store) -> None:
    """Whether the answer to a batch was lost or not, it is there once; another number or writer adds."""
    writer, reader = Writer(store, "mx1", "one"), Reader(store)
    writer.write(1, full(), NOW)
    once = everything(reader)
    writer.write(1, full(), NOW)
    assert everything(reader) == once
    writer.write(2, full(), NOW)
    writer.write(1, full(), NOW)
    assert reader.counts(NOW, NOW, Step.DAY)["sessions"].popitem()[1] == 6
    Writer(store, "mx1", "two").write(1, full(), NOW)
    assert reader.counts(NOW, NOW, Step.DAY)["sessions"].popitem()[1] == 9
    assert reader.tops(NOW, NOW)["network/reject"] == [("192.0.2.0/24", 12), ("2001:db8::/64", 3)]


def test_hosts_add_up_or_are_asked_alone(store: Store) -> None:
    """Two hosts are summed, one is asked by name, an unknown one has nothing."""
    for host, count in (("mx1", 2), ("mx2", 5)):
        Writer(store, host, host).write(1, counted("sessions", count), NOW)
    reader = Reader(store)
    assert reader.hosts() == ["mx1", "mx2"]
    sums = {
        name: sum(reader.counts(NOW, NOW, Step.HOUR, hosts).get("sessions", {}).values())
        for name, hosts in (("all", None), ("mx2", ["mx2"]), ("both", ["mx1", "mx2", "mx1"]), ("no", ["mx3"]))
    }
    assert sums == {"all": 7, "mx2": 5, "both": 7, "no": 0}


def test_odd_names_come_back(store: Store) -> None:
    """Host, rule, list and top names of any text, but for lone surrogates, are what they were."""
    odd = "a:b%c {d}\n\x7f*ü"
    batch = counted(layout.series_name("rule", odd, "reject"), 1)
    batch.tops[layout.day(NOW), "domain/reject"] = {odd: 1}
    Writer(store, odd, "one").write(1, batch, NOW)
    reader = Reader(store)
    assert reader.hosts() == [odd]
    (series,) = reader.counts(NOW, NOW, Step.MINUTE, [odd])
    assert layout.labels_of(series) == ["rule", odd, "rejected"]
    assert reader.tops(NOW, NOW)["domain/reject"] == [(odd, 1)]


SPANS = [
    # step, first, last moment asked for; the steps expected, of one for each minute, hour or day around them
    (Step.MINUTE, (2025, 12, 31, 23, 58, 1), (2026, 1, 1, 0, 1, 59), 4),
    (Step.MINUTE, (2026, 1, 1, 0, 0, 0), (2026, 1, 1, 0, 0, 0), 1),
    (Step.HOUR, (2025, 12, 31, 22, 30, 0), (2026, 1, 1, 1, 0, 0), 4),
    (Step.DAY, (2025, 12, 30, 12, 0, 0), (2026, 1, 2, 0, 0, 0), 4),
    (Step.DAY, (2024, 2, 28, 0, 0, 0), (2024, 3, 1, 23, 59, 59), 3),
    (Step.DAY, (2026, 1, 1, 0, 0, 0), (2026, 1, 31, 0, 0, 0), 31),
]


@pytest.mark.parametrize(("step", "first", "last", "number"), SPANS)
def test_a_span_has_all_steps_that_touch_it(
    store: Store, step: Step, first: tuple[int, ...], last: tuple[int, ...], number: int
) -> None:
    """Over hours, days, months and leap days each step in the span is there, and none outside of it."""
    start, end = timegm(first), timegm(last)
    batch = Batch()
    for moment in range(start // step * step - 3 * step, end + 3 * step, step):
        batch.counts[step, moment] = {"sessions": 1}
    Writer(store, "mx1", "one").write(1, batch, NOW)
    found = Reader(store).counts(start, end, step)["sessions"]
    assert len(found) == number
    assert sorted(found) == list(range(start // step * step, end + 1, step))


def test_what_is_asked_is_cut_to_what_is_kept(store: Store) -> None:
    """A million years by minutes read no more than the three days that are kept by minutes."""
    Writer(store, "mx1", "one").write(1, counted("sessions", 1), NOW)
    began = time.monotonic()
    found = Reader(store).counts(-1e15, NOW, Step.MINUTE)
    assert list(found) == ["sessions"]
    assert Reader(store).tops(-1e15, NOW)["network/reject"] == []
    assert time.monotonic() - began < 30


def test_everything_expires(store: Store, server: Redis) -> None:
    """Each key goes by itself: minutes after 3 days, hours after 100, days after 3 years, addresses first."""
    Writer(store, "mx1", "one").write(1, full(), NOW)
    day = 86400
    kept = {"minute": 3 * day, "hour": 100 * day, "day": 1098 * day, "top": 32 * day}
    kept |= {"marks": 1098 * day, "hosts": 1098 * day, "writer": 30 * day}
    keys = server.keys()
    with server.client() as client:
        for key in keys:
            kind = key.decode().removeprefix(layout.NAMESPACE + ":").partition(":")[0]
            assert kept[kind] - 60 <= client.ttl(key) <= kept[kind], key


def test_no_key_is_one_of_the_greylist(store: Store, server: Redis) -> None:
    """Nothing of the history is taken for a triplet, and all its keys are in one slot of a cluster."""
    Writer(store, "mx1", "one").write(1, full(), NOW)
    keys = server.keys()
    assert len(keys) == 7
    assert not [key for key in keys if parse_key(key)]
    assert all(b"{history}" in key and key.startswith(b"hg1:") for key in keys)
    assert len({key_slot(key) for key in keys}) == 1


def test_lists_are_capped(store: Store) -> None:
    """Marks, hosts and tops keep the newest or heaviest of what they may have."""
    writer, reader = Writer(store, "mx1", "one"), Reader(store)
    day = layout.day(NOW)
    for number in range(1, 8):
        batch = Batch()
        batch.marks = [Mark(NOW + number * 1000 + i, "mx1", "reload") for i in range(400)]
        batch.tops[day, "domain/delay"] = {f"{number}-{i}.test": 1 + (i < 20) for i in range(600)}
        writer.write(number, batch, NOW)
    marks = reader.marks(0, 1e10)
    assert len(marks) == records.MARKS_MAX
    assert marks[-1].time == NOW + 7399
    found = reader.tops(NOW, NOW, limit=1000)["domain/delay"]
    assert len(found) == records.DAY_MAX
    assert {count for _, count in found} == {2}
    writer.write(8, Batch(over=[day]), NOW)
    assert reader.tops(NOW, NOW, limit=1000)["domain/delay"] == found
    for number in range(100):
        Writer(store, f"host{number}", f"host{number}").write(1, counted("sessions", 1), NOW + number)
    assert len(reader.hosts()) == records.HOSTS_MAX
    assert "host99" in reader.hosts()


def test_tops_of_a_day_that_is_over_are_few(store: Store, server: Redis) -> None:
    """When a day has ended its tops are cut to the heaviest."""
    writer, day = Writer(store, "mx1", "one"), layout.day(NOW)
    batch = Batch(tops={(day, "domain/delay"): {f"{i}.test": i + 1 for i in range(500)}})
    writer.write(1, batch, NOW)
    writer.write(2, Batch(over=[day]), NOW)
    with server.client() as client:
        assert client.zcard(layout.key("top", "domain/delay", "mx1", day)) == records.DAY_MAX
    assert Reader(store).tops(NOW, NOW, limit=2)["domain/delay"] == [("499.test", 500), ("498.test", 499)]


def test_damage_in_the_store(store: Store, server: Redis) -> None:
    """Keys of another type begin anew, values that are no numbers too; the rest of the batch is added."""
    writer, reader = Writer(store, "mx1", "one"), Reader(store)
    writer.write(1, full(), NOW)
    whole, keys = everything(reader), server.keys()
    with server.client() as client:
        for key in keys:
            client.delete(key)
            client.set(key, "damage")
    assert everything(reader) == ([], [{}, {}, {}], [], {kind: [] for kind in TOPS})
    writer.write(2, full(), NOW)
    assert everything(reader) == whole
    with server.client() as client:
        key = layout.chapter(Step.DAY, NOW).key("mx1")
        client.hset(key, layout.field(Step.DAY, NOW, "sessions"), "many")
    writer.write(3, counted("sessions", 5), NOW)
    assert list(reader.counts(NOW, NOW, Step.DAY)["sessions"].values()) == [5]


def test_hostile_content(store: Store, server: Redis) -> None:
    """Whatever others have written is passed over, and what is ours is found beside it."""
    Writer(store, "mx1", "one").write(1, full(), NOW)
    reader = Reader(store)
    whole = everything(reader)
    junk = [
        b"",
        b"\xff\xfe",
        b"59",
        b"59 \xff",
        b"xx sessions",
        b"[",
        b"null",
        b"[[[[",
        b'{"t":"now"}',
        b'{"t":NaN}',
    ]
    junk += [b'["a","b","c","d"]', b"[1,2,3,4]", b"[1e999,1,1,1]", random.randbytes(2000), b"[" * 5000]
    junk.append(b'{"t":%d,"vast":"%s"}' % (NOW, b"x" * 100_000))
    with server.client() as client:
        for step in Step:
            key = layout.chapter(step, NOW).key("mx1")
            for one in junk:
                client.hset(key, one, 1)
            for value in (b"-1", b"inf", b"nan", b"1e999", b"many", b"\xff"):
                client.hset(key, layout.field(step, NOW, f"bad{value!r}"), value)
        for one in junk:
            client.zadd(layout.key("marks"), {one: NOW})
        for score in ("inf", "-inf", "-5"):
            client.zadd(layout.key("top", "network/reject", "mx1", layout.day(NOW)), {f"x{score}": score})
    assert everything(reader) == whole


_FILL = """
for i = 1, tonumber(ARGV[1]) do
  redis.call('HSET', KEYS[1], string.format('%02d list:%d:listed', i % 60, math.floor(i / 60)), 1)
end
"""


def test_large_hashes(store: Store, server: Redis) -> None:
    """A few large ones are read in several calls; what is too large for one of ours is passed over."""
    hour = int(NOW) // 3600 * 3600
    sizes = {hour - 3600 * number: 9000 for number in range(5)}
    vast = {hour - 3600 * 5: reader_module._FIELDS_MAX + 60, hour - 3600 * 6: reader_module._FIELDS + 60}
    with server.client() as client:
        for moment, size in (sizes | vast).items():
            client.eval(_FILL, 1, layout.chapter(Step.MINUTE, moment).key("mx1"), size)
    found = Reader(store).counts(hour - 3600 * 7, hour + 3599, Step.MINUTE, ["mx1"])
    by_hour = Counter(moment // 3600 * 3600 for moments in found.values() for moment in moments)
    assert by_hour == sizes | {hour - 3600 * 6: vast[hour - 3600 * 6]}


def test_a_full_server_takes_all_or_nothing(server: Redis, store: Store) -> None:
    """Out of memory nothing of a batch is added; sent again when there is room, all of it is, once."""
    writer, reader = Writer(store, "mx1", "one"), Reader(store)
    writer.write(1, full(), NOW)
    once = everything(reader)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(StoreError):
                writer.write(2, full(), NOW)
        finally:
            client.config_set("maxmemory", "0")
    assert everything(reader) == once
    writer.write(2, full(), NOW)
    assert list(reader.counts(NOW, NOW, Step.DAY)["sessions"].values()) == [6]


def test_a_restarted_server_has_it_all() -> None:
    """After kill -9 of the server the history is there, and the batch that it has had is not added again."""
    with Redis() as server, contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
        writer, reader = Writer(store, "mx1", "one"), Reader(store)
        writer.write(1, full(), NOW)
        once = everything(reader)
        server.kill()
        with pytest.raises(StoreError):
            writer.write(2, full(), NOW)
        server.start()
        assert everything(reader) == once
        writer.write(1, full(), NOW)
        assert everything(reader) == once
        writer.write(2, full(), NOW)
        assert list(reader.counts(NOW, NOW, Step.DAY)["sessions"].values()) == [6]


def test_embedded(tmp_path: Path) -> None:
    """The embedded server keeps it, over a restart."""
    server = EmbeddedServer(tmp_path / "store")
    for _ in range(2):
        server.start()
        with contextlib.closing(Store.open(server.url, 5.0)) as store:
            Writer(store, "mx1", "one").write(1, full(), NOW)
            found = Reader(store)
            assert list(found.counts(NOW, NOW, Step.HOUR)["sessions"].values()) == [3]
            assert found.marks(NOW - 1, NOW + 1) == [Mark(NOW, "mx1", "start", "enforce")]
        server.stop()


def test_a_cluster_of_three_shards() -> None:
    """In a Redis Cluster all keys of a call are on one shard, written and read."""
    with cluster() as shards, contextlib.closing(Store.open(shards.url, 5.0)) as store:
        Writer(store, "mx1", "one").write(1, full(), NOW)
        Writer(store, "mx1", "one").write(1, full(), NOW)
        assert list(Reader(store).counts(NOW, NOW, Step.HOUR)["sessions"].values()) == [3]
        assert Reader(store).hosts() == ["mx1"]
        # A replica that writes its first append-only file ignores SIGTERM.
        replica = shards.replica.client()
        wait_until(lambda: not replica.info("persistence")["aof_rewrite_in_progress"], "the file is written")


def test_a_year_of_four_hosts_is_quick(store: Store) -> None:
    """A year of 40 series by day of four hosts is added up in a moment, by few and small calls."""
    hosts = [f"mx{number}" for number in range(4)]
    names = [layout.series_name("rule", f"rule {number}", "reject") for number in range(40)]
    for host in hosts:
        writer = Writer(store, host, host)
        for number, first in enumerate(range(0, 366, 40), 1):
            moments = [
                int(NOW) // Step.DAY * Step.DAY - day * Step.DAY for day in range(first, min(first + 40, 366))
            ]
            writer.write(
                number, Batch({(Step.DAY, moment): dict.fromkeys(names, 2) for moment in moments}), NOW
            )
    reader = Reader(store)
    began = time.monotonic()
    found = reader.counts(NOW - 365 * 86400, NOW, Step.DAY)
    took = time.monotonic() - began
    assert len(found) == 40
    assert {sum(moments.values()) for moments in found.values()} == {2 * 4 * 366}
    assert took < 10, "generous, for a busy machine"
