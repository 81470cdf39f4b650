"""Entries by hand and expected mail in a real Redis, in a Cluster, and in an embedded store."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from faults.shared import cluster, under_sentinel
from hybridgrey import envelope
from hybridgrey.greylist import normalise
from hybridgrey.greylist.triplets import Greylist, State, Touch
from hybridgrey.hand import expected as expected_
from hybridgrey.hand import register as register_
from hybridgrey.hand.entries import About, parse, read, said
from hybridgrey.hand.expected import Expected
from hybridgrey.hand.register import Copy, FullError, Register
from hybridgrey.policy.conditions import Hand
from hybridgrey.store.connection import Store, StoreError
from hybridgrey.store.embedded import EmbeddedServer
from parts.base import LOOPBACK
from parts.greyterms import GreyTerms
from parts.redisserver import Redis

A, B = read(About.CLIENT, "192.0.2.1"), read(About.CLIENT, "192.0.2.0/24")
BY = {"who": "ann", "host": "mx1", "comment": "why"}


@pytest.fixture(scope="module")
def server():
    with Redis() as part:
        yield part


@pytest.fixture(scope="module", params=["redis", "cluster", "sentinel", "embedded"])
def url(request, server, tmp_path_factory):
    """The URL of a store of each kind."""
    with contextlib.ExitStack() as stack:
        if request.param == "redis":
            yield server.url
        elif request.param == "cluster":
            yield stack.enter_context(cluster()).url
        elif request.param == "sentinel":
            _primary, _replica, sentinel = stack.enter_context(under_sentinel())
            yield f"sentinel://{LOOPBACK}:{sentinel.port}/mymaster/0"
        else:
            embedded = EmbeddedServer(tmp_path_factory.mktemp("store"))
            embedded.start()
            stack.callback(embedded.stop)
            yield embedded.url


@pytest.fixture
def store(url):
    with contextlib.closing(Store.open(url, 2.0)) as made:
        yield made


@pytest.fixture
def plain(server):
    """A Redis that is empty: its client, and a store on it."""
    with server.client() as client, contextlib.closing(Store.open(server.url, 2.0)) as made:
        client.flushall()
        yield client, made


def test_entries_are_made_replaced_and_taken_back(store):
    """Each change gives what was there before and another version; the store's clock stands in it."""
    register = Register(store)
    register.take([A, B])
    first = register.look()
    assert register.put(Hand.ALLOW, [A, B], 60, **BY) == [None, None]
    second = register.look()
    (old,) = register.put(Hand.BLOCK, [A], 0, **BY | {"who": "bob"})
    assert (old.kind, old.subject, old.who, old.host, old.comment) == (Hand.ALLOW, A, "ann", "mx1", "why")
    assert old.until == old.at + 60
    third = register.look()
    assert first.version < second.version < third.version
    copy = register.read()
    assert copy.version == third.version
    assert abs(copy.now - time.time()) < 5
    found = {entry.subject: entry for entry in copy.entries()}
    assert {s: (e.kind, bool(e.until)) for s, e in found.items()} == {
        A: (Hand.BLOCK, False),
        B: (Hand.ALLOW, True),
    }
    (taken,) = register.take([A])
    assert taken == found[A]
    assert register.take([A]) == [None]
    last = register.look()
    assert last.version > third.version
    assert register.take([A]) == [None]
    assert register.look().version == last.version


def test_expected_mail(store):
    """It holds from the moment it is said until it ends, for its recipient only."""
    expected, other = Expected(), envelope.read("other@example.net")
    box = envelope.read("User@Example.NET")
    ask = expected.ask(envelope.read("user@example.net"))
    assert not expected.read(store.run(*ask))
    expected.put(store, box, 60, "ann")
    assert expected.read(store.run(*ask))
    assert not expected.read(store.run(*expected.ask(other)))
    (row,) = expected.list(store)
    assert (row.recipient, row.who) == ("user@example.net", "ann")
    assert 0 < row.seconds <= 60
    assert expected.take(store, box) > 0
    assert not expected.take(store, box)
    assert expected.list(store) == []


def test_entries_that_ended_are_taken_away(plain):
    """At the next change; until then they count for no host."""
    client, store = plain
    register = Register(store)
    register.put(Hand.ALLOW, [A], 60, **BY)
    value = client.hget(register_.KEY, A.field)
    client.hset(register_.KEY, A.field, b"5 9 " + value.split(b" ", 2)[2])
    (entry,) = register.read().entries()
    assert entry.over(time.time())
    register.put(Hand.ALLOW, [B], 0, **BY)
    assert [e.subject for e in register.read().entries()] == [B]


