"""What SPF proves and what it does not: hostile records, the records of large senders, errors."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from hybridgrey.spf.evaluate import MAX_QUESTIONS, Identity, evaluate
from hybridgrey.spf.pools import collect
from hybridgrey.spf.proof import Widths, area
from hybridgrey.spf.question import Answer, Ask, Question, Status
from hybridgrey.spf.record import Result
from hybridgrey.spf.walk import LEAST_HELD
from spf.zone import TIMEOUT, resolve, simple

CLIENT = "41.0.0.5"
CLIENT_ADDRESS = ipaddress.ip_address(CLIENT)
HELO = "mail.x.example"


def checked(records, client=CLIENT, local="user", widths=None, domain="x.example"):
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    identity = Identity.of(socket.inet_pton(family, client), domain, local, HELO)
    zone = simple(records)
    outcome = resolve(evaluate(identity, widths or Widths()), zone)
    assert len(zone.asked) <= MAX_QUESTIONS
    return outcome


def pool(records, domain="x.example", widths=None):
    return resolve(collect(domain, widths or Widths()), simple(records))


def nets(first, count, length=14):
    return " ".join(f"ip4:{first + n // 64}.{4 * (n % 64)}.0.0/{length}" for n in range(count))


def shared(count, per):
    """Forty /14s split over includes, the client's network in the first."""
    records = {"x.example": "v=spf1 " + " ".join(f"include:i{n}.example" for n in range(count // per))}
    for n in range(count // per):
        records[f"i{n}.example"] = "v=spf1 " + " ".join(
            f"ip4:{41 + (n * per + k) // 64}.{4 * ((n * per + k) % 64)}.0.0/14" for k in range(per)
        )
    return records


A = [("A", CLIENT)]
HOSTILE = {
    # name: records, result, the reason why a pass is no proof
    "+all": ({"x.example": "v=spf1 +all"}, "pass", "by all"),
    "all in an include": (
        {"x.example": "v=spf1 include:y.example -all", "y.example": "v=spf1 all"},
        "pass",
        "by all",
    ),
    "all by redirect": (
        {"x.example": "v=spf1 redirect=y.example", "y.example": "v=spf1 all"},
        "pass",
        "by all",
    ),
    "two halves": ({"x.example": "v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all"}, "pass", "wider"),
    "a /8": ({"x.example": "v=spf1 ip4:41.0.0.0/8 -all"}, "pass", "wider"),
    "a /13": ({"x.example": "v=spf1 ip4:41.0.0.0/13 -all"}, "pass", "wider"),
    "a /8 beside": ({"x.example": "v=spf1 ip4:41.0.0.5 ip4:1.0.0.0/8 -all"}, "pass", "records"),
    "exists with the client": (
        {"x.example": "v=spf1 exists:%{i}.y.example", "41.0.0.5.y.example": A},
        "pass",
        "macro",
    ),
    "exists": ({"x.example": "v=spf1 exists:y.example", "y.example": A}, "pass", "by exists"),
    "a with the client": (
        {"x.example": "v=spf1 a:%{i}.y.example", "41.0.0.5.y.example": A},
        "pass",
        "macro",
    ),
    "a with HELO": ({"x.example": "v=spf1 a:%{h} -all", HELO: A}, "pass", "macro"),
    "a with the version": (
        {"x.example": "v=spf1 a:%{v}.y.example", "in-addr.y.example": A},
        "pass",
        "macro",
    ),
    "a with the sender": (
        {"x.example": "v=spf1 a:%{s}.y.example", "user@x.example.y.example": A},
        "pass",
        "macro",
    ),
    "a with the verified name": (
        {
            "x.example": "v=spf1 a:%{p}",
            "5.0.0.41.in-addr.arpa": [("PTR", "h.example")],
            "h.example": A,
        },
        "pass",
        "macro",
    ),
    "mx with the local part": (
        {"x.example": "v=spf1 mx:%{l}.y.example", "user.y.example": [("MX", "h.example")], "h.example": A},
        "pass",
        "macro",
    ),
    "include with the client": (
        {"x.example": "v=spf1 include:%{i}.y.example", "41.0.0.5.y.example": "v=spf1 ip4:41.0.0.5"},
        "pass",
        "macro",
    ),
    "redirect with the local part": (
        {"x.example": "v=spf1 redirect=%{l}.y.example", "user.y.example": "v=spf1 ip4:41.0.0.5 -all"},
        "pass",
        "macro",
    ),
    "deep below a macro": (
        {
            "x.example": "v=spf1 include:%{l}.y.example -all",
            "user.y.example": "v=spf1 redirect=z.example",
            "z.example": "v=spf1 include:w.example",
            "w.example": [("TXT", "v=spf1 a"), *A],
        },
        "pass",
        "macro",
    ),
    "forty /14s": ({"x.example": f"v=spf1 {nets(41, 40)} -all"}, "pass", "records"),
    "nine /14s": ({"x.example": f"v=spf1 {nets(41, 9)} -all"}, "pass", "records"),
    "forty /14s in four includes": (shared(40, 10), "pass", "records"),
    "an address for all, by a/8": ({"x.example": [("TXT", "v=spf1 a/8"), *A]}, "pass", "wider"),
    "mx/0": (
        {"x.example": [("TXT", "v=spf1 mx/0"), ("MX", "h.example")], "h.example": [("A", "1.1.1.1")]},
        "pass",
        "wider",
    ),
    "forty addresses, by a/14": (
        {"x.example": [("TXT", "v=spf1 a/14"), *[("A", f"41.{4 * n}.0.1") for n in range(40)]]},
        "pass",
        "records",
    ),
    "ptr": (
        {
            "x.example": "v=spf1 ptr",
            "5.0.0.41.in-addr.arpa": [("PTR", "h.x.example")],
            "h.x.example": A,
        },
        "pass",
        "by ptr",
    ),
    "a loop": ({"x.example": "v=spf1 include:x.example ip4:41.0.0.5"}, "permerror", ""),
    "a loop of two": (
        {"x.example": "v=spf1 include:y.example all", "y.example": "v=spf1 redirect=x.example"},
        "permerror",
        "",
    ),
    "a syntax error": ({"x.example": "v=spf1 ip4:41.0.0.5 ip4:41.0.0.300"}, "permerror", ""),
    "an include's syntax error": (
        {"x.example": "v=spf1 include:y.example ip4:41.0.0.5", "y.example": "v=spf1 a:"},
        "permerror",
        "",
    ),
    "a dead nameserver": ({"x.example": [TIMEOUT]}, "temperror", ""),
    "an include's dead nameserver": (
        {"x.example": "v=spf1 include:y.example ip4:41.0.0.5", "y.example": [TIMEOUT]},
        "temperror",
        "",
    ),
    "an MX host's dead nameserver": (
        {
            "x.example": [("TXT", "v=spf1 mx -all"), ("MX", "h.example"), ("MX", "i.example")],
            "h.example": [("A", "1.1.1.1")],
            "i.example": [TIMEOUT],
        },
        "temperror",
        "",
    ),
    "two records": (
        {"x.example": [("TXT", "v=spf1 ip4:41.0.0.5"), ("TXT", "v=spf1 -all")]},
        "permerror",
        "",
    ),
    "a record of 64 kB": ({"x.example": "v=spf1 " + "ip4:41.0.0.5 " * 5000}, "permerror", ""),
    "twelve names": (
        {f"h{n}.example": A for n in range(12)}
        | {
            "x.example": [
                ("TXT", "v=spf1 mx ip4:41.0.0.5"),
                *[("MX", f"h{n}.example") for n in range(12)],
            ]
        },
        "permerror",
        "",
    ),
    "three dead names": (
        {"x.example": "v=spf1 a:a.example a:b.example a:c.example ip4:41.0.0.5"},
        "permerror",
        "",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_proof(name):
    """A record that authorises anybody, or is broken, proves nobody, and says why."""
    records, result, doubt = HOSTILE[name]
    outcome = checked(records)
    assert outcome.result == result, outcome
    assert not outcome.proven
    assert doubt in outcome.doubt
    assert bool(outcome.doubt) is (result == "pass")
    assert bool(outcome.error) is (result != "pass")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_pool(name):
    """Nor does it give a pool in which the client is, but for what it names before it breaks."""
    records, _, _ = HOSTILE[name]
    found = pool(records)
    assert not any(CLIENT_ADDRESS in network for network in found.networks if network.version == 4)


PROVEN = {
    # name: records, the term that matches, whose record it is in
    "an address": ({"x.example": "v=spf1 ip4:41.0.0.5 -all"}, "ip4:41.0.0.5", "x.example"),
    "a /14": ({"x.example": "v=spf1 ip4:41.0.0.0/14 -all"}, "ip4:41.0.0.0/14", "x.example"),
    "eight /14s": ({"x.example": f"v=spf1 {nets(41, 8)} -all"}, "ip4:41.0.0.0/14", "x.example"),
    "the same /14 in four includes": (
        {
            "x.example": "v=spf1 include:a.example include:b.example include:c.example include:y.example",
            **{f"{n}.example": "v=spf1 ip4:51.0.0.0/12 -all" for n in "abc"},
            "y.example": "v=spf1 ip4:41.0.0.5 -all",
        },
        "ip4:41.0.0.5",
        "y.example",
    ),
    "before all": ({"x.example": "v=spf1 ip4:41.0.0.5 +all"}, "ip4:41.0.0.5", "x.example"),
    "a": ({"x.example": [("TXT", "v=spf1 a -all"), *A]}, "a", "x.example"),
    "mx": (
        {"x.example": [("TXT", "v=spf1 mx/24 -all"), ("MX", "H.example.")], "h.example": [("A", "41.0.0.9")]},
        "mx/24",
        "x.example",
    ),
    "mx with one dead host": (
        {
            "x.example": [("TXT", "v=spf1 mx -all"), ("MX", "dead.example"), ("MX", "h.example")],
            "dead.example": [TIMEOUT],
            "h.example": A,
        },
        "mx",
        "x.example",
    ),
    "include and redirect": (
        {
            "x.example": "v=spf1 redirect=y.example",
            "y.example": "v=spf1 include:z.example ~all",
            "z.example": "v=spf1 ip4:41.0.0.0/16 ?all",
        },
        "ip4:41.0.0.0/16",
        "z.example",
    ),
    "a macro of the domain": (
        {
            "x.example": "v=spf1 include:%{d}._spf.y.example -all",
            "x.example._spf.y.example": "v=spf1 a:%{o} -all",
        }
        | {"x.example": [("TXT", "v=spf1 include:%{d}._spf.y.example -all"), *A]},
        "a:%{o}",
        "x.example._spf.y.example",
    ),
    "a macro that only excludes": (
        {"x.example": "v=spf1 -exists:%{i}.bad.example ip4:41.0.0.5 -all"},
        "ip4:41.0.0.5",
        "x.example",
    ),
    "a wide network that only excludes": (
        {
            "x.example": "v=spf1 -ip4:128.0.0.0/1 -include:y.example ip4:41.0.0.5 -all",
            "y.example": "v=spf1 ip4:1.0.0.0/8",
        },
        "ip4:41.0.0.5",
        "x.example",
    ),
}


@pytest.mark.parametrize("name", PROVEN)
def test_proof(name):
    """A client that is named is proven, and the match is told."""
    records, term, domain = PROVEN[name]
    outcome = checked(records)
    assert outcome.proven, outcome
    assert (outcome.term, outcome.domain) == (term, domain)
    assert outcome.ttl == (0 if "dead" in name else 300)


def test_proven_area_is_bounded():
    """However forty /14s are split over includes, no more than a /11 of clients is proven."""
    for per in (1, 2, 4, 5, 8, 10, 20, 40):
        if 40 // per > 10:
            continue
        records = shared(40, per)
        proven = [n for n in range(40) if checked(records, f"41.{4 * n}.0.1").proven]
        assert len(proven) <= 8, per
        assert len(proven) == (8 // per * per), per
        assert not pool(records).networks


def test_a_record_that_changes_at_each_question():
    """A nameserver with another eight /14s for each question about one name gets no more than a /11."""
    zone = simple({})
    texts = iter(f"v=spf1 {nets(n, 8)} include:x.example" for n in range(41, 60))
    records = {"x.example": [("TXT", "")]}

    def answer(question):
        records["x.example"] = [("TXT", next(texts))]
        return simple(records).answer(question)

    zone.answer = answer
    outcome = resolve(evaluate(Identity.of(bytes([44, 0, 0, 1]), "x.example")), zone)
    assert outcome.result is Result.PASS
    assert not outcome.proven


TOLD = {
    # name: what stands before the include
    "a list of the client": "-exists:%{i}.y.example",
    "a list of the sender": "?exists:%{l}.y.example",
    "addresses for HELO": "~a:%{h}.y.example",
    "a record for the client": "-include:%{i}.z.example",
    "the client's name": "-ptr:y.example",
    "deep in an include": "?include:v.example",
}


@pytest.mark.parametrize("first", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize(("ttl", "proves"), [(0, False), (LEAST_HELD - 1, False), (LEAST_HELD, True)])
def test_a_record_written_for_the_client(first, ttl, proves):
    """A question has told the nameserver who the client is; what it answers then must hold for others."""
    zone = simple(
        {
            "x.example": f"v=spf1 {first} include:%{{d}}.w.example -all",
            f"{CLIENT}.z.example": "v=spf1 -all",
            "v.example": "v=spf1 exists:%{i}.y.example -all",
        }
    )
    plain = zone.answer

    def answer(question):
        if question == Question("x.example.w.example", "TXT"):
            return Answer(Status.FOUND, ttl, (f"v=spf1 ip4:{CLIENT}".encode(),))
        return plain(question)

    zone.answer = answer
    outcome = resolve(evaluate(Identity.of(bytes([41, 0, 0, 5]), "x.example", "user", HELO)), zone)
    assert outcome.result is Result.PASS
    assert outcome.proven is proves, outcome.doubt


def test_what_is_asked_before_may_be_short_lived():
    """So is the record itself, a list of the client, and what is in the record already."""
    record = "v=spf1 -a:y.example -exists:%{i}.y.example ip4:41.0.0.5"
    zone = simple({"x.example": record, "y.example": [("A", "192.0.2.1")]})
    plain = zone.answer
    zone.answer = lambda question: plain(question)._replace(ttl=0)
    outcome = resolve(evaluate(Identity.of(bytes([41, 0, 0, 5]), "x.example")), zone)
    assert (outcome.proven, outcome.ttl) == (True, 0)


IPV6 = [
    # record, client, whether it is a proof
    ("v=spf1 ip6:2001:db8::/32 -all", "2001:db8::1", True),
    ("v=spf1 ip6:2001:db8::/31 -all", "2001:db8::1", False),
    ("v=spf1 ip6:::/0 -all", "2001:db8::1", False),
    ("v=spf1 ip6:2001:db8::1 ip4:0.0.0.0/0 -all", "2001:db8::1", False),
    ("v=spf1 ip4:41.0.0.5 ip6:::/0 -all", CLIENT, False),
    ("v=spf1 ip6:2001:db8::1 -ip4:0.0.0.0/0 -all", "2001:db8::1", True),
    ("v=spf1 ip4:41.0.0.5 -all", "::ffff:41.0.0.5", True),
    ("v=spf1 " + " ".join(f"ip6:2001:{n:x}::/32" for n in range(1, 9)), "2001:1::1", True),
    ("v=spf1 " + " ".join(f"ip6:2001:{n:x}::/32" for n in range(1, 10)), "2001:1::1", False),
]


@pytest.mark.parametrize(("record", "client", "wanted"), IPV6)
def test_both_families_have_their_limits(record, client, wanted):
    """IPv4 and IPv6 are measured apart, and either breaks a record; a mapped address is IPv4."""
    outcome = checked({"x.example": record}, client)
    assert outcome.result is Result.PASS
    assert outcome.proven is wanted


def test_widths_are_settings():
    """An admin may trust wider networks; then one of them does not break the sum."""
    record = {"x.example": "v=spf1 ip4:41.0.0.0/8 -all"}
    assert checked(record, widths=Widths(8, 32)).proven
    assert not checked(record, widths=Widths(9, 32)).proven
    assert [str(n) for n in pool(record, widths=Widths(8, 32)).networks] == ["41.0.0.0/8"]
    assert not checked({"x.example": "v=spf1 ip4:41.0.0.0/24"}, widths=Widths(25, 32)).proven


PERSONAL = [
    ("v=spf1 exists:%{l}.y.example ip4:41.0.0.5", True),
    ("v=spf1 exists:%{h}.y.example ip4:41.0.0.5", True),
    ("v=spf1 exists:%{S}.y.example ip4:41.0.0.5", True),
    ("v=spf1 exists:%{ir}.%{v}.%{d}.%{o}.y.example ip4:41.0.0.5", False),
    ("v=spf1 ip4:41.0.0.5 exists:%{l}.y.example", False),
]


@pytest.mark.parametrize(("record", "wanted"), PERSONAL)
def test_personal(record, wanted):
    """Whether the result holds for the domain's other senders is told, by what has been asked."""
    outcome = checked({"x.example": record})
    assert outcome.result is Result.PASS
    assert outcome.personal is wanted


def test_least_ttl():
    """The outcome holds as long as the shortest answer that was used."""
    steps = evaluate(Identity.of(bytes([41, 0, 0, 5]), "x.example"))
    assert next(steps) == Ask((Question("x.example", "TXT"),), ())
    ask = steps.send([Answer(Status.FOUND, 600, (b"v=spf1 a:a.example mx:b.example ip4:41.0.0.5",))])
    assert ask == Ask((Question("a.example", "A"),), (Question("b.example", "MX"),))
    ask = steps.send([Answer(Status.EMPTY, 60)])
    assert ask == Ask((Question("b.example", "MX"),), ())
    ask = steps.send([Answer(Status.FOUND, 3600, names=("h.example", "i.example"))])
    assert ask == Ask((Question("h.example", "A"), Question("i.example", "A")), ())
    with pytest.raises(StopIteration) as stop:
        steps.send([Answer(Status.NXDOMAIN, 900), Answer(Status.FOUND, 30, (b"\1\1\1\1",))])
    assert stop.value.value.ttl == 30


def test_what_comes_is_told_in_time():
    """The first question of a record brings those behind it, as far as they are known and can matter."""
    steps = evaluate(Identity.of(bytes([41, 0, 0, 5]), "x.example"))
    next(steps)
    record = b"v=spf1 include:a.example a:%{i}.b mx exists:c.example ip4:41.0.0.0/24 include:d.example"
    ask = steps.send([Answer(Status.FOUND, 600, (record,))])
    assert ask.soon == (Question("x.example", "MX"), Question("c.example", "A"))
    steps = evaluate(Identity.of(bytes([41, 0, 0, 5]), "x.example"))
    next(steps)
    ask = steps.send(
        [Answer(Status.FOUND, 600, (b"v=spf1 a " + b"a:a.example " * 20 + b"redirect=b.example",))]
    )
    assert len(ask.soon) == 9
    steps = evaluate(Identity.of(bytes([41, 0, 0, 5]), "x.example"))
    next(steps)
    ask = steps.send([Answer(Status.FOUND, 600, (b"v=spf1 a ip4:1.1.1.1 redirect=B.example",))])
    assert ask.soon == (Question("b.example", "TXT"),)


def test_of_many_addresses_the_first_count():
    """A host has some hundred addresses at most: thousands are an attack on our time."""
    many = [("A", f"41.{n // 200}.0.{n % 200}") for n in range(600)]
    records = {"x.example": [("TXT", "v=spf1 a -all"), *many]}
    assert checked(records, "41.0.0.199").proven
    assert checked(records, "41.2.0.199").result is Result.FAIL


@pytest.mark.parametrize(("place", "wanted"), [(9, Result.PASS), (10, Result.FAIL)])
def test_ten_names_of_a_client(place, wanted):
    """Of a client's PTR records ten are looked at."""
    names = [f"h{n}.x.example" for n in range(12)]
    records = {"x.example": "v=spf1 ptr -all", names[place]: A}
    records["5.0.0.41.in-addr.arpa"] = [("PTR", name) for name in names]
    assert checked(records).result is wanted


def test_nobody_without_a_domain():
    """What is no domain name is not asked about."""
    for domain in (
        "",
        "localhost",
        "[192.0.2.1]",
        "a..example",
        f"{'a' * 64}.example",
        "a." * 200 + "example",
    ):
        assert checked({}, domain=domain).result is Result.NONE


def test_local_part_in_utf8():
    """A term with such a local part matches nobody (RFC 8616)."""
    outcome = checked({"x.example": "v=spf1 include:%{l}.y.example ip4:41.0.0.5 -all"}, local="\u00fcser")
    assert outcome.proven


def test_area():
    """Networks count once, however they overlap."""
    assert area([]) == 0
    assert area([(0, 9), (5, 6), (9, 10), (20, 20)]) == 12


# Shapes and networks as large senders publish them; a company that uses them all.
SENDERS = {
    "company.example": "v=spf1 mx include:_spf.google.example include:outlook.example include:ses.example "
    "include:sendgrid.example include:servers.mcsv.example include:_spf.salesforce.example -all",
    "_spf.google.example": "v=spf1 ip4:35.190.247.0/24 ip4:64.233.160.0/19 ip4:66.102.0.0/20 "
    "ip4:66.249.80.0/20 ip4:72.14.192.0/18 ip4:74.125.0.0/16 ip4:108.177.8.0/21 "
    "ip4:173.194.0.0/16 ip4:209.85.128.0/17 ip4:216.58.192.0/19 ip4:216.239.32.0/19 ip4:172.217.0.0/16 "
    "ip6:2001:4860:4864::/56 ip6:2404:6800:4864::/56 ip6:2607:f8b0:4864::/56 ip6:2a00:1450:4864::/56 ~all",
    "outlook.example": "v=spf1 ip4:40.92.0.0/14 ip4:40.107.0.0/16 ip4:52.100.0.0/14 ip4:104.47.0.0/17 "
    "ip6:2a01:111:f400::/48 ip6:2a01:111:f403::/48 -all",
    "ses.example": "v=spf1 ip4:199.255.192.0/22 ip4:199.127.232.0/22 ip4:54.240.0.0/18 ip4:69.169.224.0/20 "
    "ip4:23.249.208.0/20 ip4:23.251.224.0/19 ip4:76.223.176.0/20 ip4:54.240.64.0/18 -all",
    "sendgrid.example": "v=spf1 ip4:167.89.0.0/17 ip4:208.117.48.0/20 ip4:50.31.32.0/19 ip4:198.37.144.0/20 "
    "ip4:198.21.0.0/21 ip4:192.254.112.0/20 ip4:168.245.0.0/17 ip4:149.72.0.0/16 ip4:159.183.0.0/16 ~all",
    "servers.mcsv.example": "v=spf1 ip4:205.201.128.0/20 ip4:198.2.128.0/18 ip4:148.105.0.0/16 ?all",
    "_spf.salesforce.example": "v=spf1 exists:%{i}._spf.mta.salesforce.example -all",
}


@pytest.mark.parametrize(
    "client",
    [
        "209.85.214.173",
        "40.92.1.9",
        "52.103.255.1",
        "54.240.27.19",
        "159.183.3.4",
        "198.2.133.20",
        "2a00:1450:4864::9",
    ],
)
def test_large_senders_prove(client):
    """A company that includes half a dozen of the largest senders still has all of them proven."""
    zone = dict(SENDERS)
    zone["company.example"] = [("TXT", SENDERS["company.example"]), ("MX", "mx.company.example")]
    zone["mx.company.example"] = [("A", "192.0.2.25"), ("AAAA", "2001:db8::25")]
    assert checked(zone, client, domain="company.example").proven
    found = pool(zone, "company.example")
    assert found.problem == ""
    assert any(ipaddress.ip_address(client) in network for network in found.networks)


def test_a_list_of_the_client_proves_nobody():
    """What a sender's own nameserver says of each client is a pass and no proof."""
    zone = SENDERS | {"192.0.2.7._spf.mta.salesforce.example": [("A", "127.0.0.1")]}
    outcome = checked(zone, "192.0.2.7", domain="_spf.salesforce.example")
    assert outcome.result is Result.PASS
    assert not outcome.proven
