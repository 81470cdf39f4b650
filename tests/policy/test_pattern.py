"""Patterns and list entries: what is accepted, what is matched, where an error points."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.policy.pattern import ListEntry, Pattern, PatternError


def code(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


MATCHES = [
    # pattern, code, wanted
    ("127.0.0.2", "127.0.0.2", True),
    ("127.0.0.2", "127.0.0.3", False),
    ("127.0.0.2", "127.0.1.2", False),
    ("127.0.0.[2..11]", "127.0.0.1", False),
    ("127.0.0.[2..11]", "127.0.0.2", True),
    ("127.0.0.[2..11]", "127.0.0.11", True),
    ("127.0.0.[2..11]", "127.0.0.12", False),
    ("127.0.0.[18..20]", "127.0.0.19", True),
    ("127.0.[0..255].[2..3]", "127.0.200.3", True),
    ("127.0.[0..255].[2..3]", "127.0.200.1", False),
    ("127.0.[0..255].[2..3]", "127.1.200.3", False),
    ("127.0.0.[2;4;6..8]", "127.0.0.4", True),
    ("127.0.0.[2;4;6..8]", "127.0.0.5", False),
    ("127.0.0.[2;4;6..8]", "127.0.0.7", True),
    ("127.0.0.[ 2 ; 4 ; 6 .. 8 ]", "127.0.0.6", True),
    ("127.0.0.[7]", "127.0.0.7", True),
    ("[127].[0].[0].[7..7]", "127.0.0.7", True),
    ("127.0.0.007", "127.0.0.7", True),
]


@pytest.mark.parametrize(("pattern", "answer", "wanted"), MATCHES)
def test_match(pattern, answer, wanted):
    """A pattern matches exactly the codes it spells."""
    assert Pattern.parse(pattern).matches(code(answer)) is wanted


BAD = [
    # pattern, where the error points
    ("127.0.0.[4..1]", "127.0.0.[>4..1<]"),
    ("127.0.0.[1-255]", "127.0.0.[1>-<255]"),
    ("1.2.300.4", "1.2.>300<.4"),
    ("1.2.3", "1.2.3><"),
    ("1.2.3.", "1.2.3.><"),
    ("1.2.3.4.5", "1.2.3.4>.5<"),
    ("", "><"),
    ("127.0.0.[", "127.0.0.[><"),
    ("127.0.0.[]", "127.0.0.[>]<"),
    ("127.0.0.[1", "127.0.0.>[1<"),
    ("127.0.0.[1;]", "127.0.0.[1;>]<"),
    ("127.0.0.[1..]", "127.0.0.[1..>]<"),
    ("127.0.0.[1 2]", "127.0.0.[1 >2<]"),
    ("127 .0.0.1", "127> .0.0.1<"),
    ("127.0.0.-1", "127.0.0.>-<1"),
    ("127.0.0.²", "127.0.0.>²<"),
    ("127.0.0.1000000000000000000", "127.0.0.>1000000000000000000<"),
]


@pytest.mark.parametrize(("pattern", "place"), BAD)
def test_error_points_at_the_place(pattern, place):
    """A pattern that cannot be read says where."""
    with pytest.raises(PatternError) as e:
        Pattern.parse(pattern)
    assert str(e.value).endswith(f'at "{place}"')


ENTRIES = [
    # text, zone, pattern, weight
    ("zen.spamhaus.org", "zen.spamhaus.org", None, 1),
    ("Zen.Spamhaus.ORG.", "zen.spamhaus.org", None, 1),
    ("bl.test=127.0.0.[2..3]", "bl.test", "127.0.0.[2..3]", 1),
    ("bl.test*3", "bl.test", None, 3),
    ("wl.test=127.0.[0..255].[2..3]*-10", "wl.test", "127.0.[0..255].[2..3]", -10),
    (" _under.test ", "_under.test", None, 1),
]


@pytest.mark.parametrize(("text", "zone", "pattern", "weight"), ENTRIES)
def test_entry(text, zone, pattern, weight):
    """An entry is zone, pattern and weight, each in its place."""
    entry = ListEntry.parse(text)
    assert (entry.zone, entry.pattern and str(entry.pattern), entry.weight) == (zone, pattern, weight)
    assert ListEntry.parse(str(entry)) == entry


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "><"),
        ("=127.0.0.1", "><=127.0.0.1"),
        ("a..test", "a.><.test"),
        ("-a.test", ">-a<.test"),
        ("a b.test", ">a b<.test"),
        ("bl.test=127.0.0.300", "bl.test=127.0.0.>300<"),
        ("bl.test*", "bl.test*><"),
        ("bl.test*x", "bl.test*>x<"),
        ("bl.test*0", "bl.test*>0<"),
        ("bl.test=127.0.0.[4..1]*2", "bl.test=127.0.0.[>4..1<]*2"),
    ],
)
def test_bad_entry(text, place):
    """An entry that cannot be read says where."""
    with pytest.raises(PatternError) as e:
        ListEntry.parse(text)
    assert str(e.value).endswith(f'at "{place}"')


def test_long_zone_leaves_room_for_the_nibbles():
    """A zone whose IPv6 query name would be over 253 characters is refused."""
    with pytest.raises(PatternError):
        ListEntry.parse(".".join(["a" * 60] * 4))


parts = st.one_of(
    st.integers(0, 255).map(lambda n: (str(n), {n})),
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted), min_size=1, max_size=4).map(
        lambda rs: (
            "[" + ";".join(str(a) if a == b else f"{a}..{b}" for a, b in rs) + "]",
            {n for a, b in rs for n in range(a, b + 1)},
        )
    ),
)


@given(st.tuples(parts, parts, parts, parts), st.binary(min_size=4, max_size=4))
def test_matches_what_the_sets_say(four, answer):
    """A generated pattern matches a code when each byte is in its part's set, and prints itself back."""
    text = ".".join(t for t, _ in four)
    pattern = Pattern.parse(text)
    assert pattern.matches(answer) is all(b in s for b, (_, s) in zip(answer, four, strict=True))
    assert str(pattern) == text


@given(st.text(alphabet="0123456789.[];* =-abz\n\x00é", max_size=40))
def test_any_text_is_an_entry_or_a_pattern_error(text):
    """Whatever is written, the result is an entry or a PatternError of one printable line."""
    try:
        ListEntry.parse(text)
    except PatternError as e:
        assert str(e).isprintable()