def test_expected_mail_ends(plain):
    """By the time in its value, whatever the key's own expiry; what is over goes at the next command."""
    client, store = plain
    expected, box = Expected(), envelope.read("user@example.net")
    expected.put(store, box, 1, "ann")
    assert client.ttl(expected_.KEY) > 36 * 86400
    client.hset(expected_.KEY, b"user@example.net", b"5 ann")
    assert not expected.read(store.run(*expected.ask(box)))
    expected.put(store, envelope.read("b@example.net"), 60, "ann")
    assert client.hkeys(expected_.KEY) == [b"b@example.net"]


def test_with_a_secret_the_recipient_is_hidden(plain):
    """Entries by hand are in clear text, expected mail is not."""
    client, store = plain
    expected, box = Expected("secret"), envelope.read("user@example.net")
    expected.put(store, box, 60, "ann")
    assert expected.read(store.run(*expected.ask(box)))
    assert not Expected("other").read(store.run(*Expected("other").ask(box)))
    ((field, value),) = client.hgetall(expected_.KEY).items()
    assert len(field) == 22
    assert b"user" not in field + value


@pytest.mark.parametrize(
    "text", ["user@example.net", "U.s+x@EXAMPLE.net", '"a b"@example.net', "postmaster@b\u00fc.example"]
)
def test_recipients_are_those_of_the_greylist(text):
    """Expected mail is for the recipient that the greylist remembers."""
    box = envelope.read(text)
    assert normalise.recipient(box.key) == box.key


def test_no_key_is_taken_for_a_triplet(plain):
    """The greylist's commands and an old version pass them over."""
    from hybridgrey.greylist.triplets import key_pattern

    client, store = plain
    Register(store).put(Hand.ALLOW, [A], 0, **BY)
    Expected().put(store, envelope.read("a@b.example"), 60, "ann")
    assert set(client.keys()) == {register_.KEY, expected_.KEY}
    assert client.keys(key_pattern()) == []


def test_nothing_of_it_is_let_go_first(plain):
    """A server short of memory lets go of what expires first; entries never expire by themselves."""
    client, store = plain
    Register(store).put(Hand.ALLOW, [A], 1, **BY)
    assert client.ttl(register_.KEY) == -1


@pytest.mark.parametrize("damage", ["string", "list", "version", "huge version", "values"])
def test_hostile_content_counts_as_nothing(plain, damage):
    """Of whatever type: it is passed over, and the next command works."""
    client, store = plain
    register, expected = Register(store), Expected()
    box = envelope.read("user@example.net")
    for key in (register_.KEY, expected_.KEY):
        if damage == "string":
            client.set(key, b"x")
        elif damage == "list":
            client.rpush(key, b"x")
        elif damage == "values":
            client.hset(
                key, mapping={b"user@example.net": b"nan", b"client 192.0.2.1": b"x" * 9000, b"\xff": b""}
            )
        else:
            client.hset(key, b"version", b"-1e9" if damage == "version" else b"9" * 400)
    assert register.read().entries() == []
    assert register.look().version == 0
    assert not expected.read(store.run(*expected.ask(box)))
    assert expected.list(store) == []
    assert expected.take(store, box) == 0
    assert register.take([A]) == [None]
    register.put(Hand.BLOCK, [B], 0, **BY)
    expected.put(store, box, 60, "ann")
    assert [e.subject for e in register.read().entries()] == [B]
    assert register.look().version > 0
    assert expected.read(store.run(*expected.ask(box)))


def test_a_comment_is_stored_as_a_text(plain):
    """Nothing in a name or a comment ends the value or begins another."""
    _client, store = plain
    register = Register(store)
    comment = 'x"} 1 0 {"kind":"allow"\n\x1b[2J %s \\ \u00fc'
    register.put(Hand.BLOCK, [A], 0, who='a"b', host="h\n", comment=comment)
    (entry,) = register.read().entries()
    assert (entry.kind, entry.who, entry.host) == (Hand.BLOCK, 'a"b', "h")
    assert entry.comment == 'x"} 1 0 {"kind":"allow" [2J %s \\ \u00fc'


def test_there_is_a_bound(plain, monkeypatch):
    """A full register refuses all of a command; one that somebody else has filled is not read."""
    client, store = plain
    register = Register(store)
    monkeypatch.setattr(register_, "MOST", 2)
    register.put(Hand.BLOCK, [A, B], 0, **BY)
    with pytest.raises(FullError):
        register.put(Hand.BLOCK, [read(About.CLIENT, "192.0.2.9")], 0, **BY)
    register.put(Hand.ALLOW, [A, B], 0, **BY)  # these take no room
    assert len(register.read().entries()) == 2
    client.hset(register_.KEY, mapping={str(n): b"x" for n in range(10)})
    with pytest.raises(FullError):
        register.read()
    monkeypatch.setattr(expected_, "MOST", 1)
    Expected().put(store, envelope.read("a@b.example"), 60, "ann")
    Expected().put(store, envelope.read("a@b.example"), 90, "ann")
    with pytest.raises(expected_.FullError):
        Expected().put(store, envelope.read("c@b.example"), 60, "ann")


