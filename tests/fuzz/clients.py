"""What a client says, and what is shown of it."""

from __future__ import annotations

import re

from fuzz.base import HERE, one_line, text_of
from hybridgrey import cleaning, logs
from hybridgrey.envelope import MAX_SHOWN, delivered
from hybridgrey.envelope import read as read_address
from hybridgrey.filter import forged
from hybridgrey.filter import reply as words
from hybridgrey.greylist import normalise
from hybridgrey.greylist.triplets import Greylist, parse_key
from hybridgrey.policy.judge import Action, Facts, Policy, Rule
from hybridgrey.policy.match import Index, Kind, parse_entry
from hybridgrey.policy.rdns import Name, classify
from parts.greyterms import GreyTerms

GREYLIST = Greylist(None, GreyTerms())  # type: ignore[arg-type]  # keys are made without a store
RULED = Policy(
    [
        Rule("x", Action.GREYLIST, senders=(parse_entry(Kind.SENDER, "example.org"),)),
        Rule(
            "y",
            Action.ACCEPT,
            senders=(parse_entry(Kind.SENDER, "a.test"),),
            recipients=(parse_entry(Kind.RECIPIENT, "!b.test"),),
        ),
        Rule("z", Action.GREYLIST),
    ]
)


def envelope(data: bytes) -> None:
    """An envelope address makes a key of one ASCII word that reads back; folding twice changes nothing."""
    text = text_of(data)
    for fold in (normalise.sender, normalise.recipient):
        once = fold(text)
        assert fold(once) == once
    for key in GREYLIST.keys("192.0.2.1", text, text):
        assert key.isascii()
        one_line(key.decode())
        assert b" " not in key
        assert len(key) < 400
        assert parse_key(key) is not None
    Index([[parse_entry(Kind.SENDER, "example.org")]]).mailbox(read_address(text))


def path(data: bytes) -> None:
    """Any path and any macro, before and after a line end, are read; a key stands for one address or path."""
    raw, _, macro = data.partition(b"\n")
    try:
        said = macro.decode() if macro else None
    except UnicodeDecodeError:
        said = None
    for final in (True, False):
        box = delivered(raw, said, final=final)
        assert read_address(box.key).key == box.key
        assert GREYLIST.keys("192.0.2.1", box.key, "x")[0].isascii()
        assert len(box.text) <= MAX_SHOWN + 2
        if not box.certain:
            assert (box.local, box.domain) == ("", "")
            assert said is not None or not read_address(box.text).certain
        elif said is None:
            # Read without help: so would RFC 5321, with nothing that another MTA takes for a route.
            assert not set(box.local) & set('%!@:;,<>()[]\\" ')
            assert box.domain.isascii()
        for mask in (RULED.recipient(7, box), RULED.transaction(Facts(7, 7), None, box, authenticated=False)):
            assert mask == (mask if box.certain else mask & 0b101)


def host_name(data: bytes) -> None:
    """A host name is of some kind, whatever address it is verified for."""
    address = data[:16].ljust(16, b"\0") if data[:1] > b"\x7f" else data[:4].ljust(4, b"\0")
    assert classify(text_of(data[4:]), address) in Name


# -- SPF


def header(data: bytes) -> None:
    """A header field is ours or not whatever follows the part that says so, and whatever a comment holds."""
    for reading in forged.FIELDS.values():
        reading(data, HERE)
    name = HERE.encode()
    assert forged.results(name + b";" + data, HERE)
    assert forged.results(b'"' + name + b'"\r\n\t1 ;' + data, HERE)
    assert not forged.results(b"other.test;" + data, HERE)
    assert forged.greylist(b"by hybridgrey at " + name + b" " + data, HERE)
    said = re.sub(rb"[()\\]", b"", data)[: forged.LEAD // 4]
    assert forged.results(b"(" + said + b"(" + said + b")) " + name + b"(" + said + b");", HERE)
    assert not forged.results(b"(" + said + b"(" + said + b")) other.test (" + said + b");", HERE)


def shown(data: bytes) -> None:
    """A client's text is printable, one line and bounded, in logs and in replies."""
    text = text_of(data)
    for what in (text, data):
        logged = cleaning.clean(what, 100)
        one_line(logged)
        assert len(logged) <= 100
    cleaning.plain({text: [text, data, {text: text}]}, 100)
    reply = words.worded("554", f"5.7.1 {text}")
    one_line(reply.text)
    assert reply.text.isascii()
    assert len(reply.text) <= words.MAX_TEXT
    one_line(logs.__name__)


ADDRESSES = (
    b"<a@example.org>",
    b"<>",
    b"<SRS0=HHH=TT=example.org=user@forward.test>",
    b"<prvs=1234567890=user@example.org>",
    b"<list-bounces+user=example.net@lists.test>",
    b'<"a b"@[192.0.2.1]>',
    "<\u00fc@b\u00fccher.example>".encode(),
    b"<@a,@b:user@c>",
    b"<a%b!c@d.>",
)
