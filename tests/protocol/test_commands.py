"""Commands as events; malformed ones as libmilter has them, but for what the table in `commands` says."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.protocol import commands
from hybridgrey.protocol.events import Body, Connect, EndOfMessage, Header, Helo, Mail, Rcpt, Unknown
from hybridgrey.protocol.wire import ProtocolError
from parts.milterpeer import framed, strings
from parts.twinmilter import TwinMilter
from protocol.shared import all_events, connect, helo, mail, offer, opened, rcpt

PORT = struct.pack("!H", 40000)
CONNECTS = [
    (b"a.b\x004" + PORT + b"192.0.2.1\0", Connect(b"a.b", "4", "192.0.2.1", 40000)),
    (b"a.b\x004\0" + b"\0" + b"192.0.2.1\0", Connect(b"a.b", "4", "192.0.2.1", 0)),
    (b"a.b\x006" + PORT + b"2001:db8::1\0", Connect(b"a.b", "6", "2001:db8::1", 40000)),
    (b"a.b\x006" + PORT + b"IPv6:2001:db8::1\0", Connect(b"a.b", "6", "2001:db8::1", 40000)),
    (b"a.b\x006" + PORT + b"::ffff:192.0.2.1\0", Connect(b"a.b", "6", "::ffff:192.0.2.1", 40000)),
    (b"a.b\x00L\0\0/run/x\0", Connect(b"a.b", "L", "/run/x", 0)),
    (b"localhost\x00U", Connect(b"localhost", "U", "", 0)),
    (b"a.b\x00Umore", Connect(b"a.b", "U", "", 0)),
    (b"\x004" + PORT + b"192.0.2.1\0", Connect(b"", "4", "192.0.2.1", 40000)),
    (b"a.b\x004" + PORT + b"192.0.2.1\0more\0", Connect(b"a.b", "4", "192.0.2.1", 40000)),
    (b"a.b\x004" + PORT + b"192.0.2.1\0more", None),
    (b"a.b\x004" + PORT + b"192.0.2.1", None),
    (b"a.b\x004" + PORT, None),
    (b"a.b\x004\0", None),
    (b"a.b\x004", None),
    (b"a.b\x00", None),
    (b"a.b", None),
    (b"", None),
    (b"a.b\x00X" + PORT + b"192.0.2.1\0", None),
    (b"a.b\x00\0" + PORT + b"192.0.2.1\0", None),
]
# libmilter closes over these; here they are clients of unknown address.
UNREADABLE = [
    b"a.b\x004" + PORT + b"\0",
    b"a.b\x004" + PORT + b"192.0.2\0",
    b"a.b\x004" + PORT + b"192.0.2.256\0",
    b"a.b\x004" + PORT + b"2001:db8::1\0",
    b"a.b\x004" + PORT + b"\xff\0",
    b"a.b\x006" + PORT + b"192.0.2.1\0",
    b"a.b\x006" + PORT + b"IPv6:\0",
    b"a.b\x006" + PORT + b"::g\0",
]


@pytest.fixture(scope="module")
def oracle():
    with TwinMilter("libmilter") as running:
        running.terms(macros={})
        yield running


def answered(oracle, data):
    """How many replies libmilter gives to all of `data` after an offer; -1 if it closes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(oracle.address)
        # The last command has a reply in any case, so that the end is known.
        sock.sendall(offer() + data)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while more := sock.recv(65536):
            got += more
    return got[len(offer()) :].count(b"\0\0\0\1c")


def told(data, stage):
    """The events of a session, up to and with `data`, and the number of replies; None if it breaks."""
    connection = opened(data=stage + data)
    try:
        found = all_events(connection)
    except ProtocolError:
        assert connection.closed
        return None, connection.output.count(b"\0\0\0\1c")
    return found[-1], connection.output.count(b"\0\0\0\1c")


@pytest.mark.parametrize(("payload", "event"), CONNECTS, ids=lambda value: str(value)[:40])
def test_connect(oracle, payload, event):
    """Clients of each family, and what is none."""
    found, replies = told(framed(b"C" + payload), b"")
    assert found == event
    assert replies == answered(oracle, framed(b"C" + payload)) == (event is not None)
    if event is not None:
        call = [call for call in oracle.calls() if call["call"] == "connect"][-1]
        family, address = ("U", "") if event.family == "U" else (event.family, event.address)
        assert call["args"][:3] == [event.host.decode(), family, address]


@pytest.mark.parametrize("payload", UNREADABLE)
def test_a_client_of_unreadable_address(payload):
    """It is a client of which nothing is known, not a lost connection."""
    assert told(framed(b"C" + payload), b"") == (Connect(b"a.b", "U", "", 0), 1)


def test_a_zone_is_no_part_of_an_address():
    """The interface of a link-local client is left out."""
    assert commands.connect(b"a\x006" + PORT + b"fe80::1%eth0\0") == Connect(b"a", "6", "fe80::1", 40000)


