"""Entries by hand out of foreign bytes: from the store, from a file, and from a command line."""

from __future__ import annotations

from hybridgrey import envelope
from hybridgrey.cli.hand_rows import row, summary
from hybridgrey.hand import expected as expected_
from hybridgrey.hand import keptcopy, register
from hybridgrey.hand.entries import About, Entry, SubjectError, parse, read
from hybridgrey.hand.expected import Expected
from hybridgrey.hand.register import FullError, Register
from hybridgrey.hand.table import Table
from hybridgrey.policy.conditions import Hand
from hybridgrey.store.connection import Store

KEYS = {b"j": register.KEY, b"k": expected_.KEY}
BOX = envelope.read("b@example.net")
SUBJECT = read(About.CLIENT, "192.0.2.1")
SEEDS = [
    b'client 192.0.2.0/24\n1 0 {"kind":"block","who":"ann","host":"mx1","comment":"x"}',
    b'sender user+*@example.org\n1 9 {"kind":"allow"}',
    b'recipient "a b"@example.net\n1 9 {"kind":"allow","comment":"\\u001b"}',
    b'{"store":"x","version":1,"entries":[["client 192.0.2.1","1 0 {}"]]}',
]
WORDS = [
    b"client ",
    b"sender ",
    b"recipient ",
    b"\n",
    b"/",
    b"@",
    b"{",
    b"}",
    b'"',
    b"<>",
    b".",
    b"*",
    b"\\u202e",
]


def byhand(data: bytes) -> None:
    """Whatever it is: entries that are read again as they are, and print on one line; or none."""
    field, _, value = data.partition(b"\n")
    for entry in filter(None, (parse(field, value), *_copied(data))):
        sound(entry)
    try:
        subject = read(About.SENDER, data.decode("utf-8", "replace"))
    except SubjectError:
        return
    assert read(subject.about, subject.text) == subject


def _copied(data: bytes) -> list[Entry]:
    try:
        copy, store = keptcopy.parse(data)
    except ValueError:
        return []
    assert keptcopy.parse(keptcopy.dump(copy, store))[0].pairs == copy.pairs
    return copy.entries()


def sound(entry: Entry) -> None:
    """Fail unless an entry can be matched, and shown on one line."""
    assert read(entry.subject.about, entry.subject.text) == entry.subject
    assert summary(entry).isprintable()
    assert all(text.isprintable() for text in (*row(entry), *map(str, entry.fields().values())))
    Table([entry]).of(None, None, "a.example", BOX, BOX)


def stored(store: Store) -> None:
    """Whatever stands under their keys: it is read, and the next command holds."""
    entries, expected = Register(store), Expected()
    for entry in entries.read().entries():
        sound(entry)
    assert entries.look().version >= 0
    try:
        entries.put(Hand.BLOCK, [SUBJECT], 60, who="ann", host="mx1", comment="")
    except FullError:
        return
    version = entries.look().version
    assert SUBJECT in {entry.subject for entry in entries.read().entries()}
    assert entries.take([SUBJECT])[0] is not None
    assert entries.look().version > version
    assert Expected.read(store.run(*expected.ask(BOX))) in (True, False)
    Expected.list(store)
    expected.put(store, BOX, 60, "ann")
    assert Expected.read(store.run(*expected.ask(BOX)))
    assert expected.take(store, BOX) > 0
