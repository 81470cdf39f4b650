"""One attempt is one round trip: what it costs, and many at the same moment."""

import threading

from greylist.touched import CLIENT, DELAY, RECIPIENT, SENDER, age, greylist, stored, touch
from hybridgrey.greylist.triplets import (
    SCRIPT,
    State,
    key_pattern,
)
from hybridgrey.store.connection import Store


def test_one_round_trip(server, store):
    """Each touch is one command to the server, the first of a script excepted."""
    grey = greylist(store)
    touch(grey)
    with server.client() as client:
        client.config_resetstat()
        touch(grey)
        touch(grey, sender="<n@example.com>")
        calls = {name: row["calls"] for name, row in client.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] == 2
    assert "cmdstat_eval" not in calls


def test_script_forgotten_by_the_server(server, store):
    """SCRIPT FLUSH (or a restart) is not noticed by the caller."""
    grey = greylist(store)
    touch(grey)
    with server.client() as client:
        client.script_flush()
    assert touch(grey).state is State.EARLY


def test_values_are_integers_for_the_server(server, store):
    """No value needs a string of its own: Redis keeps an integer, Valkey puts it into the key's object."""
    grey = greylist(store)
    with server.client() as client:
        touch(grey)
        assert {client.object("encoding", key) for key in stored(server)} <= {b"int", b"embstr"}
        age(server, DELAY)
        touch(grey)
        assert {client.object("encoding", key) for key in stored(server)} <= {b"int", b"embstr"}


def test_memory(server, store):
    """A triplet with addresses of ordinary length takes at most 210 bytes, indexes and expiry included.

    What keeps the bounds is not in it: as much again for each address with waiting triplets, whatever their
    number.
    """
    grey, count = greylist(store), 6_000
    key_bytes = 0
    with server.client() as client:
        before = client.info("memory")["used_memory"]
        for number in range(count):
            arguments = (
                f"10.{number >> 8}.{number & 255}.9",
                f"news-{number % 999}@mail.example.com",
                "ann@example.org",
            )
            key_bytes += len(grey.keys(*arguments)[0])
            grey.touch(*arguments, DELAY)
        after = client.info("memory")["used_memory"]
    assert len(server.keys()) == count
    assert (after - before) / count < 210, key_bytes / count


def test_fifty_threads_one_triplet(server, store):
    """Of fifty simultaneous first attempts exactly one is new; of the retries exactly one passes."""
    grey = greylist(store)

    def storm():
        barrier, states = threading.Barrier(50), []

        def attempt():
            barrier.wait()
            for _ in range(4):
                states.append(touch(grey).state)

        threads = [threading.Thread(target=attempt) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {state: states.count(state) for state in set(states)}

    assert storm() == {State.NEW: 1, State.EARLY: 199}
    age(server, DELAY)
    assert storm() == {State.PASSED: 1, State.KNOWN: 199}
    with server.client() as client:
        assert client.get(grey.keys(CLIENT, SENDER, RECIPIENT)[1]) == b"1"


def test_two_hosts_share_the_store(server):
    """A first attempt at one MX host and the retry at another are one triplet."""
    one, two = (Store.open(url, 5.0) for url in (server.url, server.unix_url))
    touch(greylist(one))
    age(server, DELAY)
    assert touch(greylist(two)).state is State.PASSED
    one.close()
    two.close()


def test_script_is_found_in_the_package():
    """The script comes with the package."""
    assert "KEYS[1]" in SCRIPT.text
    assert key_pattern() == b"hg1:{*"
