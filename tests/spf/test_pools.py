"""Pools: what a domain authorises for whoever sends; laws that bind them to the evaluation."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.spf.evaluate import MAX_QUESTIONS, Identity, evaluate
from hybridgrey.spf.pools import MAX_NETWORKS, collect
from hybridgrey.spf.question import Answer, Question, Status
from hybridgrey.spf.ranges import merged, networks4, without
from hybridgrey.spf.record import Result
from parts.laws import examples
from spf.zone import TIMEOUT, Zone, resolve, simple

POOLS = {
    # name: records, networks, part of the problem
    "plain": (
        {"x.example": "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"},
        ["192.0.2.0/24", "2001:db8::/32"],
        "",
    ),
    "nested": (
        {
            "x.example": "v=spf1 include:_a.example include:_b.example ~all",
            "_a.example": "v=spf1 ip4:192.0.2.0/25 include:_c.example -all",
            "_b.example": "v=spf1 redirect=_d.example",
            "_c.example": "v=spf1 ip4:192.0.2.128/25",
            "_d.example": "v=spf1 ip4:203.0.113.7 a:h.example/28 mx:h.example//64",
            "h.example": [
                ("A", "198.51.100.9"),
                ("AAAA", "2001:db8::9"),
                ("MX", "H.example."),
                ("MX", ""),
            ],
        },
        ["192.0.2.0/24", "198.51.100.0/28", "203.0.113.7/32", "2001:db8::/64"],
        "",
    ),
    "by the domain's name": (
        {
            "x.example": "v=spf1 include:%{d}._spf.example a:%{o1}.example",
            "x.example._spf.example": "v=spf1 a:%{o}.h.example a:%{d3}",
            "x.example.h.example": [("A", "192.0.2.1")],
            "example._spf.example": [("A", "192.0.2.3")],
            "example.example": [("A", "192.0.2.5")],
        },
        ["192.0.2.1/32", "192.0.2.3/32", "192.0.2.5/32"],
        "over 2 void look-ups, at a:%{o1}.example, for IPv6 clients",
    ),
    "behind all": (
        {"x.example": "v=spf1 ip4:192.0.2.1 ?all ip4:192.0.2.9 redirect=y.example"},
        ["192.0.2.1/32"],
        "",
    ),
    "+all adds nothing": ({"x.example": "v=spf1 ip4:192.0.2.1 +all"}, ["192.0.2.1/32"], ""),
    "excluded before": (
        {"x.example": "v=spf1 -ip4:192.0.2.1 ?ip4:192.0.2.128/25 ip4:192.0.2.0/30 ip4:192.0.2.128/24"},
        [f"192.0.2.{n}" for n in ("0/32", "2/31", "4/30", "8/29", "16/28", "32/27", "64/26")],
        "",
    ),
    "excluded behind": ({"x.example": "v=spf1 ip4:192.0.2.0/24 -ip4:192.0.2.1 -all"}, ["192.0.2.0/24"], ""),
    "an include excludes for itself": (
        {
            "x.example": "v=spf1 include:y.example ip4:192.0.2.0/31",
            "y.example": "v=spf1 -ip4:192.0.2.0 ip4:192.0.2.0/30 -all",
        },
        ["192.0.2.0/30"],
        "",
    ),
    "excluded from includes": (
        {"x.example": "v=spf1 -a:h.example include:y.example", "h.example": [("A", "192.0.2.0")]}
        | {"y.example": "v=spf1 ip4:192.0.2.0/31 -all"},
        ["192.0.2.1/32"],
        "",
    ),
    "terms of the client": (
        {"x.example": "v=spf1 ptr exists:%{i}.y.example a:%{l}.y.example ip4:192.0.2.1 -all"},
        ["192.0.2.1/32"],
        "",
    ),
    "three that may be void": (
        {"x.example": "v=spf1 exists:%{i}.y.example a:%{i}.y.example a:%{h} ip4:192.0.2.1 -all"},
        [],
        "void",
    ),
    "behind a refusal by name": (
        {"x.example": "v=spf1 ip4:192.0.2.1 -exists:%{i}.y.example ip4:192.0.2.2"},
        ["192.0.2.1/32"],
        "",
    ),
    "behind ?ptr": ({"x.example": "v=spf1 ip4:192.0.2.1 ?ptr ip4:192.0.2.2"}, ["192.0.2.1/32"], ""),
    "behind -include": (
        {"x.example": "v=spf1 ip4:192.0.2.1 -include:y.example ip4:192.0.2.2", "y.example": "v=spf1 +all"},
        ["192.0.2.1/32"],
        "",
    ),
    "behind an include of the client": (
        {"x.example": "v=spf1 ip4:192.0.2.1 include:%{i}.y.example ip4:192.0.2.2"},
        ["192.0.2.1/32"],
        "",
    ),
    "too wide": (
        {"x.example": "v=spf1 ip4:192.0.2.0/24 ip4:10.0.0.0/12 ip4:10.1.0.0/16 ip6:2001::/31"},
        ["192.0.2.0/24"],
        "",
    ),
    "too much": (
        {"x.example": "v=spf1 " + " ".join(f"ip4:10.{4 * n}.0.0/14" for n in range(9))},
        [],
        "times the addresses",
    ),
    "no record": ({"x.example": [("TXT", "hello")]}, [], "no record of x.example"),
    "no such name": ({}, [], "no record of x.example"),
    "an include without a record": (
        {"x.example": "v=spf1 ip4:192.0.2.1 include:y.example ip4:192.0.2.2"},
        ["192.0.2.1/32"],
        "no record of y.example",
    ),
    "a syntax error": ({"x.example": "v=spf1 ip4:192.0.2.1 foo"}, [], "neither a mechanism"),
    "a loop": (
        {"x.example": "v=spf1 ip4:192.0.2.1 include:x.example ip4:192.0.2.2"},
        ["192.0.2.1/32"],
        "over 10",
    ),
    "eleven hosts": (
        {"x.example": [("TXT", "v=spf1 mx"), *[("MX", f"h{n}.example") for n in range(11)]]},
        [],
        "over 10 hosts",
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_pool(name):
    """The networks of a domain, and what is wrong with it."""
    records, networks, problem = POOLS[name]
    pool = resolve(collect("X.example."), simple(records))
    assert [str(network) for network in pool.networks] == networks
    assert problem in pool.problem
    assert bool(problem) == bool(pool.problem)
    assert not pool.partial


PARTIAL = [
    ({"x.example": [TIMEOUT]}, []),
    ({"x.example": "v=spf1 ip4:192.0.2.1 include:y.example", "y.example": [TIMEOUT]}, ["192.0.2.1/32"]),
    ({"x.example": "v=spf1 a:y.example ip4:192.0.2.1", "y.example": [TIMEOUT]}, []),
    (
        {
            "x.example": [("TXT", "v=spf1 mx"), ("MX", "h.example"), ("MX", "i.example")],
            "h.example": [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")],
            "i.example": [TIMEOUT],
        },
        ["192.0.2.1/32", "2001:db8::1/128"],
    ),
]


@pytest.mark.parametrize(("records", "networks"), PARTIAL)
def test_partial(records, networks):
    """A pool of which a part was not answered says so, so that an older one can be kept."""
    pool = resolve(collect("x.example"), simple(records))
    assert pool.partial
    assert pool.problem.startswith("no answer")
    assert [str(network) for network in pool.networks] == networks


def test_asked_once():
    """Both families' walks share their answers; the pool holds as long as the shortest of them."""
    zone = simple({"x.example": "v=spf1 include:y.example a:h.example", "y.example": "v=spf1 mx:h.example"})
    zone.records["h.example"] = [("A", "192.0.2.1"), ("MX", "h.example")]
    pool = resolve(collect("x.example"), zone)
    assert len(zone.asked) == len(set(zone.asked)) == 5
    assert pool.ttl == 300


