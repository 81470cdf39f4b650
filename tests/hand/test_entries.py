"""Entries by hand: how a subject is read and stored, what of foreign text is taken, which entry counts."""

from __future__ import annotations

import json
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey import envelope
from hybridgrey.address import packed
from hybridgrey.clientaddress import ClientReader
from hybridgrey.hand import entries, keptcopy
from hybridgrey.hand.entries import About, Entry, SubjectError, parse, read, said
from hybridgrey.hand.register import Copy
from hybridgrey.hand.table import Table
from hybridgrey.policy.conditions import NO_ENTRY, UNKNOWN, ByHand, Hand

ALLOWED, BLOCKED, BY_SPF = ByHand(allowed=True), ByHand(blocked=True), ByHand(allowed_by_spf=True)
BOTH = ByHand(allowed=True, blocked=True)
C, S, R = About.CLIENT, About.SENDER, About.RECIPIENT


@pytest.mark.parametrize(
    ("about", "text", "kept"),
    [
        (C, "192.0.2.1", "192.0.2.1"),
        (C, " 192.0.2.0/24 ", "192.0.2.0/24"),
        (C, "192.0.2.1/32", "192.0.2.1"),
        (C, "::ffff:192.0.2.1", "192.0.2.1"),
        (C, "2001:DB8::1", "2001:db8::1"),
        (C, "2001:db8::/32", "2001:db8::/32"),
        (C, "Mail.Example.ORG.", "mail.example.org"),
        (C, ".Example.org", ".example.org"),
        (C, "mail*.example.org", "mail*.example.org"),
        (C, "mail.bücher.example", "mail.xn--bcher-kva.example"),
        (S, "User@Example.ORG", "user@example.org"),
        (S, "<user@example.org>", "user@example.org"),
        (S, "@example.org", "example.org"),
        (S, ".example.org", ".example.org"),
        (S, "user+*@example.org", "user+*@example.org"),
        (S, "postmaster@", "postmaster@"),
        (S, "<>", "<>"),
        (S, "", "<>"),
        (S, '"a b"@example.org', "a b@example.org"),
        (R, "user@bücher.example", "user@xn--bcher-kva.example"),
    ],
)
def test_subjects_are_kept_as_they_are_matched(about, text, kept):
    """What is stored is read as the same again, on every host."""
    subject = read(about, text)
    assert subject.text == kept
    assert read(about, subject.text) == subject
    assert subject.field == f"{about} {kept}".encode()


@pytest.mark.parametrize(
    ("about", "text", "said"),
    [
        (C, "192.0.2", "192.0.2"),
        (C, "192.0.2.1-192.0.2.9", "192.0.2"),
        (C, "192.0.2.1/24", "bits set"),
        (C, "", "empty"),
        (C, "not a name", "no host name"),
        (C, "!192.0.2.1", "no !"),
        (R, "<>", "no recipient"),
        (R, "", "empty"),
        (S, "<a b@example.org>", "no mailbox"),
        (S, "a" * 400 + "@" + "b" * 250, "cannot be kept"),
        (S, "\x1b[31m@example.org", "mailbox|kept"),
    ],
)
def test_subjects_that_cannot_match_are_refused(about, text, said):
    """Each refusal says what is wrong."""
    with pytest.raises(SubjectError, match=said):
        read(about, text)


@given(st.sampled_from(list(About)), st.text(max_size=60))
def test_whatever_is_kept_is_read_again(about, text):
    """No text is stored that another host would read otherwise, or that does not print."""
    try:
        subject = read(about, text)
    except SubjectError:
        return
    assert read(about, subject.text) == subject
    assert subject.text.isprintable()
    stored = parse(subject.field, b"1 0 " + said(Hand.BLOCK, "ann", "mx1", "why"))
    assert stored == Entry(subject, Hand.BLOCK, "ann", "mx1", 1, 0, "why")


@pytest.mark.parametrize(
    ("about", "text", "wide"),
    [
        (C, "0.0.0.0/0", True),
        (C, "192.0.0.0/7", True),
        (C, "10.0.0.0/8", False),
        (C, "::/0", True),
        (C, "2000::/15", True),
        (C, "2001:db8::/32", False),
        (C, ".com", True),
        (C, ".example.com", False),
        (S, "<>", True),
        (S, "example.org", False),
        (R, ".org", True),
    ],
)
def test_wide_subjects_are_known(about, text, wide):
    """What may be a slip of the finger is asked about."""
    assert bool(read(about, text).breadth()) is wide


