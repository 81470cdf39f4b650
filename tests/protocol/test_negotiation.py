"""The negotiation: libmilter itself says what is right."""

from __future__ import annotations

import itertools
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridgrey.protocol import wire
from hybridgrey.protocol.connection import Connection
from hybridgrey.protocol.terms import Terms
from hybridgrey.protocol.wire import ProtocolError, Stage
from parts.laws import examples
from parts.milterpeer import framed, strings
from parts.twinmilter import TwinMilter
from protocol.shared import ABORT, all_events, connect, helo, mail, offer, opened, rcpt

OFFERED_STEPS = wire.DEFAULT_STEPS | 0x1FFFFF
KNOWN_STEPS = [1 << bit for bit in range(21)]
LISTS = {"0": "j {client_addr}", "3": "i"}


@pytest.fixture(scope="module")
def oracle():
    """A milter of libmilter's, whose terms are set anew for each question."""
    with TwinMilter("libmilter") as running:
        yield running


def by_libmilter(oracle, wanted, data):
    """What libmilter answers to an offer; empty if it closes."""
    oracle.terms(*wanted)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(oracle.address)
        sock.sendall(data)
        got = b""
        while len(got) < 4 or len(got) < 4 + int.from_bytes(got[:4], "big"):
            more = sock.recv(65536)
            if not more:
                return b""
            got += more
    return got


def by_us(wanted, data):
    """What the package answers; empty if it closes."""
    actions, steps, lists = wanted
    terms = Terms(actions=actions, steps=steps, macros={Stage(int(one)): text for one, text in lists.items()})
    connection = Connection(terms)
    connection.receive(data)
    try:
        connection.next_event()
    except ProtocolError:
        return b""
    return connection.output


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, 5, 6, 7, 99, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize(
    ("actions", "steps"), [(0x1FF, 0x1FFFFF), (0, 0), (0x3F, 0x7F), (0x1F, 0x3F), (0x1FF, 0x3FF)]
)
def test_versions_and_usual_offers(oracle, version, actions, steps):
    """What MTAs old and new offer is answered as libmilter does, to the terms of a greylisting milter."""
    wanted = (0x111, 0x6370, LISTS)
    data = offer(version, actions, steps)
    answer = by_us(wanted, data)
    assert answer == by_libmilter(oracle, wanted, data)
    assert bool(answer) == (2 <= version < 0x80000000)


@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    version=st.integers(0, 9),
    offered=st.tuples(st.integers(0, 0x3FF), st.integers(0, 0x7FFFFFFF)),
    # The flags of sizes are libmilter's own: its callback cannot ask for them.
    wanted=st.tuples(st.integers(0, 0x1FF), st.integers(0, 0x1FFFFF)),
    lists=st.dictionaries(st.sampled_from("0123456"), st.sampled_from(["i", "j {x}", "{client_addr} v"])),
)
def test_any_offer_and_terms(oracle, version, offered, wanted, lists):
    """The answer is libmilter's, byte for byte, whatever is offered and wanted."""
    data = offer(version, *offered)
    assert by_us((*wanted, lists), data) == by_libmilter(oracle, (*wanted, lists), data)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0\0\0\6" * 2, b"\0\0\0\6" * 2 + b"\0\0\0"])
def test_short_offers_close(oracle, payload):
    """An offer that is too short closes, by both."""
    wanted = (1, 0, {})
    assert (
        by_us(wanted, framed(b"O" + payload)) == by_libmilter(oracle, wanted, framed(b"O" + payload)) == b""
    )


def test_more_than_an_offer_is_left_out(oracle):
    """What a later version may add behind the three numbers does no harm."""
    data = framed(offer()[4:] + b"more")
    assert by_us((1, 0, {}), data) == by_libmilter(oracle, (1, 0, {}), data) != b""


@pytest.mark.parametrize(
    ("offered", "wanted", "agreed", "largest"),
    [
        (0, wire.ALL_SIZES, 0, 65_535),
        (wire.SIZE_256K, wire.ALL_SIZES, wire.SIZE_256K, 262_143),
        (wire.ALL_SIZES, wire.ALL_SIZES, wire.SIZE_1M, 1_048_575),
        (wire.ALL_SIZES, wire.SIZE_256K, wire.SIZE_256K, 262_143),
        (wire.ALL_SIZES, 0, 0, 65_535),
    ],
)
def test_sizes(offered, wanted, agreed, largest):
    """A larger frame is taken only if it was agreed; the largest that both can is."""
    made = Terms(steps=wanted).agree(struct.pack("!III", 6, 0, 0x1FFFFF | offered))
    assert made.steps == agreed
    assert made.largest == largest
    for size, fits in ((largest, True), (largest + 1, False)):
        connection = Connection(Terms(steps=wanted))
        connection.receive(offer(steps=0x1FFFFF | offered))
        connection.next_event()
        connection.receive(framed(b"B" + b"x" * size)[:65536])
        if fits:
            assert connection.next_event() is None
        else:
            with pytest.raises(ProtocolError):
                connection.next_event()


