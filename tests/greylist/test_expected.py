"""What an attempt is told of expected mail in the same call is what the store says when it is asked."""

import pytest

from greylist.touched import CLIENT, DELAY, SENDER, greylist, touch
from hybridgrey import envelope
from hybridgrey.greylist.triplets import State, Touch
from hybridgrey.hand.expected import KEY, Expected

SOON, PAST = 4_000_000_000, 1_000_000_000  # s; the same in all runs, for they are in names of tests
VALUES = [
    # what the field holds, whether mail is expected
    (f"{SOON} ann", True),
    (f"{PAST} ann", False),
    (f"{SOON}", False),
    (f" {SOON} ann", False),
    (f"-{SOON} ann", False),
    (f"{SOON}.5 ann", False),
    ("0x7fffffff ann", False),
    ("nan ann", False),
    ("inf ann", False),
    ("1e99 ann", False),
    ("", False),
    (b"\xff\x00" * 5000, False),
    ("9" * 400 + " ann", True),
]
RECIPIENTS = [
    "bob@example.net",
    "Bob+tag@Example.NET",
    '"a b"@example.net',
    "no domain",
    "",
    "x" * 2000 + "@example.net",
    "b\udcff@example.net",
    "jörg@例え.example",
    "a@b@c",
]


def both(store, expected, recipient):
    """What is said by itself, and with an attempt, which changes nothing of it."""
    box = envelope.read(recipient)
    call = greylist(store).attempt(CLIENT, SENDER, box.key, DELAY, expected.place(box))
    told = Touch.read(store.run(*call))
    assert not told.accepted
    return expected.read(store.run(*expected.ask(box))), told.expected


@pytest.mark.parametrize(("value", "wanted"), VALUES, ids=[str(row[0])[:20] for row in VALUES])
def test_what_the_store_holds(server, store, value, wanted):
    """Damage is no expected mail."""
    expected = Expected()
    with server.client() as client:
        client.hset(KEY, expected.place(envelope.read("bob@example.net"))[1], value)
    assert both(store, expected, "bob@example.net") == (wanted, wanted)


@pytest.mark.parametrize("kind", ["set", "rpush", "sadd"])
def test_a_key_of_another_type(server, store, kind):
    with server.client() as client:
        getattr(client, kind)(KEY, "x")
    assert both(store, Expected(), "bob@example.net") == (False, False)


@pytest.mark.parametrize("secret", ["", "secret"])
@pytest.mark.parametrize("recipient", RECIPIENTS, ids=[ascii(one[:20]) for one in RECIPIENTS])
def test_whoever_it_is_for(store, recipient, secret):
    """A recipient is found alike, however odd, and nobody else is."""
    expected = Expected(secret)
    assert both(store, expected, recipient) == (False, False)
    expected.put(store, envelope.read(recipient), 60, "ann")
    assert both(store, expected, recipient) == (True, True)
    assert both(store, expected, "other@example.net") == (False, False)


def test_who_does_not_ask(store):
    assert touch(greylist(store)).expected is None
    assert touch(greylist(store)).state is State.EARLY