OTHERS = [
    # stage before, command, event, and whether libmilter agrees
    (connect(), b"Ha.b\0", Helo(b"a.b"), True),
    (connect(), b"H\0", Helo(b""), True),
    (connect(), b"Ha\0b\0", Helo(b"a"), True),
    (connect(), b"H", None, True),
    (connect(), b"Ha.b", None, True),
    (connect(), b"M<a@b>\0", Mail(b"<a@b>", []), True),
    (connect(), b"M<a@b>\0SIZE=1\0BODY=8BITMIME\0", Mail(b"<a@b>", [b"SIZE=1", b"BODY=8BITMIME"]), True),
    (connect(), b"M<a@b>\0SIZE", Mail(b"<a@b>", []), True),
    (connect(), b"M\0", Mail(b"", []), True),
    (connect(), b"M\xff\0\xfe\0", Mail(b"\xff", [b"\xfe"]), True),
    (connect(), b"M<a@b>", None, True),
    (connect(), b"M", None, True),
    (connect() + mail(), b"R<a@b>\0NOTIFY=NEVER\0", Rcpt(b"<a@b>", [b"NOTIFY=NEVER"]), True),
    (connect() + mail(), b"R<a@b>", None, True),
    (connect() + mail(), b"R", None, True),
    (connect() + mail() + rcpt(), b"LA\0b\0", Header(b"A", b"b"), True),
    (connect() + mail() + rcpt(), b"LA\0\0", Header(b"A", b""), True),
    (connect() + mail() + rcpt(), b"LA\0 b\n\tc\xff\0", Header(b"A", b" b\n\tc\xff"), True),
    (connect() + mail() + rcpt(), b"LA\0b\0c\0", Header(b"A", b"b"), True),
    (connect() + mail() + rcpt(), b"LA\0b", None, True),
    (connect() + mail() + rcpt(), b"LA\0b\0c", None, True),
    (connect() + mail() + rcpt(), b"LA\0", None, True),
    (connect() + mail() + rcpt(), b"LA", None, True),
    (connect() + mail() + rcpt(), b"L", None, True),
    (connect() + mail() + rcpt(), b"L\0\0", None, True),
    (connect() + mail() + rcpt(), b"L\0b\0", None, True),
    (connect() + mail() + rcpt() + framed(b"N"), b"B", Body(b""), False),
    (connect() + mail() + rcpt() + framed(b"N"), b"Bx\0y", Body(b"x\0y"), True),
    (connect() + mail() + rcpt(), b"E", EndOfMessage(b""), True),
    (connect() + mail() + rcpt(), b"Elast", EndOfMessage(b"last"), True),
    (connect(), b"UFOO bar\0", Unknown(b"FOO bar"), True),
    (connect(), b"UFOO", None, False),
    (connect(), b"U", None, True),
    (connect(), b"Z", None, True),
    (connect(), b"c", None, True),
    (connect(), b"\0", None, True),
    (connect(), b"\xff", None, True),
]


@pytest.mark.parametrize(("stage", "command", "event", "agreed"), OTHERS, ids=lambda value: str(value)[-40:])
def test_other_commands(oracle, stage, command, event, agreed):
    """Each command and what is missing in it; libmilter gives a reply where this does, and to no more."""
    found, replies = told(framed(command), stage)
    if event is None:
        assert found is None
    else:
        assert found == event
    if agreed:
        assert replies == answered(oracle, stage + framed(command))


def test_commands_that_have_no_payload_may_have_one():
    """What stands there is left out."""
    assert len(all_events(opened(data=framed(b"Tx") + framed(b"Nx") + framed(b"Ax") + framed(b"Qx")))) == 4


def test_out_of_order():
    """A command that libmilter would leave unanswered for ever is told and answered."""
    for data in (rcpt(), framed(b"E"), framed(b"B1"), connect() + connect(), mail() + connect() + rcpt()):
        connection = opened(data=data)
        count = len(all_events(connection))
        assert connection.output == b"\0\0\0\1c" * count


TEXT = st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"."))


@given(TEXT, st.lists(TEXT))
def test_paths_come_back(path, parameters):
    """What an MTA says of a path is what the event has."""
    assert commands.mail(strings(path, *parameters)) == Mail(path, parameters)
    assert commands.rcpt(strings(path, *parameters)) == Rcpt(path, parameters)


@given(TEXT, st.sampled_from("46LU"), st.ip_addresses(), st.integers(0, 65535))
def test_clients_come_back(host, family, address, port):
    """The same of clients."""
    family = family if family in "LU" else str(address.version)
    data = host + b"\0" + family.encode()
    if family != "U":
        data += struct.pack("!H", port) + str(address).encode() + b"\0"
    found = commands.connect(data)
    wanted = {"U": ("", 0), "L": (str(address), 0)}.get(family, (str(address), port))
    assert found == Connect(host, family, *wanted)


@given(TEXT.filter(bool), TEXT)
def test_headers_come_back(name, value):
    """The same of headers."""
    assert commands.header(strings(name, value)) == Header(name, value)


def test_helo_is_used():
    """The shared frames are whole."""
    assert all_events(opened(data=helo("x"))) == [Helo(b"x")]
