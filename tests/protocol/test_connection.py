"""A connection: the same events however its bytes come, never another error, and bounded memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
from itertools import cycle, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.protocol import replies, wire
from hybridgrey.protocol.connection import MOST_OUTPUT, SLACK, Connection
from hybridgrey.protocol.events import Abort, Body, Connect, Mail, Quit, QuitNc, Rcpt, Unknown
from hybridgrey.protocol.terms import Terms
from hybridgrey.protocol.wire import ProtocolError
from parts.laws import examples
from parts.milterpeer import framed, strings
from protocol.shared import (
    ABORT,
    DATA,
    EOM,
    QUIT,
    QUIT_NC,
    all_events,
    connect,
    helo,
    macros,
    mail,
    offer,
    opened,
    rcpt,
)

FRAMES = st.sampled_from(
    [
        connect(),
        connect("::1", "6"),
        helo(),
        macros(b"M", "{auth_authen}", "x"),
        mail(),
        macros(b"R", "i", "Q1"),
        rcpt(),
        rcpt("<b@c>", "NOTIFY=NEVER"),
        DATA,
        macros(b"T", "i", "Q2"),
        framed(b"L" + strings("A", "b")),
        framed(b"N"),
        framed(b"B" + b"x" * 5000),
        EOM,
        framed(b"Elast"),
        framed(b"UFOO\0"),
        ABORT,
        QUIT_NC,
        QUIT,
        framed(b"Z"),
        framed(b"H"),
        b"\0\0\0\0",
    ]
)
TERMS = Terms(
    actions=0x1FF,
    steps=wire.SILENT_HELO | wire.SILENT_MAIL | wire.NO_DATA | wire.NO_HEADERS,
    macros={wire.Stage.RCPT: "i"},
)
SESSIONS = st.lists(FRAMES, max_size=25).map(lambda frames: offer() + b"".join(frames))


def run(pieces, *, burst=False):
    """Events with the queue id at each, all output, how it ended; `burst`: events are taken at the end."""
    connection = Connection(TERMS)
    found = []
    output = b""
    broken = False
    try:
        for piece in pieces:
            connection.receive(piece)
            if not burst:
                found += all_events(connection, look=lambda c: c.macro(b"i"))
                output += connection.output
                connection.sent(len(connection.output))
        # One at a time, so that an error does not take the ones before it along.
        while (event := connection.next_event()) is not None:
            found.append((event, connection.macro(b"i")))
            if connection.due:
                connection.reply(replies.CONTINUE)
    except ProtocolError:
        broken = True
    return found, output + connection.output, broken, connection.closed


def pieces_of(data, cuts):
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(places)]


@given(SESSIONS, st.lists(st.integers(0, 1 << 30), max_size=60))
def test_any_chunking_gives_the_same(data, cuts):
    """Events, macros at each, output and the end do not depend on how the bytes are cut."""
    _, output, broken, closed = whole = run([data])
    assert run(pieces_of(data, cuts))[1:] == (output, broken, closed)
    if not broken:
        assert run(pieces_of(data, cuts)) == whole
        assert run(pieces_of(data, cuts), burst=True) == whole


@given(SESSIONS, st.lists(st.tuples(st.integers(1, 90), st.integers(0, 3)), min_size=1))
def test_replies_in_their_own_time(data, turns):
    """Nor on when replies are given and output goes, while more comes."""
    whole = run([data])
    connection = Connection(TERMS)
    found, output, at = [], b"", 0
    turns = cycle(turns)
    try:
        while at < len(data):
            size, events = next(turns)
            connection.receive(data[at : at + size])
            at += size
            for _ in range(events):
                if connection.due:
                    connection.reply(replies.CONTINUE)
                elif (event := connection.next_event()) is not None:
                    found.append((event, connection.macro(b"i")))
            if events > 1:
                output += connection.output
                connection.sent(len(connection.output))
        if connection.due:
            connection.reply(replies.CONTINUE)
        found += all_events(connection, look=lambda c: c.macro(b"i"))
    except ProtocolError:
        assert whole[2]
        return
    assert (found, output + connection.output, False, connection.closed) == whole


@settings(max_examples=examples(30))
@given(SESSIONS)
def test_single_bytes(data):
    """The worst of chunkings."""
    assert run([bytes((byte,)) for byte in data])[1:] == run([data])[1:]


@settings(max_examples=examples(300))
@given(st.lists(st.one_of(st.binary(max_size=60), FRAMES), max_size=12), st.booleans())
def test_random_bytes(parts, negotiated):
    """Nothing but ProtocolError ever comes of what a peer sends, and after it the connection is over."""
    connection = Connection(TERMS)
    if negotiated:
        connection.receive(offer())
        assert connection.next_event() is not None
    try:
        for part in parts:
            connection.receive(part)
            all_events(connection)
    except ProtocolError:
        assert connection.closed
    if connection.closed:
        connection.receive(mail())
        assert connection.next_event() is None
        connection.receive(mail() * 10_000)
        assert connection.next_event() is None


@given(st.lists(st.tuples(st.sampled_from("HMRTLNBUCDAQKZ"), st.binary(max_size=40)), max_size=10))
def test_random_payloads(frames):
    """The same of whole frames."""
    connection = opened(data=b"".join(framed(letter.encode() + payload) for letter, payload in frames))
    try:
        all_events(connection)
    except ProtocolError:
        assert connection.closed


@pytest.mark.parametrize("length", [0, 65_537, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_frames_of_no_or_too_much_length(length):
    """They close at once, before their bytes have come."""
    connection = opened(data=struct.pack("!IB", length, ord("R")))
    with pytest.raises(ProtocolError, match=str(length)):
        connection.next_event()
    assert connection.closed


def test_the_largest_frame():
    """As much as libmilter takes, and not a byte more."""
    connection = opened()
    data = framed(b"B" + b"x" * 65_535)
    for at in range(0, len(data), 1000):
        assert connection.next_event() is None
        connection.receive(data[at : at + 1000])
    assert connection.next_event() == Body(b"x" * 65_535)


def test_an_event_waits_for_the_reply_to_the_one_before():
    """However much has come, there is one at a time, and macros are those of that time."""
    connection = opened(
        data=connect() + macros(b"R", "i", "1") + rcpt() + macros(b"R", "i", "2") + rcpt() + ABORT
    )
    assert isinstance(connection.next_event(), Connect)
    assert connection.next_event() is None
    connection.reply(replies.CONTINUE)
    for number in (b"1", b"2"):
        assert isinstance(connection.next_event(), Rcpt)
        assert connection.macro(b"i") == number
        assert connection.next_event() is None
        assert connection.due == wire.RCPT
        connection.reply(replies.TEMPFAIL)
    assert connection.next_event() == Abort()
    assert connection.next_event() is None


@pytest.mark.parametrize("early", range(1, 5))
def test_the_head_of_a_frame_that_came_early(early):
    """What has come while a reply was due stands before what comes after it, however little it is."""
    connection = opened(data=rcpt() + rcpt())
    connection.next_event()
    last = framed(b"UFOO\0")
    connection.receive(last[:early])
    connection.reply(replies.CONTINUE)
    assert isinstance(connection.next_event(), Rcpt)
    connection.reply(replies.CONTINUE)
    assert connection.next_event() is None
    connection.receive(last[early:] + ABORT)
    assert all_events(connection) == [Unknown(b"FOO"), Abort()]


def test_a_peer_that_does_not_read_gets_nothing_more():
    """What waits to be sent is bounded; the rest waits in its socket."""
    connection = opened()
    connection.receive(helo() * 20_000)
    with pytest.raises(ProtocolError):
        connection.receive(b"x" * SLACK * 3)
    connection = opened(data=helo() * 20_000)
    all_events(connection)
    assert MOST_OUTPUT <= len(connection.output) < MOST_OUTPUT + 100
    assert connection.full
    connection.sent(len(connection.output) - 3)
    assert connection.output == b"\0\1c"
    assert connection.next_event() is not None


def test_a_peer_that_does_not_wait_is_held_back():
    """While a reply is due the loop is told to read no more, and a loop that reads all the same ends it."""
    connection = opened(data=rcpt())
    connection.next_event()
    assert not connection.full
    connection.receive(b"x" * SLACK)
    assert connection.full
    connection.receive(b"x" * 10)
    with pytest.raises(ProtocolError):
        connection.receive(b"x" * SLACK)
    assert connection.closed
    assert connection.next_event() is None


def test_the_largest_frame_is_read_to_its_end():
    """A loop that heeds `full` reads on until the frame is whole."""
    connection = opened()
    data = framed(b"B" + b"x" * 65_535)
    connection.receive(data[:-1])
    assert connection.next_event() is None
    assert not connection.full
    connection.receive(data[-1:])
    assert connection.full
    assert connection.next_event() is not None
    assert not connection.full


def test_a_loop_that_heeds_full_never_breaks_a_peer():
    """Any peer that keeps to the protocol is served, if reads of up to SLACK are made while not full."""
    chance = random.Random(1)
    data = (connect() + (mail() + rcpt() * 5 + framed(b"B" + b"x" * 65_535) + EOM) * 8) * 3
    connection = opened()
    count = at = 0
    while at < len(data) or connection.due:
        if not connection.full and at < len(data):
            size = chance.randint(1, SLACK)
            connection.receive(data[at : at + size])
            at += size
        while chance.random() < 0.8 and (connection.due or connection.next_event() is not None):
            count += 1
            if connection.due:
                connection.reply(replies.CONTINUE)
        if chance.random() < 0.3:
            connection.sent(len(connection.output))
    count += len(all_events(connection))
    assert count >= 3 * (1 + 8 * 8)


def test_memory_is_bounded():
    """A frame that comes in single bytes and never ends costs its own size."""
    connection = opened(data=struct.pack("!IB", 65_536, ord("B")))
    assert connection.next_event() is None
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(65_000):
        connection.receive(b"x")
        assert connection.next_event() is None
    assert tracemalloc.get_traced_memory()[0] - before < 100_000
    tracemalloc.stop()


def test_an_idle_connection_keeps_no_input():
    """What was read is given free when it was taken."""
    connection = opened(data=connect() + mail() + b"\0")
    all_events(connection)
    connection.receive(framed(b"M" + strings("<" + "x" * 30_000 + ">"))[1:])
    all_events(connection)
    assert connection.next_event() is None
    assert len(connection._data) - connection._at == 0
    assert len(connection._data) < 100


def test_quit_ends_and_quit_nc_does_not():
    """After QUIT nothing is taken; after QUIT_NC another client comes, on the same agreement."""
    connection = opened(data=connect() + mail() + QUIT + mail())
    assert isinstance(all_events(connection)[-1], Quit)
    assert connection.closed
    connection = opened(
        steps=wire.SILENT_MAIL, data=connect() + mail() + QUIT_NC + connect("::1", "6") + mail()
    )
    found = all_events(connection)
    assert [type(event) for event in found] == [Connect, Mail, QuitNc, Connect, Mail]
    assert found[3].address == "::1"
    assert connection.output == replies.CONTINUE * 2
    assert not connection.closed
