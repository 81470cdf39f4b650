"""What may be in the store: anything, of any type, under our keys, in a real Redis.

An input is lines; each puts something there: a letter for how, a letter for which key, then a value.

    how    s string, x string that expires, n the store's time plus the value, p the same, negative;
           l list, h hash, z sorted set, m set, t stream
    key    a the triplet, b its network, c another triplet of the network, d a key of the value's own name,
           e history's hosts, f its marks, g its verdicts, h an hour of its counts, i tops of a day,
           j the entries by hand, k expected mail
"""

from __future__ import annotations

import atexit
import contextlib
import math
from functools import cache
from typing import Any

import click
import redis

from fuzz import byhand
from hybridgrey.cli import greylist_rows as shown
from hybridgrey.clientaddress import ClientReader
from hybridgrey.greylist import networks
from hybridgrey.greylist.entries import Entries, Query, Status, network_key
from hybridgrey.greylist.triplets import Greylist, State, Touch
from hybridgrey.history import layout
from hybridgrey.history.layout import Step
from hybridgrey.history.reader import Reader
from hybridgrey.history.records import Batch, Mark
from hybridgrey.history.writer import Writer
from hybridgrey.metrics.series import OUTCOMES
from hybridgrey.migrate.restore import Memory, Restorer
from hybridgrey.store.connection import Store
from parts.greyterms import GreyTerms
from parts.redisserver import Redis

CLIENT, SENDER, RECIPIENT = "192.0.2.1", "<a@example.org>", "<b@example.net>"
PREFIXES = 24, 64
DELAY, WINDOW, LIFETIME, ENOUGH = 300, 6000, 90000, 5
HOST, MOMENT, DAY = "mx1", 1_800_000_000, "2027-01-15"
SEEDS = (
    b"sa1\nsb3\nsc-5\nsb999999999999\nd",
    b"na0\nnb-7\nxc77",
    b"na-299\nna-301\nna-7000\nna9000",
    b"pa0\nsb5",
    b"la1\nhb2\nzc3\nma\ntb",
    b"sa-0\nsa 1\nsa0x10\nsb1e3\nsbnan\nsbinf\nsb-inf",
    b"sd192.0.2.0/24}:%0A:%ff\nsd}\nsd{}:\nsd192.0.2.0/24}:a:b:c",
    b'zemx1\nzf[1,"mx1","start",""]\nlg{"t":1}\nhh00 outcome:accept:enforced\nzi192.0.2.0/24',
    b"sj1\nlk2",
    b"hjversion 99999999999999999\nhkb@example.net nan\nhjclient\xa0x 1",
    b"hjversion -1\nhkb@example.net 99999999999 ann\nhkx 1 2",
    b'se1\nsf1\nsg1\nsh1\nsi1\nzf[1e999]\nlg{"t":null}\nhh61 x\nhh-1 x',
)
WORDS = (
    b"\n",
    b"sa",
    b"sb",
    b"na",
    b"-",
    b"nan",
    b"inf",
    b"1e400",
    b"9" * 12,
    b"9" * 13,
    b"}",
    b"{",
    b":",
    b"%",
)


class Mortal(Redis):
    """A server that the kernel ends with us: a fuzzer may end this process without a word."""

    def command(self) -> list[Any]:
        return ["setpriv", "--pdeathsig", "KILL", *super().command(), "--databases", "1"]


@cache
def world() -> tuple[redis.Redis, Greylist, Entries, Restorer, Reader, Writer]:
    """The server and all that reads and writes there, made once."""
    server = Mortal()
    server.start()
    atexit.register(server.close)
    stores = [Store.open(server.unix_url, 20.0) for _ in range(2)]
    terms = GreyTerms(WINDOW, LIFETIME, *PREFIXES, ENOUGH)
    greylist = Greylist(stores[0], terms)
    entries = Entries(server.unix_url, 20.0, stores[0], terms)
    restorer = Restorer(stores[0], greylist)
    reader, writer = Reader(stores[1]), Writer(stores[1], HOST, "fuzz")
    return server.client(), greylist, entries, restorer, reader, writer


def fill(client: redis.Redis, greylist: Greylist, data: bytes) -> None:
    """Put there what the lines say."""
    now = int(client.time()[0])
    triplet, network = greylist.keys(CLIENT, SENDER, RECIPIENT)
    names = {
        b"a": triplet,
        b"b": network,
        b"c": greylist.keys(CLIENT, "<c@example.org>", RECIPIENT)[0],
        b"e": layout.key("hosts"),
        b"f": layout.key("marks"),
        b"g": layout.verdict_keys(HOST)[0],
        b"h": layout.chapter(Step.MINUTE, MOMENT).key(HOST),
        b"i": layout.key("top", "network/reject", HOST, DAY),
        **byhand.KEYS,
    }
    pipe = client.pipeline(transaction=False)
    for line in data.split(b"\n")[:12]:
        how, value = line[:1], line[2:]
        key = names.get(line[1:2]) or b"hg1:{" + value
        with contextlib.suppress(ValueError):
            put(pipe, how, key, value, now)
    pipe.execute(raise_on_error=False)  # what is of another type already stays


