"""Payloads of commands, read as events.

Malformed ones, all here, with what libmilter (engine.c) does:

| payload                                    | libmilter               | here                         |
| ------------------------------------------ | ----------------------- | ---------------------------- |
| CONNECT without NUL, family, port or end   | closes                  | `ProtocolError`              |
| CONNECT of a family that is none           | closes                  | `ProtocolError`              |
| CONNECT, address is not of its family      | closes                  | a client of unknown address  |
| HELO without NUL                           | the MTA waits for ever  | `ProtocolError`              |
| MAIL, RCPT without any NUL                 | closes                  | `ProtocolError`              |
| MAIL, RCPT, bytes after the last NUL       | left out                | the same                     |
| a header without name, value or last NUL   | closes                  | `ProtocolError`              |
| bytes after the text's NUL                 | left out                | the same                     |
| bytes after a command that has no payload  | left out                | the same                     |
| an unknown command's text without NUL      | read beyond its end     | `ProtocolError`              |

The client whose address cannot be read is one more to be judged, not a connection to lose: Postfix would let
its mail in, or defer all of it, by its `milter_default_action`.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton

from hybridgrey.protocol.events import (
    Abort,
    Body,
    Connect,
    Data,
    EndOfHeaders,
    EndOfMessage,
    Header,
    Helo,
    Mail,
    Quit,
    QuitNc,
    Rcpt,
    Unknown,
)
from hybridgrey.protocol.wire import ProtocolError

_FAMILIES = {ord("4"): "4", ord("6"): "6", ord("L"): "L", ord("U"): "U"}


def connect(payload: bytes) -> Connect:
    """Host name, family, port, address."""
    host, end, rest = payload.partition(b"\0")
    family = _FAMILIES.get(rest[0], "") if rest else ""
    if not end or not family:
        raise ProtocolError("CONNECT without a host name or a known family")
    if family == "U":
        return Connect(host, family, "", 0)
    if len(rest) < 4 or rest[-1]:
        raise ProtocolError("CONNECT without a port or the end of the address")
    port = rest[1] << 8 | rest[2]
    address = rest[3 : rest.index(0, 3)]
    text = address.decode("utf-8", "surrogateescape")
    if family == "L":
        return Connect(host, family, text, 0)
    readable = _ip(family, text)
    return Connect(host, family, readable, port) if readable else Connect(host, "U", "", 0)


def _ip(family: str, address: str) -> str:
    """The address without Sendmail's prefix and without a zone; empty if it is none."""
    if family == "6":
        if address[:5].lower() == "ipv6:":
            address = address[5:]
        address = address.partition("%")[0]
    try:
        inet_pton(AF_INET if family == "4" else AF_INET6, address)
    except (OSError, ValueError):
        return ""
    return address


def helo(payload: bytes) -> Helo:
    """The name."""
    name, end, _ = payload.partition(b"\0")
    if not end:
        raise ProtocolError("HELO without an end")
    return Helo(name)


def mail(payload: bytes) -> Mail:
    """The path, and its parameters."""
    return Mail(*_path(payload))


def rcpt(payload: bytes) -> Rcpt:
    """The path, and its parameters."""
    return Rcpt(*_path(payload))


def _path(payload: bytes) -> tuple[bytes, list[bytes]]:
    parts = payload.split(b"\0")
    if len(parts) == 1:
        raise ProtocolError("MAIL or RCPT without an end")
    del parts[-1]
    return parts.pop(0), parts


def header(payload: bytes) -> Header:
    """Name and value."""
    parts = payload.split(b"\0", 2)
    if len(parts) < 3 or not parts[0] or payload[-1]:
        raise ProtocolError("a header without name, value or end")
    return Header(parts[0], parts[1])


def unknown(payload: bytes) -> Unknown:
    """The text of an SMTP command."""
    text, end, _ = payload.partition(b"\0")
    if not end:
        raise ProtocolError("an unknown command without an end")
    return Unknown(text)


def body(payload: bytes) -> Body:
    """All of it."""
    return Body(payload)


def end_of_message(payload: bytes) -> EndOfMessage:
    """All of it, often nothing."""
    return EndOfMessage(payload)


_DATA, _END_OF_HEADERS, _ABORT, _QUIT, _QUIT_NC = Data(), EndOfHeaders(), Abort(), Quit(), QuitNc()


def data(_payload: bytes) -> Data:
    """Nothing is in it, as in those that follow."""
    return _DATA


def end_of_headers(_payload: bytes) -> EndOfHeaders:
    return _END_OF_HEADERS


def abort(_payload: bytes) -> Abort:
    return _ABORT


def quit_(_payload: bytes) -> Quit:
    return _QUIT


def quit_nc(_payload: bytes) -> QuitNc:
    return _QUIT_NC
