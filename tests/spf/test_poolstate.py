"""What becomes of a pool's state with each answer; its bytes, good and bad; which pools a client is in."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.clientaddress import Carried
from hybridgrey.policy.rule import Pools
from hybridgrey.spf import poolstate
from hybridgrey.spf.poolindex import PoolIndex
from hybridgrey.spf.pools import Pool
from hybridgrey.spf.poolstate import GRACE, State

NOW = 1_800_000_000.0
ONE, TWO = (poolstate.packed(ip_network(text)) for text in ("192.0.2.0/24", "198.51.100.0/24"))
OLD = State((ONE,), NOW)


def pool(*texts, problem="", partial=False):
    return Pool(tuple(map(ip_network, texts)), 300, problem, partial)


GOOD = pool("198.51.100.0/24")
FAILED = pool(problem="no answer", partial=True)
HALF = pool("198.51.100.0/24", problem="no answer, at mx", partial=True)
GONE = pool(problem="no record")
BROKEN = pool("198.51.100.0/24", problem="syntax")
LATER = NOW + 60
CASES = [
    ("first", None, GOOD, LATER, State((TWO,), LATER)),
    ("changed", OLD, GOOD, LATER, State((TWO,), LATER)),
    ("emptied", OLD, pool(), LATER, State((), LATER)),
    ("dead at first", None, FAILED, LATER, None),
    ("dead", OLD, FAILED, LATER, OLD),
    ("dead for years", OLD, FAILED, NOW + 1000 * GRACE, OLD),
    ("half at first", None, HALF, LATER, State((TWO,), LATER, whole=False)),
    ("half of a whole", OLD, HALF, LATER, OLD),
    ("half of a half", State((ONE,), NOW, whole=False), HALF, LATER, State((TWO,), LATER, whole=False)),
    ("dead after a half", State((ONE,), NOW, whole=False), FAILED, LATER, State((ONE,), NOW, whole=False)),
    ("whole after a half", State((ONE,), NOW, whole=False), GOOD, LATER, State((TWO,), LATER)),
    ("gone at first", None, GONE, LATER, State((), LATER)),
    ("gone", OLD, GONE, LATER, OLD),
    ("gone for long", OLD, GONE, NOW + GRACE, State((), NOW + GRACE)),
    ("broken", OLD, BROKEN, LATER, OLD),
    ("broken for long", OLD, BROKEN, NOW + GRACE, State((TWO,), NOW + GRACE)),
    ("clock set back", OLD, GONE, NOW - 1000, OLD),
]


@pytest.mark.parametrize(
    ("old", "answer", "now", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_renewed(old, answer, now, wanted):
    """A failure changes nothing; a record that is gone or broken is believed after a time."""
    assert poolstate.renewed(old, answer, now) == wanted


networks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(14, 32)).map(
        lambda n: ipaddress.IPv4Network(n, strict=False)
    ),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(32, 128)).map(
        lambda n: ipaddress.IPv6Network(n, strict=False)
    ),
)
states = st.dictionaries(
    st.sampled_from(["a.test", "b.test", "_spf.c.test"]),
    st.builds(
        State,
        st.lists(networks.map(poolstate.packed), max_size=5).map(tuple),
        st.integers(0, 2**33).map(float),
        st.booleans(),
    ),
)


@given(states)
def test_bytes_and_back(given):
    """What is written is read."""
    assert poolstate.parse(poolstate.dump(given)) == given


def document(**pools):
    return json.dumps({"version": 1, "pools": pools})


def one(**fields):
    return document(**{"a.test": {"at": 5, "whole": True, "networks": ["192.0.2.0/24"], **fields}})


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "1", "null", '{"version": 2, "pools": {}}', '{"version": 1}'),
        *('{"version": 1, "pools": []}', "[" * 100_000, "\xff", " " * (poolstate.MAX_BYTES + 1)),
    ],
    ids=range(11),
)
def test_no_state_at_all(text):
    """It is refused with a reason."""
    with pytest.raises(ValueError, match=r"no state|larger"):
        poolstate.parse(text.encode("latin-1"))


@pytest.mark.parametrize(
    "text",
    [
        document(**{"a.test": None}),
        one(at="5"),
        one(at=True),
        one(at=-1),
        one(at=1 << 50),
        one(whole=1),
        one(networks={}),
        one(networks=["192.0.2.0"]),
        one(networks=["192.0.2.1/24"]),
        one(networks=["192.0.2.0/33"]),
        one(networks=["192.0.2.0/٢٤"]),
        one(networks=["192.0.2\0/24"]),
        one(networks=["0.0.0.0/0"]),
        one(networks=["::/0"]),
        one(networks=["10.0.0.0/13"]),
        one(networks=[5]),
        one(networks=["192.0.2.0/24"] * 5000),
        document(**{"a" * 300: {"at": 5, "whole": True, "networks": []}}),
    ],
)
def test_bad_states_are_left_out(text):
    """A state that is wrong, or would let in the world, is as if it had never been."""
    assert poolstate.parse(text.encode()) == {}


@given(st.binary(max_size=200))
def test_any_bytes(data):
    """Whatever is in the file: states, or ValueError."""
    with contextlib.suppress(ValueError):
        assert isinstance(poolstate.parse(data), dict)


def test_too_many_networks_for_the_file():
    """What has no room is left out as a whole, and what is written can be read."""
    many = tuple((n.to_bytes(4, "big"), 32) for n in range(4000))
    states = {f"{n}.test": State(many, 5.0) for n in range(20)}
    read = poolstate.parse(poolstate.dump(states))
    assert 0 < len(read) < 20
    assert sum(len(state.networks) for state in read.values()) <= poolstate.MAX_TOTAL


def address(text):
    return ipaddress.ip_address(text).packed


def test_whose_pool_a_client_is_in():
    """By network, in all pools that have it; unknown where a pool was never resolved, or not to its end."""
    states = {
        "a.test": State(
            tuple(map(poolstate.packed, map(ip_network, ["192.0.2.0/24", "2001:db8::/32"]))), 5.0
        ),
        "b.test": State((poolstate.packed(ip_network("192.0.2.128/25")),), 5.0),
        "half.test": State((poolstate.packed(ip_network("198.51.100.7/32")),), 5.0, whole=False),
        "unnamed.test": State((ONE,), 5.0),
    }
    index = PoolIndex(["a.test", "b.test", "half.test", "new.test"], states)
    unknown = frozenset({"half.test", "new.test"})
    for client, within in {
        "192.0.2.1": {"a.test"},
        "192.0.2.200": {"a.test", "b.test"},
        "2001:db8::1": {"a.test"},
        "198.51.100.7": {"half.test"},
        "203.0.113.1": set(),
        "::192.0.2.1": set(),
    }.items():
        assert index.of(address(client)) == Pools(frozenset(within), unknown - within)
    assert index.of(None) == Pools()


def test_an_address_that_carries_another():
    """One that is proven counts as its own; one that anybody can make does not."""
    index = PoolIndex(["a.test"], {"a.test": State((ONE,), 5.0)})
    client, inside = address("64:ff9b::c000:201"), address("192.0.2.1")
    assert index.of(client, Carried(inside, proven=True)).within == {"a.test"}
    assert index.of(client, Carried(inside, proven=False)).within == frozenset()


@given(st.lists(networks, max_size=8), st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1)))
def test_as_ipaddress_has_it(nets, number):
    """A client is in the pool exactly if it is in one of its networks."""
    six = number >= 2**32
    client = ipaddress.IPv6Address(number) if six else ipaddress.IPv4Address(number)
    index = PoolIndex(["a.test"], {"a.test": State(tuple(map(poolstate.packed, nets)), 5.0)})
    near = [net.network_address for net in nets] + [client]
    for one_ in near:
        assert bool(index.of(one_.packed).within) is any(one_ in net for net in nets)
