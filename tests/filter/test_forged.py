"""Header fields that claim to be ours: the readings, others' that stay, and how they are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.filter import forged

NAME = "mx1.example.test"

OURS = [
    b"mx1.example.test; dkim=pass header.d=a.test",
    b" mx1.example.test ;dkim=pass",
    b"mx1.example.test;none",
    b"mx1.example.test",
    b"mx1.example.test 1; dkim=pass",
    b"mx1.example.test\t(v) 1 (x) ; dkim=pass",
    b"MX1.Example.TEST; dkim=pass",
    b"mx1.example.test.; dkim=pass",
    b"\r\n\tmx1.example.test;\r\n\tdkim=pass",
    b"\n mx1.example.test\n ; dkim=pass",
    b"(a comment)mx1.example.test(another); dkim=pass",
    b"(a (nested (deep)) one)\r\n (and (again)) mx1.example.test; dkim=pass",
    rb"(closed \) later) mx1.example.test; dkim=pass",
    b"(other.test;) mx1.example.test; dkim=pass",
    b'"mx1.example.test"; dkim=pass',
    rb'"mx1.example\.test"; dkim=pass',
    b'"mx1.example.\r\ntest" 1; dkim=pass',
    b'(x) "MX1.example.test" (y) 1; dkim=pass',
    "ｍｘ１.example.test; dkim=pass".encode(),  # noqa: RUF001
    "mx1.exam\u00adple.test; dkim=pass".encode(),
    # What is no such field, and is one to a reader who takes out what disturbs.
    b"\xffmx1.example.test; dkim=pass",
    b"mx1.example.test\xff; dkim=pass",
    b"mx1.exa\xff\xfemple.test; dkim=pass",
    b"mx1.example.test\x01; dkim=pass",
    b"mx1.exa\r\n mple.test; dkim=pass",
    b"mx1 . example . test; dkim=pass",
    b"mx1(x).example(y).test; dkim=pass",
    b"mx1(x(y)z).example.test; dkim=pass",
    b'mx1."example".test; dkim=pass',
    b'"mx1.example.test; dkim=pass',
    b"mx1.example.test, dkim=pass",
    b"mx1.example.test dkim=pass; spf=pass",
    b"mx1.example.test = x; dkim=pass",
    b"mx1.example.test 1 dkim=pass",
    b"mx1.example.test/1; dkim=pass",
    b"; mx1.example.test; dkim=pass",
    b"<mx1.example.test>; dkim=pass",
    b"(mx1.example.test; dkim=pass",
    b"( ( ) mx1.example.test; dkim=pass",
    b"=?utf-8?q?mx1=2Eexample=2Etest?=; dkim=pass",
    b"mx1.=?us-ascii?q?example.test?=; dkim=pass",
    b'"=?utf-8?b?bXgxLmV4YW1wbGUudGVzdA==?="; dkim=pass',
    # No honest id is behind so much.
    b"(" + 2000 * b"x" + b") mx1.example.test; dkim=pass",
    b"(" + 65_000 * b"(" + b" mx1.example.test; dkim=pass",
    b"\r\n ".join(300 * [b"(pad)"]) + b" mx1.example.test; dkim=pass",
    b"mx1.example.test (" + 5000 * b"x" + b"); dkim=pass",
]
OTHERS = [
    b"",
    b";",
    b" \r\n ",
    b"other.test; dkim=pass",
    b"other.test 1; dkim=pass header.d=mx1.example.test",
    b"other.test (mx1.example.test); dkim=pass",
    b"(mx1.example.test) other.test; dkim=pass",
    b"(a (b) mx1.example.test; c) other.test; dkim=pass",
    b'"other.test"; dkim=pass reason="mx1.example.test; dkim=pass"',
    b"other.test; dkim=pass\r\n\tmx1.example.test; spf=pass",
    b"mx1.example.test.other.test; dkim=pass",
    b"other.mx1.example.test; dkim=pass",
    b"xmx1.example.test; dkim=pass",
    b"mx1.example.testing; dkim=pass",
    b"mx1.example.test-2; dkim=pass",
    b"mx2.example.test; dkim=pass",
    b"mx1; dkim=pass",
    b"example.test; dkim=pass",
    b"mx1xexample.test; dkim=pass",
    b"spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=mx1.example.test; dkim=none",
    b"mta7.mail.example.net  from=mx1.example.test; domainkeys=neutral (no sig)",
    b"other.test \xff mx1.example.test; dkim=pass",
    "почта.example.test; dkim=pass".encode(),
    b"other.test (" + 5000 * b"mx1.example.test " + b"); dkim=pass",
    5000 * b"mx1.example.test.",
]


@pytest.mark.parametrize("value", OURS, ids=lambda value: value[:40])
def test_results_that_claim_to_be_ours(value):
    """The id is ours in any case, between blanks and comments, quoted, and to readers who are not strict."""
    assert forged.results(value, NAME)


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: value[:40])
def test_results_of_others_stay(value):
    """Another id is another's, whatever name its comments and results have."""
    assert not forged.results(value, NAME)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"delayed 312 seconds by hybridgrey at mx1.example.test", True),
        (b"delayed 312 seconds by hybridgrey at MX1.example.test.", True),
        (b"DELAYED 312 SECONDS BY HybridGrey AT mx1.example.test", True),
        (b"delayed 312 seconds\r\n\tby  hybridgrey\r\n at\tmx1.example.test", True),
        (b"(x) delayed by (y) hybridgrey (z) at mx1.example.test (all is well)", True),
        (b"(delayed 5 seconds by hybridgrey at mx1.example.test)", True),
        (b"delayed 5 seconds by \xffhybrid\x01grey at mx1.exa\xfemple.test; x", True),
        (b'delayed 5 seconds by "hybridgrey" at "mx1.example.test"', True),
        ("by hybrid\u200bgrey at mx1.example.test".encode(), True),
        ("by ｈybridgrey at mx1.example.test".encode(), True),  # noqa: RUF001
        (b"=?utf-8?q?delayed_5_seconds_by_hybridgrey_at_mx1.example.test?=", True),
        (64_000 * b"x" + b" by hybridgrey at mx1.example.test", True),
        (b"delayed 312 seconds by hybridgrey at other.test", False),
        (b"delayed 312 seconds by hybridgrey at mx1.example.test.other.test", False),
        (b"delayed 312 seconds by hybridgrey at mx1.example.tests", False),
        (b"delayed 312 seconds by postgrey-1.37 at mx1.example.test; Sat, 31 Jan 2026 10:00:00 +0000", False),
        (b"Sender IP whitelisted, not delayed by milter-greylist-4.6 (mx1.example.test [192.0.2.1])", False),
        (b"Greylisting delayed 0 seconds, see hybridgrey", False),
        (b"", False),
        (64_000 * b"(", False),
        (30_000 * b"()", False),
    ],
    ids=lambda value: value[:50] if isinstance(value, bytes) else value,
)
def test_greylist(value, wanted):
    """X-Greylist is ours when it says by whom and where; postgrey's and milter-greylist's stay."""
    assert forged.greylist(value, NAME) is wanted


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_marks_without_end():
    """Letters with any number of marks cost no more than others: sorted as a whole, these take an hour."""
    marks = 2_000_000 * "\u0300\u0316"
    assert forged.greylist(f"a{marks} by hybridgrey at {NAME}".encode(), NAME)
    assert forged.greylist(f"by ｈybridgrey at {NAME} a{marks}".encode(), NAME)  # noqa: RUF001
    assert not forged.greylist(f"a{marks} by postgrey".encode(), NAME)
    assert not forged.results(f"other.test; a{marks}".encode(), NAME)


