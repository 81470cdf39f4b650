"""Entries: how they are read, what they match, and access tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey import address
from hybridgrey.envelope import read
from hybridgrey.policy.match import Entry, EntryError, Index, Kind, parse_entry, parse_file


def index(kind, *texts):
    return Index([[parse_entry(kind, t) for t in texts]])


CLIENTS = [
    # entries, address, verified host, wanted
    (["192.0.2.1"], "192.0.2.1", None, True),
    (["192.0.2.1"], "192.0.2.2", None, False),
    (["192.0.2.0/24"], "192.0.2.255", None, True),
    (["192.0.0.0/16"], "192.0.255.1", None, True),
    (["192.0.0.0/16"], "192.1.0.1", None, False),
    (["0.0.0.0/0"], "203.0.113.9", None, True),
    (["0.0.0.0/0"], "2001:db8::1", None, False),
    (["2001:db8::/32"], "2001:db8:ffff::1", None, True),
    (["2001:DB8::1"], "2001:db8:0:0:0:0:0:1", None, True),
    (["::ffff:192.0.2.0/120"], "192.0.2.7", None, True),
    (["192.0.2.7"], "::ffff:192.0.2.7", None, True),
    (["192.0.2.0/24", "!192.0.2.7"], "192.0.2.7", None, False),
    (["!192.0.2.7"], "192.0.2.8", None, True),
    (["!192.0.2.7"], "192.0.2.7", None, False),
    (["mail.example.org"], "192.0.2.1", "MAIL.Example.org.", True),
    (["mail.example.org"], "192.0.2.1", "x.mail.example.org", False),
    (["mail.example.org"], "192.0.2.1", None, False),
    ([".example.org"], "192.0.2.1", "a.b.example.org", True),
    ([".example.org"], "192.0.2.1", "example.org", False),
    ([".example.org"], "192.0.2.1", "badexample.org", False),
    ([".example.org", "!dyn.example.org"], "192.0.2.1", "dyn.example.org", False),
    ([".example.org", "!192.0.2.0/24"], "192.0.2.1", "a.example.org", False),
    (["bücher.example"], "192.0.2.1", "xn--bcher-kva.example", True),
    # names with *: any text within one label
    (["mail*.example.com"], "192.0.2.1", "mail7.example.com", True),
    (["mail*.example.com"], "192.0.2.1", "MAIL-in-7.Example.COM.", True),
    (["mail*.example.com"], "192.0.2.1", "mail.example.com", True),
    (["mail*.example.com"], "192.0.2.1", "mail7.eu.example.com", False),
    (["mail*.example.com"], "192.0.2.1", "mail7.example.com.evil.example", False),
    (["mail*.example.com"], "192.0.2.1", "xmail7.example.com", False),
    (["mail*.example.com"], "192.0.2.1", "mail7example.com", False),
    (["mail*.example.com"], "192.0.2.1", None, False),
    (["*-mx.example.com"], "192.0.2.1", "a-mx.example.com", True),
    (["m*-*.example.com"], "192.0.2.1", "m50-111.example.com", True),
    (["mx*.*.example.com"], "192.0.2.1", "mx1.eu.example.com", True),
    (["mx*.*.example.com"], "192.0.2.1", "mx1..example.com", False),
    (["mail*.bücher.example"], "192.0.2.1", "mail7.xn--bcher-kva.example", True),
    ([".example.com", "!dyn*.example.com"], "192.0.2.1", "dyn-1-2.example.com", False),
    (["!dyn*.example.com"], "192.0.2.1", "dyn1.example.com", False),
    (["!dyn*.example.com"], "192.0.2.1", "mail.example.com", True),
]


@pytest.mark.parametrize(("texts", "client", "host", "wanted"), CLIENTS)
def test_client(texts, client, host, wanted):
    """A client matches by address, network, verified name or domain, exclusions first."""
    assert bool(index(Kind.CLIENT, *texts).client(address.packed(client), host)) is wanted


MAILBOXES = [
    # entries, path as sent, wanted
    (["postmaster"], "<postmaster>", True),
    (["postmaster"], "<PostMaster@any.example>", True),
    (["postmaster"], "<postmaster2@any.example>", False),
    (["abuse@example.org"], "<Abuse@Example.ORG>", True),
    (["abuse@example.org"], "<@relay.example:abuse@example.org>", True),
    (["abuse@example.org"], '<"abuse"@example.org>', True),
    (["abuse@example.org"], "<abuse@other.example>", False),
    (["example.org"], "<x@example.org>", True),
    (["example.org"], "<x@sub.example.org>", False),
    ([".example.org"], "<x@sub.example.org>", True),
    ([".example.org"], "<x@example.org>", False),
    (["@example.org"], "<x@example.org>", True),
    (["<>"], "<>", True),
    (["example.org"], "<>", False),
    (["<>"], "<x@y.example>", False),
    (["example.org", "!spam@example.org"], "<spam@example.org>", False),
    (["bücher.example"], "<x@xn--bcher-kva.example>", True),
    (["jürgen@bücher.example"], "<jürgen@bücher.example>", True),
    # user+*: any extension
    (["user+*@example.org"], "<User+News@Example.org>", True),
    (["user+*@example.org"], "<user+a+b@example.org>", True),
    (["user+*@example.org"], '<"user+a"@example.org>', True),
    (["user+*@example.org"], "<user@example.org>", False),
    (["user+*@example.org"], "<user+a@sub.example.org>", False),
    (["user+*@example.org"], "<xuser+a@example.org>", False),
    (["postmaster+*"], "<postmaster+a@any.example>", True),
    (["postmaster+*@"], "<postmaster+a@any.example>", True),
    (["user@example.org"], "<user+a@example.org>", False),
    (["example.org", "!user+*@example.org"], "<user+a@example.org>", False),
    (["example.org", "!user+*@example.org"], "<user@example.org>", True),
    # user+extension is delivered to user: an exclusion covers it, an entry that includes does not.
    (["example.org", "!user@example.org"], "<user+a@example.org>", False),
    (["example.org", "!user@"], "<user+a@example.org>", False),
    (["example.org", "!user@example.org"], "<users+a@example.org>", True),
    (["user@example.org"], "<user+a@example.org>", False),
    (["*@example.org"], "<x@example.org>", False),
]


@pytest.mark.parametrize(("texts", "path", "wanted"), MAILBOXES)
def test_mailbox(texts, path, wanted):
    """A sender or recipient matches by mailbox, domain, parent domain or local part."""
    for kind in (Kind.SENDER, Kind.RECIPIENT):
        assert bool(index(kind, *texts).mailbox(read(path))) is wanted


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.CLIENT, ""),
        (Kind.CLIENT, "!"),
        (Kind.CLIENT, "192.0.2"),
        (Kind.CLIENT, "192.0.2.1/24"),
        (Kind.CLIENT, "192.0.2.0/33"),
        (Kind.CLIENT, "300.0.2.1"),
        (Kind.CLIENT, "2001:db8::g"),
        (Kind.CLIENT, "a b"),
        (Kind.CLIENT, "mail..example"),
        (Kind.CLIENT, "/^regex$/"),
        (Kind.HELO, "mail_!.example"),
        (Kind.CLIENT, "*.example.com"),
        (Kind.CLIENT, "mail*.com"),
        (Kind.CLIENT, "mail.*"),
        (Kind.CLIENT, "a*b*c*.example.com"),
        (Kind.CLIENT, ".mail*.example.com"),
        (Kind.HELO, "mail*.example.com"),
        (Kind.SENDER, "mail*.example.com"),
        (Kind.SENDER, "a+b+*@example.org"),
        (Kind.SENDER, "@"),
        (Kind.SENDER, "two words.example"),
    ],
)
def test_bad_entry(kind, text):
    """What is no entry is an error, never an entry that matches nothing or too much."""
    with pytest.raises(EntryError):
        parse_entry(kind, text)


def test_host_bits_are_named():
    """A network with bits set after its prefix names the network that was probably meant."""
    with pytest.raises(EntryError, match=r"192\.0\.2\.0/24"):
        parse_entry(Kind.CLIENT, "192.0.2.1/24")


NUMBERS = [
    # what people write, what the error says to write ("": nothing can be meant)
    ("22.1.1.1-22.1.1.9", '"22.1.1.1", "22.1.1.2/31", "22.1.1.4/30", "22.1.1.8/31"'),
    ("22.1.1.1 - 22.1.1.9", '"22.1.1.1", "22.1.1.2/31", "22.1.1.4/30", "22.1.1.8/31"'),
    ("22.1.1.0-255", '"22.1.1.0/24"'),
    ("22.1.1.0-22.1.2.255", '"22.1.1.0/24", "22.1.2.0/24"'),
    ("2001:db8::-2001:db8::ffff", '"2001:db8::/112"'),
    ("22.1.1.x", '"22.1.1.0/24"'),
    ("22.1.1.*", '"22.1.1.0/24"'),
    ("22.1.xxx.xxx", '"22.1.0.0/16"'),
    ("22.X.X.X", '"22.0.0.0/8"'),
    ("1.2.3", '"1.2.3.0/24"'),
    ("1.2.3.", '"1.2.3.0/24"'),
    ("10", '"10.0.0.0/8"'),
    ("22.1.1.9-22.1.1.1", ""),
    ("22.1.1.[1-9]", ""),
    ("22.*.1.1", ""),
    ("1.2.3.4.5", "5 numbers, not four"),
    ("300.1.1.1", "300 is over 255"),
    (".1.2.3", ""),
    ("0x7f.0.0.1", ""),
    ("\uff12\uff12.1.1.x", ""),
    ("10-20", ""),
]


@pytest.mark.parametrize("mark", ["", "!", "! "])
@pytest.mark.parametrize(("text", "said"), NUMBERS)
def test_dotted_numbers(text, said, mark):
    """A range, a wildcard among numbers or a part of an address is an error that says what to write."""
    with pytest.raises(EntryError) as caught:
        parse_entry(Kind.CLIENT, mark + text)
    assert said in str(caught.value)
    assert parse_file(Kind.CLIENT, f"192.0.2.1\n{mark}{text}\n")[1][0].startswith("line 2: ")


@pytest.mark.parametrize(
    "name", ["1.2.3.4.example.com", "mail.xxx", "10-20.example", "3com.com", "x.example"]
)
def test_names_with_numbers(name):
    """A host name with numbers in it is a name."""
    assert parse_entry(Kind.CLIENT, name).key == name


def test_many_names_with_stars():
    """Ten thousand names with * are found by their ends and beginnings, each for its own rule."""
    names = [f"mx{n}-*.pool{n % 100}.example.com" for n in range(10_000)]
    many = Index(
        [[parse_entry(Kind.CLIENT, name) for name in names], [parse_entry(Kind.CLIENT, "mx*.a.example")]]
    )
    assert many.client(None, "mx4711-x.pool11.example.com") == 0b01
    assert many.client(None, "mx4711-x.pool12.example.com") == 0
    assert many.client(None, "mx1.a.example") == 0b10
    tried = [p for of_end in many._wild[0]._ends.values() for p in of_end.values()]
    assert max(map(len, tried)) == 1, "one pattern is tried for a client, not ten thousand"


ACCESS = """\
# Postfix access(5)
192.0.2       OK
198.51.100.0/24 permit
203.0.113.7   OK   some words
2001:db8:1    OK
mail.example.org OK
!198.51.100.9
plain.example   # a comment
"""


@pytest.mark.parametrize(
    ("client", "host", "wanted"),
    [
        ("192.0.2.77", None, True),
        ("192.0.3.77", None, False),
        ("198.51.100.1", None, True),
        ("198.51.100.9", None, False),
        ("203.0.113.7", None, True),
        ("2001:db8:1:ffff::1", None, True),
        ("2001:db8:2::1", None, False),
        ("203.0.113.8", "mail.example.org", True),
        ("203.0.113.8", "a.mail.example.org", True),
        ("203.0.113.8", "plain.example", True),
        ("203.0.113.8", "a.plain.example", False),
    ],
)
def test_access_table(client, host, wanted):
    """A Postfix access table is taken as it is, and its rows mean what they mean to Postfix."""
    entries, errors = parse_file(Kind.CLIENT, ACCESS)
    assert errors == []
    assert bool(Index([entries]).client(address.packed(client), host)) is wanted


def test_other_verbs_are_errors_that_name_the_line():
    """Every bad line is named, and the good ones are still read."""
    entries, errors = parse_file(Kind.CLIENT, "192.0.2.1 OK\n192.0.2.2 REJECT go away\nx y z\n192.0.2.300\n")
    assert entries == [parse_entry(Kind.CLIENT, "192.0.2.1")]
    assert [e.partition(":")[0] for e in errors] == ["line 2", "line 3", "line 4"]
    assert "REJECT" in errors[0]


def test_masks_tell_the_rules_apart():
    """One look-up answers for all rules: bit i is rule i; no condition holds always."""
    parse = lambda *t: [parse_entry(Kind.CLIENT, x) for x in t]  # noqa: E731
    rules = Index([parse("192.0.2.0/24"), None, parse("192.0.2.0/25", ".example.org"), parse("!192.0.2.1")])
    assert rules.client(address.packed("192.0.2.1"), None) == 0b0111
    assert rules.client(address.packed("192.0.2.200"), None) == 0b1011
    assert rules.client(address.packed("203.0.113.1"), "a.example.org") == 0b1110
    assert rules.unconditional == 0b0010


@given(st.text(max_size=80), st.sampled_from(Kind))
def test_any_text_is_an_entry_or_an_error(text, kind):
    """Hostile config text is read or refused, never a surprise; what was read can be matched."""
    try:
        entry = parse_entry(kind, text)
    except EntryError:
        return
    assert isinstance(entry, Entry)
    Index([[entry]])


@given(st.text(max_size=600))
def test_any_text_can_be_matched(text):
    """Whatever a client sends as HELO or address is matched without an error, in bounded work."""
    names = index(Kind.HELO, "a.example")
    assert names.name(text) in (0, 1)
    assert index(Kind.SENDER, "a@b.example").mailbox(read(text)) in (0, 1)
    assert index(Kind.CLIENT, "a.example").client(address.packed(text), text) in (0, 1)
