"""Credit is not bought and the store not filled: how often passes count, and how many triplets may wait.

On real servers. Where hours go by the script is told the time; expiry moves along with it.
"""

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridgrey.greylist.triplets import Greylist, Note, State, Touch, parse_key
from hybridgrey.replay.greylist import PureGreylist
from hybridgrey.store.connection import Store
from parts.greyterms import GreyTerms
from parts.redisserver import Redis
from parts.timedstore import BEGIN, Timed, Valkey

HOUR, DAY = 3600, 86_400
DELAY = 300
DEFAULTS = GreyTerms(auto_allow_interval=HOUR, max_waiting=1000)


@pytest.fixture(scope="module", params=[Redis, Valkey])
def server(request):
    with request.param() as part:
        yield part


@pytest.fixture(scope="module")
def timed(server):
    store = Store.open(server.unix_url, 5.0)
    made = Timed(server, store)
    yield made
    made.client.close()
    store.close()


@pytest.fixture(autouse=True)
def _empty(timed):
    timed.client.flushall()
    timed.now = BEGIN


def greylist(timed, secret="", **changes):
    return Greylist(timed, dataclasses.replace(DEFAULTS, **changes), key_secret=secret)


def touch(grey, number, client="192.0.2.1", delay=DELAY):
    return grey.touch(client, f"<s@{number}.example>", "<r@example.org>", delay).state


def passes(grey, timed, number, client="192.0.2.1"):
    """A triplet comes, and comes again when it may."""
    assert touch(grey, number, client) is State.NEW
    timed.go(DELAY)
    assert touch(grey, number, client) is State.PASSED


# Credit


def burst(grey, timed, size, name=""):
    """Several triplets at once, and one retry of all."""
    for number in range(size):
        assert touch(grey, f"{name}{number}") is State.NEW
    timed.go(DELAY)
    return [touch(grey, f"{name}{number}") for number in range(size)]


def test_a_burst_and_one_retry_buy_one_credit(timed):
    """Five recipients and one retry do not allow the network; nor do fifty."""
    grey = greylist(timed)
    assert burst(grey, timed, 50) == [State.PASSED] * 50
    assert touch(grey, "else", "192.0.2.99") is State.NEW
    assert timed.client.get(grey.keys("192.0.2.1", "", "")[1]) == b"1"


@pytest.mark.parametrize(
    ("pauses", "count"), [([3600] * 4, 5), ([3599] * 4, 3), ([1800] * 8, 5), ([60] * 59, 1)]
)
def test_one_pass_counts_in_an_interval(timed, pauses, count):
    """Passes count when the last that did is an hour old; those in between do not move the hour."""
    grey = greylist(timed, auto_allow_after=0)
    passes(grey, timed, 0)
    for number, pause in enumerate(pauses, 1):
        assert touch(grey, number) is State.NEW
        timed.go(pause)
        assert touch(grey, number, delay=1) is State.PASSED
    assert int(timed.client.get(grey.keys("192.0.2.1", "", "")[1])) == count


def test_a_busy_sender_is_allowed_within_a_day(timed):
    """A new mail every ten minutes, each tried again after the delay: allowed after five hours."""
    grey = greylist(timed)
    for number in range(24 * 6):
        if touch(grey, number) is State.NETWORK:
            break
        timed.go(DELAY)
        assert touch(grey, number) is State.PASSED
        timed.go(300)
    assert 4 * HOUR <= timed.now - BEGIN <= 5 * HOUR


def test_an_interval_of_0_counts_each_pass(timed):
    """As version 0.1 did; and no other key is written."""
    grey = greylist(timed, auto_allow_interval=0)
    assert burst(grey, timed, 5) == [State.PASSED] * 5
    assert touch(grey, "else") is State.NETWORK
    assert all(parse_key(key) for key in timed.client.scan_iter())


def test_the_last_credit_outlives_its_interval(timed):
    """What is kept for the interval does not look short-lived to a server that is short of memory."""
    grey = greylist(timed)
    passes(grey, timed, 0)
    expires = {key: at - timed.now for key, (_, at) in timed.dump().items()}
    assert set(expires.values()) == {DEFAULTS.lifetime}
    assert len(expires) == 3


def test_credit_of_a_previous_host_counts(timed):
    """A count that version 0.1 wrote, which knows no time of it, grows with the next pass."""
    grey = greylist(timed)
    timed.client.set(grey.keys("192.0.2.1", "", "")[1], 4, ex=DAY)
    passes(grey, timed, 0)
    assert touch(grey, 1) is State.NETWORK


@pytest.mark.parametrize("value", ["", "x", "1.5", "-5", "9" * 30, str(BEGIN + DAY)])
@pytest.mark.parametrize("note", list(Note))
def test_damage_of_a_note_costs_nothing(timed, note, value):
    """What is no number, or lies in the future, counts as nothing and is overwritten."""
    grey = greylist(timed)
    touch(grey, 0)
    key = timed.used[2 if note is Note.CREDIT else 3]
    timed.client.set(key, value)
    passes(grey, timed, 1)
    assert timed.client.get(grey.keys("192.0.2.1", "", "")[1]) == b"1"
    for command in (("LPUSH", key, "1"), ("HSET", key, "a", "1")):
        timed.client.delete(key)
        timed.client.execute_command(*command)
        passes(grey, timed, command[0])


# Waiting