COMMENT = st.recursive(
    st.text(st.sampled_from("ab .;=1\t"), max_size=6),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "".join(f"({one})" for one in parts)),
    max_leaves=5,
).map("({})".format)
BLANKS = st.lists(st.sampled_from([" ", "\t", "\r\n ", "\n\t"]) | COMMENT, max_size=4).map("".join)
CASES = st.lists(st.booleans(), min_size=len(NAME), max_size=len(NAME)).map(
    lambda up: "".join(char.upper() if high else char for char, high in zip(NAME, up, strict=True))
)
TAIL = st.binary(max_size=60)


def spelled(name):
    """A name as an authserv-id: as it is, quoted, quoted with needless backslashes."""
    return st.sampled_from([name, f'"{name}"', '"' + "".join(f"\\{char}" for char in name) + '"'])


@given(BLANKS, CASES.flatmap(spelled), BLANKS, st.sampled_from(["", " 1", "(x)12"]), BLANKS, TAIL)
def test_the_grammar_for_ours(before, name, after, version, end, tail):
    """Each way to write our id by RFC 8601 section 2.2 is found."""
    assert forged.results(f"{before}{name}{after}{version}{end};".encode() + tail, NAME)


@given(
    BLANKS,
    st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True).filter(
        lambda name: name.removesuffix(".") != NAME
    ),
    BLANKS,
    TAIL,
)
def test_the_grammar_for_others(before, name, after, tail):
    """No other id is taken for ours, with whatever around it."""
    assert not forged.results(f"{before}{name}{after};".encode() + tail, NAME)