SILENT = {
    b"C": (wire.SILENT_CONNECT, connect()),
    b"H": (wire.SILENT_HELO, helo()),
    b"M": (wire.SILENT_MAIL, mail()),
    b"R": (wire.SILENT_RCPT, rcpt()),
    b"T": (wire.SILENT_DATA, framed(b"T")),
    b"U": (wire.SILENT_UNKNOWN, framed(b"UFOO\0")),
    b"L": (wire.SILENT_HEADER, framed(b"L" + strings("a", "b"))),
    b"N": (wire.SILENT_END_OF_HEADERS, framed(b"N")),
    b"B": (wire.SILENT_BODY, framed(b"Bx")),
}


@pytest.mark.parametrize(("wanted", "offered"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("letter", SILENT)
def test_silent_steps(oracle, letter, wanted, offered):
    """No reply where the MTA does without; "continue" of itself where the MTA cannot; else the filter's."""
    flag, command = SILENT[letter]
    terms = (0, flag if wanted else 0, {})
    oracle.terms(*terms)
    connection = Connection(Terms(steps=terms[1]))
    session = offer(steps=0x1FFFFF if offered else 0x1FFFFF & ~flag) + connect() + helo() + mail() + rcpt()
    if letter not in b"HMRTUC":
        session += framed(b"T")
    if letter == b"B":
        session += framed(b"N")
    session += b"" if letter == b"C" else command
    connection.receive(session)
    found = all_events(connection, look=lambda c: c.due)
    # The filter is asked for a reply only if it has said that it gives one.
    assert (letter[0] in [due for _, due in found]) != wanted
    got = connection.output
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(oracle.address)
        sock.sendall(session)
        told = b""
        while len(told) < len(got):
            told += sock.recv(len(got) - len(told))
        assert told == got
        # The end of the message has a reply in any case: nothing more stood before it.
        sock.sendall(framed(b"E") if letter != b"C" else mail())
        connection.receive(framed(b"E") if letter != b"C" else mail())
        all_events(connection)
        assert sock.recv(100) == connection.output[len(got) :] == b"\0\0\0\1c"


NOT_SENT = [(letter, wire.STEPS[letter[0]][0], command) for letter, (_, command) in SILENT.items()]


@pytest.mark.parametrize(("letter", "flag", "command"), NOT_SENT)
def test_unused_steps(letter, flag, command):
    """A step that the filter does without is not told, and answered if the MTA sends it all the same."""
    connection = opened(steps=flag, data=command)
    assert connection.next_event() is None
    assert connection.output == b"\0\0\0\1c"
    assert not connection.due


@pytest.mark.parametrize(
    ("wanted", "offered", "agreed"),
    [
        (wire.CHANGE_HEADERS, wire.CHANGE_HEADERS, 0),
        (wire.CHANGE_HEADERS, wire.ADD_HEADERS, wire.NO_HEADERS),
        (0, wire.CHANGE_HEADERS, wire.NO_HEADERS),
    ],
)
def test_headers_that_cannot_be_changed(wanted, offered, agreed):
    """What is looked at only to be changed is done without where that is not to be, and is not told."""
    terms = Terms(actions=wanted, if_fixed=wire.NO_HEADERS)
    made = terms.agree(struct.pack("!III", 6, offered, 0x1FFFFF))
    assert (made.steps, made.unused, terms.wanted(made.actions)) == (agreed, agreed, agreed)


def test_the_offer_comes_first_and_once():
    """Nothing is understood before the offer, and no second one."""
    for data in (connect(), mail(), ABORT, offer() + offer()):
        connection = Connection(Terms())
        connection.receive(data)
        with pytest.raises(ProtocolError):
            all_events(connection)
        assert connection.closed


def test_an_offer_is_worked_out_once():
    """The same offer gives the same agreement; many different ones are not all remembered."""
    terms = Terms(steps=wire.NO_BODY)
    offers = [struct.pack("!III", 6, 1, steps) for steps in range(1, 500)]
    assert terms.agree(offers[0]) is terms.agree(offers[0])
    for one in offers:
        assert terms.agree(one) == terms.agree(one)
    assert len(terms._known) <= 64