def test_beyond_the_bound_nothing_is_written(timed):
    """The first thousand triplets of an address wait; the next are refused alike and leave no key."""
    grey = greylist(timed)
    assert {touch(grey, number) for number in range(1000)} == {State.NEW}
    before = timed.values()
    assert len(before) == 1001
    answers = {grey.touch("192.0.2.1", f"<{n}@b.example>", "<r@example.org>", DELAY) for n in range(200)}
    assert answers == {Touch(State.FULL, DELAY, 0)}
    assert timed.values() == before
    timed.go(DELAY)
    assert touch(grey, 1001) is State.FULL
    assert touch(grey, 7) is State.PASSED
    assert touch(grey, 7) is State.KNOWN
    assert touch(grey, 1001) is State.NEW
    assert touch(grey, 1002) is State.FULL


@pytest.mark.parametrize(
    ("first", "other", "state"),
    [
        ("192.0.2.1", "192.0.2.2", State.NEW),
        ("192.0.2.1", "::ffff:192.0.2.1", State.FULL),
        ("2001:db8::1", "2001:db8::2", State.FULL),
        ("2001:db8::1", "2001:db8:0:1::1", State.NEW),
    ],
)
@pytest.mark.parametrize("prefix", [48, 64])
@pytest.mark.parametrize("secret", ["", "s3cret"])
def test_neighbours_are_not_starved(timed, first, other, state, prefix, secret):
    """An address (a /64) is bounded, not its network, however wide that is, hidden or not."""
    grey = greylist(timed, secret, ipv4_prefix=16, ipv6_prefix=prefix, max_waiting=3)
    for number in range(3):
        assert touch(grey, number, first) is State.NEW
    assert touch(grey, 9, first) is State.FULL
    assert touch(grey, 9, other) is state


def test_what_expires_makes_room(timed):
    """Triplets that never came back free their places an eighth of the window after they expired."""
    grey = greylist(timed, max_waiting=10)
    for number in range(10):
        assert touch(grey, number) is State.NEW
        timed.go(HOUR)
    assert touch(grey, "more") is State.FULL
    timed.go(2 * DAY + 6 * HOUR)
    assert {touch(grey, f"new{number}") for number in range(10)} == {State.NEW}
    assert touch(grey, "more") is State.FULL
    timed.go(3 * DAY)
    assert timed.values() == {}


def test_what_waits_or_is_known_is_served_at_the_bound(timed):
    """The bound is for new triplets only."""
    grey = greylist(timed, max_waiting=2)
    passes(grey, timed, "known")
    assert [touch(grey, number) for number in (1, 2, 3)] == [State.NEW, State.NEW, State.FULL]
    assert [touch(grey, number) for number in (1, "known")] == [State.EARLY, State.KNOWN]
    timed.go(DELAY)
    assert [touch(grey, number) for number in (1, 2)] == [State.PASSED, State.PASSED]


def test_an_allowed_network_is_not_bounded(timed):
    """What is let in leaves nothing to bound."""
    grey = greylist(timed, max_waiting=1, auto_allow_after=1)
    passes(grey, timed, 0)
    assert {touch(grey, number) for number in range(1, 9)} == {State.NETWORK}


def test_a_pass_at_a_neighbour_frees_no_more_than_one(timed):
    """In a pool that tries again from other addresses the waiting triplets stay below the bounds' sum."""
    grey = greylist(timed, max_waiting=4, auto_allow_after=0)
    clients = [f"192.0.2.{number}" for number in range(1, 4)]
    for turn in range(30):
        for place, client in enumerate(clients):
            touch(grey, f"{turn}-{place}", client)
        timed.go(DELAY)
        for place in range(2):
            touch(grey, f"{turn}-{place}", clients[-1])
        waiting = [value for key, value in timed.values().items() if parse_key(key) and value > BEGIN]
        assert len(waiting) <= 4 * len(clients)


def test_peek_at_the_bound_changes_nothing(timed):
    """peek says full where touch would, and writes nothing in any state."""
    grey = greylist(timed, max_waiting=1)
    touch(grey, 0)
    before = timed.values()
    assert grey.peek("192.0.2.1", "<n@n.example>", "<r@example.org>", DELAY).state is State.FULL
    timed.go(DELAY)
    assert grey.peek("192.0.2.1", "<s@0.example>", "<r@example.org>", DELAY).state is State.PASSED
    assert grey.peek("192.0.2.2", "<s@9.example>", "<r@example.org>", DELAY).state is State.NEW
    assert timed.values() == before


# The law

ATTEMPTS = st.tuples(
    st.sampled_from([0, 0, 0, 1, 7, 40, 100, 300, 1000]),  # seconds since the one before
    st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
    st.integers(0, 7),  # the triplet
    st.sampled_from([0, 1, 40]),  # delay
)
TERMS = st.builds(
    GreyTerms,
    retry_window=st.sampled_from([50, 101, 800]),
    lifetime=st.sampled_from([60, 900, 5000]),
    auto_allow_after=st.sampled_from([0, 2, 3]),
    auto_allow_interval=st.sampled_from([0, 30, 1000]),
    max_waiting=st.sampled_from([0, 1, 3]),
)


@given(terms=TERMS, attempts=st.lists(ATTEMPTS, max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_is_the_pure_greylist(timed, terms, attempts):
    """Any attempts: same answers, same keys, same values, same expiries; a look changes nothing."""
    timed.client.flushall()
    timed.now = BEGIN
    timed.now = BEGIN
    pure = PureGreylist(terms)
    grey = Greylist(timed, terms)
    for pause, client, number, delay in attempts:
        timed.go(pause)
        question = client, f"<{'abcdefgh'[number]}@x.example>", "<r@example.org>", delay
        looked = grey.peek(*question)
        assert looked == grey.touch(*question) == pure.touch(timed.now, timed.used, delay)
        assert timed.dump() == pure.stored