@given(st.binary(max_size=300))
def test_any_bytes(value):
    """Nothing raises, and what only adds to the results of a field says nothing about its id."""
    for reading in forged.FIELDS.values():
        reading(value, NAME)
    assert forged.results(NAME.encode() + b";" + value, NAME)
    assert not forged.results(b"other.test;" + value, NAME)
    assert forged.greylist(b"by hybridgrey at " + NAME.encode() + b" " + value, NAME)


FIELD = st.tuples(
    st.sampled_from(sorted(forged.FIELDS)),
    st.sampled_from([b"mx1.example.test; x", b"other.test; x", b"by hybridgrey at mx1.example.test", b""]),
)


@given(st.lists(FIELD, max_size=30))
def test_what_is_taken_out_backwards_leaves_the_others(fields):
    """Deleting by index among the fields of a name, in the order given, leaves exactly the others."""
    tally = forged.Tally()
    for field, value in fields:
        tally.note(field, value, NAME)
    left = list(fields)
    for field, index in tally.backwards():
        places = [place for place, (name, _) in enumerate(left) if name == field]
        del left[places[index - 1]]
    assert left == [pair for pair in fields if not forged.FIELDS[pair[0]](pair[1], NAME)]


@pytest.mark.parametrize("field", forged.FIELDS)
@pytest.mark.parametrize("size", [10, 1000, forged.LOOKED_AT])
def test_no_more_is_looked_at(field, size):
    """What stands behind so many bytes of such fields is taken out, whatever it says; others' before stay."""
    tally = forged.Tally()
    others = b"other.test; dkim=pass".ljust(size)
    number = forged.LOOKED_AT // len(others)
    for _ in range(number):
        tally.note(field, others, NAME)
    assert tally.count == 0
    tally.note(field, others, NAME)
    tally.note("x-greylist", b"by hybridgrey at mx1.example.test", NAME)
    tally.note(field, b"mx1.example.test; dkim=pass", NAME)
    assert tally.count == 3


READ = st.text('mx1.exaplt \\()"\u00ad\ufdfa\uff08\uff09\u2474\u3000\u0300é;<', max_size=60)


@given(READ, st.sampled_from(["", NAME, f"by hybridgrey at {NAME}"]), READ)
def test_noise_in_short_is_read_the_same(before, name, after):
    """One character for a run of noise changes no reading, not behind a backslash or in a comment either."""
    text = before + name + after
    short, plain = forged._readable(text), forged._plain(text)
    for reading in (lambda one: one, lambda one: forged._INNERMOST.sub("", one), forged._without_comments):
        bare = [forged._NOISE.sub("", forged._SPACE.sub(" ", reading(one))) for one in (short, plain)]
        assert bare[0] == bare[1]


def test_more_than_anybody_honest_has():
    """The number to take out is bounded, and that there were more is known; others' are counted on."""
    tally = forged.Tally()
    for _ in range(forged.MOST):
        tally.note("x-greylist", b"by hybridgrey at mx1.example.test", NAME)
    assert (tally.count, tally.too_many) == (forged.MOST, False)
    tally.note("x-greylist", b"by postgrey", NAME)
    tally.note("x-greylist", b"by hybridgrey at mx1.example.test", NAME)
    assert (tally.count, tally.too_many) == (forged.MOST, True)
    assert next(tally.backwards()) == ("x-greylist", forged.MOST)
