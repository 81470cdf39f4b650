"""Whom we have written to, in a real store: who is remembered, for how long, and how many."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from hybridgrey import envelope
from hybridgrey.filter.blocking import Blocking
from hybridgrey.hand.correspondents import COUNT, PREFIX, Brought, Correspondents, is_taught, may_learn
from hybridgrey.store.connection import Store, StoreError
from parts.redisserver import Redis

ANN = envelope.read("ann@example.org")


class Terms(NamedTuple):
    lifetime: int = 600
    max_recipients: int = 20
    max_daily: int = 5


@pytest.fixture(scope="module")
def server():
    with Redis() as part:
        yield part


@pytest.fixture
def client(server):
    with server.client() as made:
        made.flushall()
        yield made


class World:
    """Correspondents of a store, waited for."""

    def __init__(self, url, terms=None, secret=""):
        self.store = Store.open(url, 5.0)
        self.by = Correspondents(terms or Terms(), secret)

    def knows(self, address):
        return self.by.read(self.store.run(*self.by.ask(envelope.read(address))))

    def learn(self, *addresses, sender=ANN):
        return Blocking(self.store).run(self.by.learn(sender, [envelope.read(a) for a in addresses]))


@pytest.fixture
def world(server, client):
    return World(server.unix_url)


def test_who_was_written_to_is_known(world):
    """The very address, in any case, and no other of its domain."""
    assert not world.knows("bob@example.net")
    assert world.learn("Bob@Example.net", '"b b"@example.net') == 2
    assert world.knows("bob@example.net")
    assert world.knows("BOB@example.NET")
    assert world.knows('"b b"@example.net')
    assert not world.knows("carol@example.net")
    assert not world.knows("bob+x@example.net")
    assert not world.knows("ann@example.org")


def test_each_mail_lets_one_live_on(world, client):
    """A correspondent expires after its lifetime; the count of a day after a day."""
    world.learn("bob@example.net")
    key = PREFIX + b"bob@example.net"
    assert 595 <= client.ttl(key) <= 600
    client.expire(key, 10)
    assert world.learn("bob@example.net") == 0
    assert client.ttl(key) >= 595
    assert 86300 <= client.ttl(COUNT + b"ann@example.org") <= 86400
    client.delete(key)
    assert not world.knows("bob@example.net")


def test_a_sender_has_so_many_new_ones_in_a_day(world):
    """Those that are known do not count; another sender has his own; so has tomorrow."""
    assert world.learn(*(f"a{i}@x.example" for i in range(3))) == 3
    assert world.learn(*(f"a{i}@x.example" for i in range(9))) == 2
    assert world.learn("b@x.example") == 0
    assert not world.knows("b@x.example")
    assert world.learn("b@x.example", sender=envelope.read("eve@example.org")) == 1
    assert world.learn("a1@x.example") == 0


def test_another_day(world, client):
    """The count is of a day of the store's clock; damage counts as nothing."""
    assert world.learn(*(f"a{i}@x.example" for i in range(5))) == 5
    count = COUNT + b"ann@example.org"
    day, used = client.get(count).split()
    assert used == b"5"
    client.set(count, b"%d 5" % (int(day) - 1))
    assert world.learn("b@x.example") == 1
    for damage in (b"", b"x", b"99999999999999999999 1", b"-1 -1"):
        client.set(count, damage)
        assert world.learn(f"c{len(damage)}@x.example") == 1


def test_keys_of_a_wrong_kind(world, client):
    """Foreign content costs nothing but itself."""
    client.rpush(COUNT + b"ann@example.org", "x")
    assert world.learn("b@x.example") == 1


def test_with_a_secret_nothing_can_be_read(server, client):
    """No address, nor part of one, is in a key; one secret does not know another's."""
    mine = World(server.unix_url, secret="one")
    mine.learn("bob@example.net")
    assert mine.knows("bob@example.net")
    assert not World(server.unix_url, secret="two").knows("bob@example.net")
    assert not any(b"bob" in key or b"ann" in key or b"example" in key for key in client.scan_iter())
    assert {key[: key.index(b":", 4) + 1] for key in client.scan_iter()} == {PREFIX, COUNT}


@pytest.mark.parametrize("reply", [[], [1, 2], ["x"], [None]])
def test_answers_of_another_script(reply):
    """They are errors, and no correspondent."""
    with pytest.raises(StoreError):
        Correspondents.read(reply)


@pytest.mark.parametrize(
    ("address", "mailer", "taught"),
    [
        ("bob@example.net", "smtp", True),
        ("bob@example.net", "esmtp", True),
        ("bob@example.net", "", True),
        ("bob@example.net", "local", False),
        ("bob@example.net", "virtual", False),
        ("bob@example.net", "LMTP", False),
        ("bob@example.net", "relay", False),
        ("bob@example.net", "error", False),
        ("bob@example.net", "discard", False),
        ("<>", "smtp", False),
        ("a@b@c@", "smtp", False),
    ],
)
def test_who_is_learnt(address, mailer, taught):
    """Not who belongs here, and nobody whose address is uncertain."""
    box = envelope.NULL if address == "<>" else envelope.read(address)
    assert is_taught(box, mailer) is taught


def test_whose_mail_teaches():
    """A bounce teaches nothing."""
    assert may_learn(ANN)
    assert not may_learn(envelope.NULL)
    assert not may_learn(envelope.read("@"))


def test_a_recipient_named_twice_is_new_once(world):
    """By whatever case."""
    assert world.learn("a@x.example", "A@x.example", "b@x.example", "a@x.example") == 2


def test_somebody_brought_along(world, client):
    """Has the rest of the lifetime, and for who is known already nothing gets worse."""

    def bring(age, ask=False):
        box = envelope.read("bob@example.net")
        call = world.by.would_bring(box, age) if ask else world.by.bring(box, age)
        return world.by.outcome(world.store.run(*call))

    key = PREFIX + b"bob@example.net"
    assert bring(200, ask=True) is Brought.NEW
    assert not client.exists(key)
    assert bring(200) is Brought.NEW
    assert 395 <= client.ttl(key) <= 400
    assert client.time()[0] - int(client.get(key)) - 200 in (0, 1, 2)
    assert bring(400) is Brought.KEPT
    assert bring(100, ask=True) is Brought.LONGER
    assert 395 <= client.ttl(key) <= 400
    assert bring(100) is Brought.LONGER
    assert 495 <= client.ttl(key) <= 500
    assert bring(100) is Brought.KEPT
    with pytest.raises(StoreError):
        Correspondents.outcome([3])
