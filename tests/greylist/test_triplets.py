"""The greylist on real servers: states, times, networks, damage.

Time passes by moving what is stored.
"""

import threading

import pytest

from greylist.touched import (
    CLIENT,
    DELAY,
    LIFETIME,
    RECIPIENT,
    SENDER,
    WINDOW,
    age,
    close_to,
    greylist,
    passes,
    stored,
    touch,
)
from hybridgrey.greylist.triplets import (
    State,
    Touch,
)

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