def test_thousands_at_once(plain):
    """As many as there may be, in one command."""
    _client, store = plain
    register = Register(store)
    many = [read(About.CLIENT, f"10.0.{n // 256}.{n % 256}") for n in range(register_.MOST)]
    assert set(register.put(Hand.BLOCK, many, 0, **BY)) == {None}
    assert len(register.read().entries()) == register_.MOST
    assert len(list(filter(None, register.take(many)))) == register_.MOST


def test_a_store_that_has_lost_them_gets_them_back(plain):
    """Once; a store that has a version is believed, also with no entry."""
    client, store = plain
    register = Register(store)
    register.put(Hand.BLOCK, [A], 0, **BY)
    copy = register.read()
    assert not register.restore(copy)
    client.flushall()
    assert register.look().version == 0
    assert register.restore(copy)
    again = register.read()
    assert (again.pairs, again.version > copy.version) == (copy.pairs, True)
    register.take([A])
    assert not register.restore(copy)
    assert register.read().entries() == []
    client.hset(register_.KEY, B.field, copy.pairs[0][1])
    client.hdel(register_.KEY, b"version")
    assert not register.restore(copy)
    assert [e.subject for e in register.read().entries()] == [B]


@pytest.mark.parametrize("reply", [[], ["x"], [1], [1, 2, 3], [b"1", 2]])
def test_answers_of_another_program_are_no_answers(reply):
    """A server that answers anything else is a store that fails."""

    class Odd:
        def run(self, *_call):
            return reply

    with pytest.raises(StoreError):
        Register(Odd()).look()
    if reply not in ([1],):
        with pytest.raises(StoreError):
            Expected.read(reply)


def test_a_copy_with_pairs_that_are_no_entries():
    """They are kept, for another version may know them, and count for nothing."""
    copy = Copy(1, 0, ((b"future thing", b"x"), (A.field, b"1 0 " + said(Hand.ALLOW, "a", "b", ""))))
    assert [e.subject for e in copy.entries()] == [A]
    assert parse(*copy.pairs[0]) is None
    assert json.loads(copy.pairs[1][1].split(b" ", 2)[2])["kind"] == "allow"


@pytest.mark.parametrize("secret", ["", "s3cret"])
def test_the_greylist_says_in_its_answer_whether_mail_is_expected(store, url, secret):
    """Where one server has all keys; in a Cluster it is asked apart, with the same result."""
    mail, grey = Expected(secret), Greylist(store, GreyTerms(max_waiting=1), key_secret=secret)
    ann, bob = envelope.read("ann@example.net"), envelope.read("bob@example.net")
    mail.put(store, ann, 60, "test")

    def told(client, box):
        call = grey.attempt(client, "joe@example.org", box.key, 300, mail.place(box))
        touch = Touch.read(store.run(*call))
        apart = mail.read(store.run(*mail.ask(box))) if touch.expected is None else touch.expected
        return touch.state, touch.expected, apart

    alone = not url.startswith("cluster:")
    yes, no = (True, False) if alone else (None, None)
    client = f"198.51.100.{len(secret)}"
    assert told(client, ann) == (State.NEW, yes, True)
    assert told(client, ann) == (State.EARLY, yes, True)
    assert told(client, bob) == (State.FULL, no, False)
    assert mail.take(store, ann) > 0
    assert told(client, ann) == (State.EARLY, no, False)
    passing = grey.attempt(client, "joe@example.org", ann.key, 0, mail.place(ann))
    passed = Touch.read(store.run(*passing))
    assert (passed.state, passed.expected) == (State.PASSED, None)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("hash", "soon ann"), ("hash", ""), ("hash", "1 ann"), ("hash", "9" * 400 + " x"), ("string", "1")],
)
def test_what_is_no_expectation_delays(server, kind, value):
    """The store's content is nothing to trust: it may let nobody in, nor break an attempt."""
    box, mail = envelope.read("ann@example.net"), Expected()
    key, field = mail.place(box)
    with server.client() as client, contextlib.closing(Store.open(server.url, 2.0)) as store:
        client.flushdb()
        if kind == "hash":
            client.hset(key, field, value)
        else:
            client.set(key, value)
        call = Greylist(store, GreyTerms()).attempt(
            "192.0.2.1", "joe@example.org", box.key, 300, (key, field)
        )
        endless = value.startswith("9")
        assert Touch.read(store.run(*call)) == (State.NEW, 300, 0, endless)
        assert mail.read(store.run(*mail.ask(box))) is endless