GOOD = b'{"kind":"block","who":"ann","host":"mx1","comment":"x"}'


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"client 192.0.2.1", b""),
        (b"client 192.0.2.1", b"1 0"),
        (b"client 192.0.2.1", b"1 0 []"),
        (b"client 192.0.2.1", b"1 0 {}"),
        (b"client 192.0.2.1", b"1 0 {" * 100),
        (b"client 192.0.2.1", b"-1 0 " + GOOD),
        (b"client 192.0.2.1", b"1 nan " + GOOD),
        (b"client 192.0.2.1", b"1 " + b"9" * 13 + b" " + GOOD),
        (b"client 192.0.2.1", b'1 0 {"kind":["block"]}'),
        (b"client 192.0.2.1", b'1 0 {"kind":"allow","comment":"' + b"x" * 3000 + b'"}'),
        (b"client 192.0.2.1/32", b"1 0 " + GOOD),
        (b"client 192.0.2.1 ", b"1 0 " + GOOD),
        (b"client !192.0.2.1", b"1 0 " + GOOD),
        (b"helo mx", b"1 0 " + GOOD),
        (b"version", b"17"),
        (b"\xff", b"1 0 " + GOOD),
        (b"", b""),
        (None, None),
        (b"client 192.0.2.1", 7),
    ],
)
def test_what_is_none_of_ours_is_passed_over(field, value):
    """Hostile or damaged content of the store is no entry."""
    assert parse(field, value) is None


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_bytes_raise(field, value):
    """Whatever the store holds."""
    assert parse(field, value) is None or isinstance(parse(field, value), Entry)


def test_texts_are_bounded_and_printable():
    """A comment or a name from elsewhere steers no terminal."""
    foreign = json.dumps({"kind": "allow", "who": 7, "host": "h" * 500, "comment": "a\x1b[2J\nb\u202e"})
    entry = parse(b"client 192.0.2.1", b"5 9 " + foreign.encode())
    assert entry is not None
    assert (entry.who, len(entry.host), entry.comment) == ("", entries.MAX_NAME, "a [2J b")
    assert not entry.over(8)
    assert entry.over(9)


def table(*words: str) -> Table:
    """A table from words such as ``allow client 192.0.2.0/24``."""
    made = []
    for word in words:
        kind, about, text = word.split(" ", 2)
        made.append(Entry(read(About(about), text), Hand(kind), "ann", "mx1", 1, 0, ""))
    return Table(made)


READER = ClientReader()


def asked(
    made: Table, client="198.51.100.9", host=None, sender="a@example.com", to="b@example.net"
) -> object:
    """What a table says."""
    source = READER.read(client)
    return made.of(source.packed, source.carried, host, envelope.read(sender), envelope.read(to))


@pytest.mark.parametrize(
    ("words", "about", "flags"),
    [
        ((), {}, NO_ENTRY),
        (("allow client 192.0.2.0/24",), {}, NO_ENTRY),
        (("allow client 192.0.2.0/24",), {"client": "192.0.2.7"}, ALLOWED),
        (("block client 192.0.2.0/24",), {"client": "192.0.2.7"}, BLOCKED),
        (("allow client 192.0.2.0/24", "block client 192.0.2.7"), {"client": "192.0.2.7"}, BLOCKED),
        (("allow client 192.0.2.0/24", "block client 192.0.2.7"), {"client": "192.0.2.8"}, ALLOWED),
        (("block client 192.0.2.0/24", "allow client 192.0.2.7"), {"client": "192.0.2.7"}, ALLOWED),
        (("block client 192.0.0.0/16", "allow client 192.0.2.0/24"), {"client": "192.0.2.7"}, ALLOWED),
        (("block client 192.0.2.0/24", "allow client mx.example.org"),
         {"client": "192.0.2.7", "host": "mx.example.org"}, ALLOWED),
        (("block client 192.0.2.7", "allow client mx.example.org"),
         {"client": "192.0.2.7", "host": "mx.example.org"}, BLOCKED),
        (("block client 192.0.2.0/24", "allow client .example.org"),
         {"client": "192.0.2.7", "host": "mx.example.org"}, BLOCKED),
        (("block client mx*.example.org", "allow client mx1.example.org"),
         {"host": "mx1.example.org"}, ALLOWED),
        (("block client .example.org", "allow client .mail.example.org"),
         {"host": "a.mail.example.org"}, ALLOWED),
        (("block client .example.org",), {"host": "example.org"}, NO_ENTRY),
        (("block client 192.0.2.7",), {"client": "64:ff9b::192.0.2.7"}, BLOCKED),
        (("allow client 192.0.2.7",), {"client": "64:ff9b::192.0.2.7"}, ALLOWED),
        (("block client 192.0.2.7",), {"client": "2002:c000:207::1"}, BLOCKED),
        (("allow client 192.0.2.7",), {"client": "2002:c000:207::1"}, NO_ENTRY),
        (("allow client 2002:c000:207::1",), {"client": "2002:c000:207::1"}, ALLOWED),
        (("block client 2001:db8::/32",), {"client": "2001:db8:7::1"}, BLOCKED),
        (("block client 192.0.2.7",), {"client": "unix"}, NO_ENTRY),
        (("allow sender a@example.com",), {}, BY_SPF),
        (("block sender a@example.com",), {}, BLOCKED),
        (("block sender .com", "allow sender a@example.com"), {}, BY_SPF),
        (("allow sender example.com", "block sender a@example.com"), {}, BLOCKED),
        (("allow sender example.com", "block sender a@"), {}, BLOCKED),
        (("block sender example.com",), {"sender": "a@mail.example.com"}, NO_ENTRY),
        (("block sender .example.com",), {"sender": "a@mail.example.com"}, BLOCKED),
        (("block sender a+*@example.com",), {"sender": "A+7@example.com"}, BLOCKED),
        (("block sender <>",), {"sender": "<>"}, BLOCKED),
        (("block sender <>",), {}, NO_ENTRY),
        (("block sender a@example.com",), {"sender": "<a b@example.com>"}, UNKNOWN),
        (("block sender a@example.com", "block recipient b@example.net"),
         {"sender": "<a b@example.com>"}, BLOCKED),
        (("block client 192.0.2.7",), {"sender": "<a b@example.com>"}, NO_ENTRY),
        (("allow recipient example.net", "block recipient b@example.net"), {}, BLOCKED),
        (("allow recipient b@", "block recipient example.net"), {}, ALLOWED),
        (("block client 198.51.100.0/24", "allow recipient b@example.net"), {}, BOTH),
        (("allow client 198.51.100.0/24", "block sender example.com"), {}, BOTH),
    ],
)  # fmt: skip
def test_what_is_said(words, about, flags):
    """The most specific counts among those about one thing; nothing is weighed between two."""
    made = table(*words)
    assert asked(made, **about) == flags
    # In whatever order they were read
    assert asked(table(*reversed(words)), **about) == flags


