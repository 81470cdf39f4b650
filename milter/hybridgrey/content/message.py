"""What a scanner is given: the message as the MTA tells it, and its envelope."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import Final, NamedTuple

_END: Final = b"\r\n"
# RFC 5321 section 4.5.3.1: a domain has 255 octets, a path 256; more is nobody's name.
_MOST_NAME: Final = 256
# What Postfix replaces in a HELO name (smtpd.c, helo_cmd), and whatever else ends a word.
_NO_WORD: Final = re.compile(r'[^!-~]|[<>()\\";@]')
_NO_PATH: Final = re.compile(r"[^!-~]|[<>]")


class Message:
    """A message as it comes, up to so many bytes; one that is longer is not kept."""

    __slots__ = ("_data", "_in_body", "_most", "too_large")

    def __init__(self, most: int) -> None:
        self._data = bytearray()
        self._most = most
        self._in_body = False
        self.too_large = False

    def header(self, name: bytes, value: bytes) -> None:
        """The next field; its value as it came, with whatever ends its lines."""
        if b"\n" in value:
            value = value.replace(b"\r\n", b"\n").replace(b"\n", _END)
        self._take(name, b": ", value, _END)

    def body(self, chunk: bytes) -> bool:
        """The next piece of the body, line ends and all; False if no more is wanted."""
        if not self._in_body:
            self._in_body = True
            self._take(_END)
        self._take(chunk)
        return not self.too_large

    def file(self, data: bytes) -> None:
        """All of it, as it stands in a file."""
        self._in_body = True
        self._take(data if b"\r\n" in data else data.replace(b"\n", _END))

    def _take(self, *pieces: bytes) -> None:
        if self.too_large:
            return
        if len(self._data) + sum(map(len, pieces)) > self._most:
            self.drop()
            return
        for piece in pieces:
            self._data += piece

    def drop(self) -> None:
        """Keep nothing of it, and take no more."""
        self.too_large = True
        self._data = bytearray()

    def whole(self) -> bytes:
        """What has come; without a body it ends with the empty line."""
        return bytes(self._data) if self._in_body else bytes(self._data) + _END


class Envelope(NamedTuple):
    """What the dialogue has said of a message.

    `address` is the client's, as the MTA has it, `host` its verified name.  `name` is this host's, `mta` what
    the MTA calls itself, `at` Unix seconds.
    """

    address: str
    host: str | None = None
    helo: str | None = None
    sender: str = ""
    recipients: tuple[str, ...] = ()
    login: str = ""
    tls: bool = False
    name: str = ""
    mta: str = ""
    queue_id: str = ""
    at: float = 0.0


def word(text: str) -> str:
    """A name of somebody else's as one word of a header field; "" for none."""
    return _NO_WORD.sub("?", text[:_MOST_NAME])


def path(text: str) -> str:
    """An address of somebody else's as a path, with its angle brackets, which it may have already."""
    inner = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    return f"<{_NO_PATH.sub('?', inner[:_MOST_NAME])}>"


def received(envelope: Envelope) -> bytes:
    """The ``Received`` field that the MTA will write (Postfix src/smtpd/smtpd.c, smtpd_data_cmd).

    Scanners take the client, its name and its HELO name from it.  That of a client that has logged in says so
    by ``ESMTPA`` (RFC 3848), which SpamAssassin trusts as the MTA's own word.
    """
    host = word(envelope.host or "") or "unknown"
    address = word(envelope.address)
    if ":" in address and not address.lower().startswith("ipv6:"):
        address = f"IPv6:{address}"
    helo = word(envelope.helo or "") or host
    protocol = "ESMTP" + "S" * envelope.tls + "A" * bool(envelope.login)
    lines = [f"Received: from {helo} ({host} [{address}])"]
    by = f"by {word(envelope.name) or 'localhost'} ({_program(envelope.mta)}) with {protocol}"
    lines += [f"{by} id {word(envelope.queue_id)}" if envelope.queue_id else by]
    # With several the MTA names none: a blind copy is not told of.
    to = f"for {path(envelope.recipients[0])}" if len(envelope.recipients) == 1 else ""
    lines += [f"{to}; {formatdate(envelope.at, localtime=True)}".lstrip()]
    return "\r\n\t".join(lines).encode() + _END


def _program(said: str) -> str:
    """The MTA as it names itself there: Postfix without a version, Sendmail by that of program and rules."""
    name = word(said.partition(" ")[0]) or "MTA"
    return f"{name}/{name}" if name[0].isdigit() else name


def return_path(envelope: Envelope) -> bytes:
    """The ``Return-Path`` field (RFC 5321 section 4.4), by which SpamAssassin knows the envelope sender."""
    return f"Return-Path: {path(envelope.sender)}".encode() + _END