def put(pipe: Any, how: bytes, key: bytes, value: bytes, now: int) -> None:
    """Put one value there."""
    word, _, rest = value.partition(b" ")
    match how:
        case b"x":
            pipe.set(key, value, ex=7)
        case b"n" | b"p":
            pipe.set(key, str((now + int(value)) * (1 if how == b"n" else -1)))
        case b"l":
            pipe.rpush(key, value)
        case b"h":
            pipe.hset(key, word, rest)
        case b"z":
            pipe.execute_command("ZADD", key, "+inf" if rest == b"inf" else len(rest), word)
        case b"m":
            pipe.sadd(key, value)
        case b"t":
            pipe.xadd(key, {word: rest})
        case _:
            pipe.set(key, value)


def sound(touch: Touch, delay: int) -> Touch:
    """Fail unless an answer is one that the greylist gives."""
    assert touch.state in State
    assert 0 <= touch.seconds_left <= max(1, delay), touch
    assert (touch.seconds_left == 0) == touch.accepted, touch
    assert touch.age >= 0, touch
    return touch


def stored(data: bytes) -> None:
    """Nothing in the store is an error, or refuses for ever, or lives on after it was overwritten."""
    client, greylist, entries, restorer, reader, writer = world()
    client.flushdb()
    fill(client, greylist, data)
    read_history(reader, writer)
    byhand.stored(entries._store)
    who = CLIENT, SENDER, RECIPIENT
    seen = sound(greylist.peek(*who, DELAY), DELAY)
    agree(entries, greylist, seen)
    touched = sound(greylist.touch(*who, DELAY), DELAY)
    # A second may have gone by between the two
    assert touched.state is seen.state or touched.age != seen.age or touched.age in (0, DELAY, WINDOW)
    sound(greylist.touch(*who, 0), 0)
    assert sound(greylist.touch(*who, 0), 0).accepted
    fill(client, greylist, data)
    entries.let_pass(greylist.keys(*who)[0], LIFETIME)
    assert greylist.peek(*who, DELAY).state is State.KNOWN
    fill(client, greylist, data)
    entries.allow(network_key(greylist, networks.split(CLIENT, PREFIXES, ClientReader())[0]), LIFETIME)
    assert greylist.peek(*who, DELAY).state in (State.NETWORK, State.KNOWN)
    fill(client, greylist, data)
    now = int(client.time()[0])
    restorer.restore([Memory(*who, now - 50, now), Memory(CLIENT, None, None, now, now)])
    assert greylist.peek(*who, DELAY).accepted
    forgotten = sum(entries.forget(query(greylist)))
    assert forgotten >= 1
    assert greylist.peek(*who, DELAY).state is State.NEW


def query(greylist: Greylist, **conditions: Any) -> Query:
    """Entries of the network."""
    return Query(greylist, hidden=False, client=CLIENT, **conditions)


def agree(entries: Entries, greylist: Greylist, seen: Touch) -> None:
    """Fail unless an admin is shown what mail gets, on one line each."""
    found = list(entries.find(Query(greylist, hidden=False)))
    for entry in found:
        assert entry.age is None or entry.age >= 0
        line = click.unstyle(shown._row(entry, (18, 18)))
        assert line.isprintable(), line
    triplet, network = greylist.keys(CLIENT, SENDER, RECIPIENT)
    status = {entry.key: entry.status for entry in found}
    assert (status.get(triplet) is Status.PASSED) == (seen.state is State.KNOWN), (status, seen)
    if seen.state is not State.KNOWN:
        assert (status.get(network) is Status.ALLOWED) == (seen.state is State.NETWORK), (status, seen)
    if seen.state in (State.EARLY, State.PASSED):
        assert status.get(triplet) is Status.WAITING, (status, seen)


def read_history(reader: Reader, writer: Writer) -> None:
    """Fail unless what is read is of its types, before and after we add to it."""
    batch = Batch(
        {(Step.MINUTE, MOMENT): {"sessions": 2}},
        {(DAY, "network/reject"): {"192.0.2.0/24": 1}},
        [Mark(MOMENT, HOST, "start")],
    )
    for number in range(2):
        looked(reader)
        writer.write(number + 1, batch, MOMENT)
    assert looked(reader)


def looked(reader: Reader) -> int:
    """All that there is, of its types; the sessions of the minute."""
    assert all(isinstance(name, str) for name in reader.hosts())
    counts = reader.counts(MOMENT - 4000, MOMENT + 60, Step.MINUTE, [HOST])
    whole(number for series in counts.values() for number in series.values())
    assert all(math.isfinite(mark.time) for mark in reader.marks(0, 4e9))
    tops = reader.tops(MOMENT - 86400, MOMENT, [HOST])
    assert {kind.partition("/")[2] for kind in tops} == set(OUTCOMES)
    whole(number for rows in tops.values() for _, number in rows)
    assert all(math.isfinite(float(str(record["t"]))) for record in reader.latest([HOST]))
    return counts.get("sessions", {}).get(MOMENT, 0)


def whole(numbers: Any) -> None:
    """Fail unless all are counts."""
    assert all(isinstance(number, int) and number >= 0 for number in numbers)