def test_cut_to_pieces():
    """Exclusions that make tens of thousands of networks give no pool."""
    holes = " ".join(f"-ip6:2001:db8:{n:x}::1" for n in range(0, 1200, 4))
    pool = resolve(collect("x.example"), simple({"x.example": f"v=spf1 {holes} ip6:2001:db8::/32"}))
    assert pool.networks == ()
    assert f"over {MAX_NETWORKS}" in pool.problem


# -- laws

ADDRESSES = [f"10.0.{n // 4}.{n % 4}" for n in range(16)] + [f"2001:db8::{n:x}" for n in range(8)]
NAMES = [f"{c}.x.example" for c in "abcd"]
SPECS = [*NAMES, "%{d}", "%{o}", "%{i}.x.example", "%{l}.x.example", "%{p}", "missing.x.example", "%{h}"]
NETWORKS4 = [f"10.0.{n}.0/{length}" for n in range(4) for length in (22, 24, 30, 31)] + [
    "0.0.0.0/0",
    "10.0.0.1",
]
NETWORKS6 = ["2001:db8::/32", "2001:db8::/126", "2001:db8::4", "::/0"]
SIGNS = st.sampled_from(["", "", "", "", "-", "~", "?"])


def zones(signs, specs, kinds):
    """Zones of a few domains that refer to each other."""
    mechanisms = st.one_of(
        st.sampled_from(NETWORKS4).map(lambda text: f"ip4:{text}"),
        st.sampled_from(NETWORKS4).map(lambda text: f"ip4:{text}"),
        st.sampled_from(NETWORKS6).map(lambda text: f"ip6:{text}"),
        st.builds("{}:{}".format, st.sampled_from(kinds), st.sampled_from(specs)),
        st.sampled_from(["a", "mx", "all", "a/31//127", "mx/24", "a/8"]),
    )
    terms = st.lists(st.builds("{}{}".format, signs, mechanisms), max_size=6)
    redirects = st.lists(st.sampled_from(specs).map("redirect={}".format), max_size=1)
    records = st.builds(lambda terms, more: " ".join(["v=spf1", *terms, *more]), terms, redirects)
    parts = {
        "TXT": st.lists(records, min_size=1, max_size=1) | st.lists(records, max_size=2),
        "A": st.lists(st.sampled_from(ADDRESSES[:16]), max_size=2),
        "AAAA": st.lists(st.sampled_from(ADDRESSES[16:]), max_size=2),
        "MX": st.lists(st.sampled_from(NAMES), max_size=3),
    }
    rows = st.fixed_dictionaries(parts).map(
        lambda made: [(kind, value) for kind, values in made.items() for value in values]
    )
    return st.builds(
        lambda top, others, pointers: {"x.example": top} | others | pointers,
        rows,
        st.dictionaries(st.sampled_from(NAMES), rows, max_size=4),
        st.dictionaries(
            st.sampled_from([ipaddress.ip_address(text).reverse_pointer for text in ADDRESSES]),
            st.sampled_from(NAMES).map(lambda name: [("PTR", name)]),
        ),
    )