V4 = st.builds(
    lambda a, n: str(ip_network((a, n), strict=False)),
    st.integers(0xC0000200, 0xC00002FF),
    st.integers(8, 32),
)


@given(
    st.dictionaries(V4, st.sampled_from(["allow", "block"]), max_size=8), st.integers(0xC0000200, 0xC00002FF)
)
def test_the_narrowest_network_counts(nets, number):
    """For any networks and any client."""
    client = str(ip_network(number).network_address)
    around = [ip_network(n) for n in nets if ip_network(client).subnet_of(ip_network(n))]
    flags = asked(table(*(f"{kind} client {net}" for net, kind in nets.items())), client=client)
    if not around:
        assert flags == NO_ENTRY
    else:
        kind = nets[str(max(around, key=lambda n: n.prefixlen))]
        assert flags == (ALLOWED if kind == "allow" else BLOCKED)


def test_entries_end():
    """A table at a time has those whose time is not over, and is itself while nothing has ended."""

    def entry(text, until):
        return Entry(read(C, text), Hand.BLOCK, "ann", "mx1", 1, until, "")

    whole = Table([entry("192.0.2.1", 100), entry("192.0.2.2", 200), entry("192.0.2.3", 0)])
    assert whole.at(99.9) is whole
    assert [e.subject.text for e in whole.at(100).entries] == ["192.0.2.2", "192.0.2.3"]
    assert [e.subject.text for e in whole.at(500).entries] == ["192.0.2.3"]
    assert asked(whole.at(100), client="192.0.2.1") == NO_ENTRY
    assert not Table()


def test_who_is_named_is_shown():
    """For people: the entries that name somebody, the one that counts first."""
    made = table("allow client 192.0.2.0/24", "block client 192.0.2.7", "block sender x@example.com")
    found = made.naming(packed("192.0.2.7"), None, None, envelope.read("a@example.com"), None)
    assert [e.subject.text for e in found] == ["192.0.2.7", "192.0.2.0/24"]


PAIRS = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5)


@given(PAIRS, st.integers(0, 2**53), st.text(max_size=20))
def test_a_copy_is_read_as_it_was_written(pairs, version, store):
    """Whatever bytes the store holds."""
    copy = Copy(version, 0, tuple(pairs))
    assert keptcopy.parse(keptcopy.dump(copy, store)) == (copy, store)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"store":"x","version":"1","entries":[]}',
        b'{"store":"x","version":true,"entries":[]}',
        b'{"store":1,"version":1,"entries":[]}',
        b'{"store":"x","version":1,"entries":{}}',
        b" " * (keptcopy.MAX_BYTES + 1),
    ],
)
def test_a_hostile_copy_is_refused(data):
    """It is no copy, and no traceback."""
    with pytest.raises(ValueError, match="is "):
        keptcopy.parse(data)


def test_rows_of_a_copy_that_are_none_are_left_out():
    """Each by itself."""
    rows = [["a"], "ab", [1, 2], ["\u20ac", "x"], ["client 192.0.2.1", "y"]]
    data = json.dumps({"store": "x", "version": 1, "entries": rows}).encode()
    assert keptcopy.parse(data)[0].pairs == ((b"client 192.0.2.1", b"y"),)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("redis://h:6379/0", "redis://:secret@h:6379/0", True),
        ("redis://u:other@h:6379/0", "redis://:secret@h:6379/0", True),
        ("redis://h:6379/0", "redis://h:6379/1", False),
        ("unix:///a.sock", "unix:///b.sock", False),
    ],
)
def test_the_mark_of_a_store(one, other, same):
    """Another password is no other store."""
    assert (keptcopy.mark(one) == keptcopy.mark(other)) is same
