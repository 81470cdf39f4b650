"""The promise of the milter protocol: whatever an MTA says, it is answered or left, in bounds.

An input is how its bytes are cut, and the bytes of one connection, after an offer or not.
"""

from __future__ import annotations

import struct

from hybridgrey.protocol import events, replies, wire
from hybridgrey.protocol.connection import MOST_OUTPUT, SLACK, Connection
from hybridgrey.protocol.terms import Terms
from hybridgrey.protocol.wire import ProtocolError, Stage
from parts.milterpeer import NEGOTIATE, framed, strings

TERMS = Terms(
    actions=wire.ADD_HEADERS | wire.CHANGE_HEADERS,
    steps=wire.SILENT_HELO | wire.SILENT_MAIL | wire.NO_DATA | wire.NO_UNKNOWN | wire.LEADING_SPACE,
    macros={Stage.CONNECT: "j v {client_addr}", Stage.MAIL: "{auth_authen}", Stage.RCPT: "i"},
)
NAMES = (b"j", b"{i}", b"i", b"{client_addr}", b"{auth_authen}", b"", b"{}")
BOUND = wire.LARGEST + 5 + 2 * SLACK


def milter(data: bytes) -> None:
    """Only ProtocolError is raised, each event is whole, replies are frames, and nothing grows."""
    connection = Connection(TERMS)
    cut, data = (data[0] if data else 0), data[1:]
    if cut & 1:
        connection.receive(NEGOTIATE)
    size = (cut >> 1) + 1
    try:
        for at in range(0, len(data), size):
            _take(connection)
            connection.receive(data[at : at + size])
        _take(connection)
    except ProtocolError:
        assert connection.closed
    assert connection._held() <= BOUND
    _frames(connection.output)


def _take(connection: Connection) -> None:
    while (event := connection.next_event()) is not None:
        for name in NAMES:
            value = connection.macro(name)
            assert value is None or b"\0" not in value
        _whole(event)
        agreed = connection.agreement
        if connection.due == wire.END_OF_MESSAGE and agreed and agreed.actions & wire.ADD_HEADERS:
            connection.add_header(b"X-Test", b"yes")
        if connection.due:
            connection.reply(replies.CONTINUE)
        assert not connection.due
        assert len(connection.output) < MOST_OUTPUT + 100


def _whole(event: events.Event) -> None:
    """Text ends at the first NUL; only a piece of a body may have one."""
    if isinstance(event, events.Connect):
        assert event.family in "46LU"
        assert 0 <= event.port <= 65535
        assert "\0" not in event.address
        assert bool(event.address) <= (event.family != "U")
    if isinstance(event, events.Header):
        assert event.name
    if not isinstance(event, events.Body | events.EndOfMessage):
        for text in event:
            assert not isinstance(text, bytes) or b"\0" not in text


def _frames(output: bytes) -> None:
    """What is sent is frames and nothing else."""
    while output:
        (length,) = struct.unpack_from("!I", output)
        assert 0 < length < len(output) - 3
        assert output[4:5] in (b"O", b"c", b"h")
        output = output[4 + length :]


CLIENT = framed(b"DCj\0mx\0{client_addr}\x00192.0.2.1\0") + framed(
    b"Cmail.example\x004\x9c\x40" + b"192.0.2.1\0"
)
MESSAGE = (
    framed(b"DM{auth_authen}\0me\0")
    + framed(b"M" + strings("<a@example.org>", "SIZE=1"))
    + framed(b"DRi\0Q1\0")
    + framed(b"R" + strings("<b@example.net>"))
    + framed(b"L" + strings("A", " b"))
    + framed(b"N")
    + framed(b"Bx\r\n")
    + framed(b"DEi\0Q1\0")
    + framed(b"E")
)
SEEDS = (
    b"\xff" + CLIENT + framed(b"Hmail.example\0") + MESSAGE + framed(b"A") + framed(b"Q"),
    b"\x01" + CLIENT + MESSAGE + framed(b"K") + CLIENT + MESSAGE,
    b"\xfe" + NEGOTIATE + framed(b"Cx\x006\0\0IPv6:::1\0") + framed(b"UFOO\0") + framed(b"T"),
    b"\x0b" + framed(b"Cx\0U") + framed(b"Cx\0L\0\0/run/x\0") + framed(b"E"),
)
WORDS = (
    *(struct.pack("!I", number) for number in (0, 1, 2, 5, 255, 65_536, 65_537, 1 << 31)),
    *(framed(letter.encode()) for letter in "ABDEHKLMNOQRTU"),
    b"\0",
    b"DM",
    b"{auth_authen}\0",
    b"IPv6:",
    b"%eth0",
)
