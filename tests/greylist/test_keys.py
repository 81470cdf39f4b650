"""The keys of the greylist: any text, clear or hidden, splits again and stays bounded."""

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greylist.touched import (
    CLIENT,
    DELAY,
    RECIPIENT,
    SENDER,
    age,
    greylist,
    stored,
    touch,
)
from hybridgrey.greylist.triplets import (
    MAX_PART,
    ParsedKey,
    State,
    parse_key,
)
from parts.redisserver import Redis

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


def test_networks_are_networks():
    """The clear network of a key is one that the ipaddress module reads."""
    network = parse_key(greylist(None).keys(CLIENT, SENDER, RECIPIENT)[1]).network
    assert ipaddress.ip_network(network) == ipaddress.ip_network("192.0.2.0/24")