ZONES = zones(SIGNS, SPECS, ["a", "mx", "include", "include", "include", "exists", "ptr"])
PLAIN_ZONES = zones(st.sampled_from(["", "", "", "-", "?"]), [*NAMES, "%{d}"], ["a", "mx"]) | zones(
    st.just(""), [*NAMES, "%{o}", "missing.x.example"], ["a", "mx", "include", "include"]
)
LOCALS = ["a", "user", "postmaster"]


def result(records, address, local="user", helo="mail.example.org"):
    zone = Zone(records)
    identity = Identity.of(ipaddress.ip_address(address).packed, "x.example", local, helo)
    outcome = resolve(evaluate(identity), zone)
    assert len(zone.asked) <= MAX_QUESTIONS
    return outcome


@given(ZONES)
@settings(max_examples=examples(300))
def test_a_pool_passes(records):
    """A client in a domain's pool passes for any sender of it."""
    pool = resolve(collect("x.example"), Zone(records))
    for address in ADDRESSES:
        if any(ipaddress.ip_address(address) in network for network in pool.networks):
            for local in LOCALS:
                assert result(records, address, local).result is Result.PASS, (address, pool)


@given(PLAIN_ZONES)
def test_a_proof_is_in_the_pool(records):
    """Who is proven is in the pool, where no term asks for the client and no include is an exclusion."""
    pool = resolve(collect("x.example"), Zone(records))
    for address in ADDRESSES:
        outcome = result(records, address)
        if outcome.proven and "times the addresses" not in pool.problem:
            assert any(ipaddress.ip_address(address) in network for network in pool.networks), (address, pool)


@given(st.lists(st.tuples(SIGNS, st.sampled_from(NETWORKS4)), max_size=8), st.sampled_from(ADDRESSES[:16]))
def test_networks_only(terms, address):
    """A record of networks: the first one that has the client decides."""
    record = " ".join(["v=spf1", *[f"{sign}ip4:{network}" for sign, network in terms]])
    wanted = next(
        (
            sign
            for sign, network in terms
            if ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
        ),
        "?",
    )
    names = {"": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}
    assert result({"x.example": [("TXT", record)]}, address).result is names[wanted]


TEXTS = ["v=spf1 a", "v=spf1 mx:%{i}.a.x.example ip4:10.0.0.0/24 include:b.x.example", "v=spf1 redirect=%{p}"]
TEXTS += [
    "v=spf1 include:x.example",
    "v=spf1 a:a.x.example a:b.x.example ptr exists:%{l} -all",
    "v=spf1 \xff",
]


@given(st.data())
def test_any_answers(data):
    """Whatever a nameserver says, both end within their bounds, and nothing is raised."""
    texts = st.sampled_from(TEXTS).map(lambda text: text.encode("latin-1"))
    answers = st.builds(
        Answer,
        st.sampled_from(Status),
        st.integers(0, 2**31),
        st.lists(texts | st.binary(max_size=16), max_size=2).map(tuple),
        st.lists(st.sampled_from(NAMES) | st.text(max_size=8), max_size=12).map(tuple),
    )

    class Any(Zone):
        def answer(self, question):
            assert isinstance(question, Question)
            self.asked.append(question)
            return data.draw(answers)

    local, helo = data.draw(st.text(max_size=20)), data.draw(st.text(max_size=20))
    zone = Any({})
    outcome = resolve(evaluate(Identity.of(b"\n\0\0\1", "x.example", local, helo)), zone)
    assert len(zone.asked) <= MAX_QUESTIONS
    assert outcome.proven <= (outcome.result is Result.PASS)
    zone = Any({})
    resolve(collect("x.example"), zone)
    assert len(zone.asked) <= 2 * MAX_QUESTIONS


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda t: (t[0], t[0] + t[1])), max_size=8
)


@given(SPANS, SPANS)
def test_spans_are_sets(spans, others):
    """Merging, subtracting and summing up keep the addresses."""
    numbers = {n for first, last in spans for n in range(first, last + 1)}
    gone = {n for first, last in others for n in range(first, last + 1)}
    whole = merged(spans)
    assert {n for first, last in whole for n in range(first, last + 1)} == numbers
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(whole))
    left = without(spans, merged(others))
    assert {n for first, last in left for n in range(first, last + 1)} == numbers - gone
    assert {int(address) for network in networks4(left, 100) for address in network} == numbers - gone
