"""A real Redis Cluster that loses a shard: only the triplets of that shard suffer, and it heals."""

from __future__ import annotations

import contextlib
import threading

import pytest
import redis

from faults.shared import cluster
from hybridgrey.greylist.triplets import Greylist, State, Touch
from hybridgrey.store.breaker import Breakers
from hybridgrey.store.connection import PROBE_KEY, Script, Store, StoreError
from parts.base import wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.greyterms import GreyTerms
from parts.milterpeer import MilterPeer

TIMEOUT = 1.0
WRITE = Script("redis.call('SET', KEYS[1], ARGV[1]) return {1}")


class Changes(list):
    """What a store told: (available, reason)."""

    def __call__(self, available: bool, reason: str) -> None:
        self.append((available, reason))


@pytest.fixture
def shards():
    with cluster() as made:
        yield made


@pytest.fixture
def changes():
    return Changes()


@pytest.fixture
def store(shards, changes):
    with contextlib.closing(Store.open(shards.url, TIMEOUT, on_change=changes)) as made:
        yield made


def key_of(shards, number):
    """A key, in braces, in one third of the slots."""
    third = 16384 // 3 + 1
    return next(key for n in range(1000) if redis.crc.key_slot(key := b"hg1:{%d}" % n) // third == number)


def serves(store, key):
    """Whether a call about a key succeeds."""
    try:
        return store.run(WRITE, [key], [1]) == [1]
    except StoreError:
        return False


def test_the_other_shards_serve_on(shards, store, changes):
    """With one shard gone for good its keys fail at once, and not one call about others does."""
    mine = [key_of(shards, n) for n in range(3)]
    assert all(serves(store, key) for key in mine)
    shards.primaries[1].kill()
    assert _fail(store, mine[1])
    assert f":{shards.primaries[1].port}" in store.reason
    for _ in range(200):
        assert serves(store, mine[0])
        assert serves(store, mine[2])
    store.probe()  # the tries are housekeeping's from now on
    with pytest.raises(StoreError, match=f"the store is down: .*:{shards.primaries[1].port}"):
        store.run(WRITE, [mine[1]], [1])
    assert [available for available, _ in changes] == [False]


def _fail(store, key):
    """Call about a key until its shard is given up."""
    for _ in range(3):
        assert not serves(store, key)
    return not store.available


def test_a_shard_that_is_back(shards, store, changes):
    """A probe finds a shard that serves again; the trouble is told once when it begins and when it ends."""
    mine = [key_of(shards, n) for n in range(3)]
    assert all(serves(store, key) for key in mine)
    shards.primaries[1].kill()
    assert _fail(store, mine[1])
    assert not store.probe()
    shards.primaries[1].start()
    wait_until(store.probe, "the shard is back", 60)
    assert serves(store, mine[1])
    assert [available for available, _ in changes] == [False, True]
    assert store.reason == ""


def test_a_shard_that_another_node_took_over(shards, store, changes):
    """After a fail-over the keys are probed where they are now, so that the trouble ends."""
    mine = [key_of(shards, n) for n in range(3)]
    assert all(serves(store, key) for key in mine)
    shards.primaries[0].kill()
    for _ in range(3):
        serves(store, mine[0])
    wait_until(lambda: shards.replica.role() == "master", "the replica takes over", 60)

    def back():
        return store.probe() and serves(store, mine[0])

    wait_until(back, "the keys are served", 60)
    assert [available for available, _ in changes] in ([], [False, True])


def test_ping_asks_every_shard(shards, store):
    """A lost shard is found by a store without traffic, and it is named."""
    store.ping()
    store.ping()  # now it knows the shards
    assert all(node.client().dbsize() for node in shards.primaries)
    shards.primaries[2].kill()
    with pytest.raises(StoreError, match=f":{shards.primaries[2].port}"):
        store.ping()
    for node in shards.primaries[:2]:
        assert [key for key in node.keys() if not key.startswith(PROBE_KEY)] == []  # noqa: SIM118


def test_keys_of_all_shards_are_counted(shards, store):
    """A script can be run on every shard; with one gone that fails."""
    size = Script("return {redis.call('DBSIZE')}")
    for number in range(3):
        for count in range(number + 1):
            assert serves(store, key_of(shards, number) + b":%d" % count)
    assert sum(count for (count,) in store.run_everywhere(size)) == 6
    shards.primaries[1].kill()
    with pytest.raises(StoreError):
        store.run_everywhere(size)


def test_probes_are_no_triplets(shards, store):
    """The key that a shard is probed with is in its slot and is not taken for a triplet."""
    key = key_of(shards, 1)
    assert serves(store, key)
    shards.primaries[1].kill()
    assert _fail(store, key)
    shards.primaries[1].start()
    wait_until(store.probe, "the shard is back", 60)
    probes = set(shards.primaries[1].keys()) - {key}
    assert probes == {PROBE_KEY + b":" + key.removeprefix(b"hg1:")}


def test_only_the_mail_of_the_lost_shard_is_let_through(shards):
    """New senders of the lost shard get on_failure, all others are greylisted as ever."""
    with FakeDns() as dns:
        rules = [{"name": "the rest", "action": "greylist"}]
        settings = {"store": {"url": shards.url}, "dns": {"nameservers": [dns.address]}, "rule": rules}
        # Longer than the test: who is let through is let through by on_failure.
        with Daemon({**settings, "workers": 1, "greylist": {"delay": "10m"}}) as daemon:
            clients = [f"192.0.{n}.1" for n in range(30)]
            third = 16384 // 3 + 1
            names = Greylist(None, GreyTerms())

            def lost(client):
                key, _ = names.keys(client, "a@example.org", "b@example.test")
                return redis.crc.key_slot(key) // third == 1

            assert {lost(client) for client in clients} == {True, False}
            assert {attempt(daemon, client) for client in clients} == {"450"}
            shards.primaries[1].kill()
            wait_until(lambda: all(attempt(daemon, c) == "" for c in clients if lost(c)), "on_failure", 60)
            for _ in range(3):
                assert {attempt(daemon, c) for c in clients if not lost(c)} == {"450"}
            shards.primaries[1].start()
            wait_until(lambda: {attempt(daemon, c) for c in clients} == {"450"}, "all is well", 60)
            assert len(daemon.await_events("store recovered")) == len(daemon.events("store failing")) == 1


def attempt(daemon, client):
    """The code for one recipient, "" for a pass."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("unknown", client)
        peer.helo("mail.example.org")
        peer.mail("<a@example.org>")
        return peer.rcpt("<b@example.test>").code


def test_breakers_are_one_trouble():
    """It is told when the first one opens and when the last one closes."""
    changes = Changes()
    made = Breakers(changes, limit=1)
    one, two = made.of("one"), made.of("two")
    assert made.of("one") is one
    one.failed("first")
    two.failed("second")
    assert made.given_up() == [one, two]
    assert made.reason == "first"
    one.succeeded()
    assert made.reason == "second"
    two.succeeded()
    assert made.reason == ""
    assert changes == [(False, "first"), (True, "")]


def test_breakers_of_many_threads():
    """Each change is told once, whoever sees it."""
    changes = Changes()
    made = Breakers(changes, limit=1)

    def flap(name):
        for _ in range(300):
            made.of(name).failed("x")
            made.of(name).succeeded()

    threads = [threading.Thread(target=flap, args=(f"{n % 4}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [available for available, _ in changes]
    assert made.given_up() == []
    assert said == [n % 2 == 1 for n in range(len(said))]
    assert said[-1]


def test_shards_without_end_share_a_breaker():
    """A cluster whose nodes have ever new names does not fill the memory."""
    made = Breakers(Changes(), limit=1)
    assert len({id(made.of(str(n))) for n in range(5000)}) <= 1001


def test_the_two_keys_of_a_triplet_may_be_in_two_shards(shards):
    """By network and by domain: each call stays in one shard, and what one knows the other learns."""
    with contextlib.closing(Store.open(shards.url, TIMEOUT)) as store:
        grey = Greylist(store, GreyTerms(auto_allow_interval=3600, max_waiting=1000))
        for number in range(30):
            mail = f"a@d{number}.example", "b@example.net"
            network = grey.touch("192.0.2.1", *mail, 1000)
            store.run(*grey.attempt_by_domain(f"d{number}.example", *mail, 1000, network))
            other = grey.touch("198.51.100.1", *mail, 1000)
            domain = Touch.read(store.run(*grey.attempt_by_domain(f"d{number}.example", *mail, 0, other)))
            assert (other.state, domain.state) == (State.NEW, State.PASSED)
            handed = grey.hand_over("198.51.100.1", *mail, domain)
            assert handed is not None
            store.run(*handed)
            assert grey.touch("198.51.100.1", *mail, 1000).state is State.KNOWN
