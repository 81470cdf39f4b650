"""A client of the milter protocol, version 6: the MTA's side, for tests of a milter without an MTA.

    with MilterPeer(("127.0.0.1", 8893)) as peer:
        peer.connect("mail.example.org", "192.0.2.1")
        peer.helo("mail.example.org")
        peer.mail("<a@example.org>")
        assert peer.rcpt("<b@example.net>").code == "450"

What the milter negotiated away is not sent and answers `NOT_SENT`; a reply it negotiated away is not waited
for and answers `NO_REPLY`. Macros are sent as an MTA does: when the milter asked for a list at some stage,
then only those. Strings may be bytes; a str is sent as UTF-8, lone surrogates as the bytes they stand for.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Text = str | bytes

ALL_ACTIONS = 0x1FF
ALL_STEPS = 0x1FFFFF
# command: (byte, flag "do not send", flag "no reply"); libmilter's mfdef.h
COMMANDS = {
    "connect": (b"C", 0x1, 0x1000),
    "helo": (b"H", 0x2, 0x2000),
    "mail": (b"M", 0x4, 0x4000),
    "rcpt": (b"R", 0x8, 0x8000),
    "data": (b"T", 0x200, 0x10000),
    "unknown": (b"U", 0x100, 0x20000),
    "header": (b"L", 0x20, 0x80),
    "eoh": (b"N", 0x40, 0x40000),
    "body": (b"B", 0x10, 0x80000),
    "eom": (b"E", 0, 0),
}
# The number that a list of macros is asked for with, SMFIM_*.
MACRO_STAGES = {0: "connect", 1: "helo", 2: "mail", 3: "rcpt", 4: "data", 5: "eom", 6: "eoh"}
VERDICTS = {
    b"c": "continue",
    b"a": "accept",
    b"r": "reject",
    b"t": "tempfail",
    b"d": "discard",
    b"s": "skip",
    b"y": "reply",
    b"4": "shutdown",
    b"f": "conn_fail",
}
MODIFICATIONS = b"+-2beihmq"


@dataclass(frozen=True, slots=True)
class Reply:
    """The milter's answer: what kind, and for "reply" its SMTP text."""

    kind: str
    text: str = ""

    @property
    def code(self) -> str:
        """The three digits of an SMTP reply, else empty."""
        return self.text[:3]

    @property
    def passes(self) -> bool:
        """Whether the command goes through."""
        return self.kind in ("continue", "accept", "not sent", "no reply")


NOT_SENT = Reply("not sent")
NO_REPLY = Reply("no reply")


@dataclass(frozen=True, slots=True)
class Message:
    """The milter's answer at the end of a message: the reply and the headers to add, (index, name, value)."""

    reply: Reply
    headers: list[tuple[int, str, str]] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)

    def header(self, name: str) -> list[str]:
        """The values to be added under a name."""
        return [value for _, one, value in self.headers if one.lower() == name.lower()]

    @property
    def deleted(self) -> list[tuple[str, int]]:
        """Which headers are to be taken out, (name, index), in the milter's order."""
        changes = [other[1:] for other in self.others if other[:1] == b"m"]
        parts = [(change[4:].split(b"\0"), struct.unpack("!I", change[:4])[0]) for change in changes]
        return [(name.decode(), index) for (name, value, *_), index in parts if not value]


def raw(text: Text) -> bytes:
    """Bytes as they go over the wire."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def strings(*texts: Text) -> bytes:
    """The texts, each with its closing NUL."""
    return b"".join(raw(text) + b"\0" for text in texts)


def framed(data: bytes) -> bytes:
    """A packet: the length before a command and its data."""
    return struct.pack("!I", len(data)) + data


NEGOTIATE = framed(b"O" + struct.pack("!III", 6, ALL_ACTIONS, ALL_STEPS))


class MilterPeer:
    """One milter connection."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        actions: int = ALL_ACTIONS,
        protocol: int = ALL_STEPS,
        version: int = 6,
        timeout: float = 20.0,
    ) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if isinstance(address, tuple) and ":" in address[0]:
            family = socket.AF_INET6
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        if family != socket.AF_UNIX:
            # Macros and command are two packets: the second would wait 40 ms for the first one's ACK.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wanted_macros: dict[str, list[str]] = {}
        self._negotiate(version, actions, protocol)

    def _negotiate(self, version: int, actions: int, protocol: int) -> None:
        self._send(b"O", struct.pack("!III", version, actions, protocol))
        kind, data = self._receive()
        if kind != b"O":
            raise ConnectionError(f"the milter answers the negotiation with {kind!r}")
        self.version, self.actions, self.steps = struct.unpack("!III", data[:12])
        rest = data[12:]
        while len(rest) > 4:
            stage = MACRO_STAGES[struct.unpack("!I", rest[:4])[0]]
            names, _, rest = rest[4:].partition(b"\0")
            self.wanted_macros[stage] = names.decode().split()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection without a word, as a dying MTA does."""
        self.socket.close()

    # -- packets

    def _send(self, command: bytes, data: bytes = b"") -> None:
        self.socket.sendall(framed(command + data))

    def _exactly(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            more = self.socket.recv(count - len(parts))
            if not more:
                raise ConnectionResetError("the milter closed the connection")
            parts += more
        return parts

    def _receive(self) -> tuple[bytes, bytes]:
        while True:
            (size,) = struct.unpack("!I", self._exactly(4))
            packet = self._exactly(size)
            if packet[:1] != b"p":  # progress: wait on
                return packet[:1], packet[1:]

    @staticmethod
    def _parse(kind: bytes, data: bytes) -> Reply:
        return Reply(VERDICTS[kind], data.rstrip(b"\0").decode("utf-8", "surrogateescape"))

    def _macros(self, stage: str, macros: Mapping[str, Text]) -> None:
        if stage in self.wanted_macros:
            macros = {name: value for name, value in macros.items() if name in self.wanted_macros[stage]}
        pairs = [part for pair in macros.items() for part in pair]
        if pairs:
            self._send(b"D", COMMANDS[stage][0] + strings(*pairs))

    def _command(self, stage: str, data: bytes, macros: Mapping[str, Text]) -> Reply:
        byte, not_sent, no_reply = COMMANDS[stage]
        if self.steps & not_sent:
            return NOT_SENT
        self._macros(stage, macros)
        self._send(byte, data)
        if self.steps & no_reply:
            return NO_REPLY
        return self._parse(*self._receive())

    # -- the dialogue

    def connect(
        self,
        host: Text = "unknown",
        address: str = "192.0.2.1",
        *,
        family: str = "",
        macros: Mapping[str, Text] | None = None,
    ) -> Reply:
        """Open a session; `family` is "4", "6", "L" (unix; the address is a path) or "U" (unknown)."""
        family = family or ("6" if ":" in address else "4")
        data = strings(host) + family.encode()
        if family != "U":
            data += struct.pack("!H", 0 if family == "L" else 40000) + strings(address)
        known: dict[str, Text] = {"j": "mx.test", "{daemon_name}": "smtpd", "{client_addr}": address}
        known |= {"{client_name}": host, "{client_resolve}": "OK" if raw(host) != b"unknown" else "FAIL"}
        return self._command("connect", data, known | dict(macros or {}))

    def helo(self, name: Text = "client.test", macros: Mapping[str, Text] | None = None) -> Reply:
        """Greet."""
        return self._command("helo", strings(name), dict(macros or {}))

    def mail(
        self, sender: Text = "<a@example.org>", *parameters: Text, macros: Mapping[str, Text] | None = None
    ) -> Reply:
        """Begin a message; `sender` with its angle brackets."""
        known: dict[str, Text] = {"i": "QUEUEID", "{mail_addr}": raw(sender).strip(b"<>")}
        return self._command("mail", strings(sender, *parameters), known | dict(macros or {}))

    def rcpt(
        self, recipient: Text = "<b@example.net>", *parameters: Text, macros: Mapping[str, Text] | None = None
    ) -> Reply:
        """Name one recipient, with its angle brackets."""
        known: dict[str, Text] = {"i": "QUEUEID", "{rcpt_addr}": raw(recipient).strip(b"<>")}
        return self._command("rcpt", strings(recipient, *parameters), known | dict(macros or {}))

    def unknown(self, command: Text) -> Reply:
        """Pass on a command the MTA does not know."""
        return self._command("unknown", strings(command), {})

    def content(
        self,
        headers: Mapping[str, Text] | Sequence[tuple[str, Text]] | None = None,
        body: bytes = b"Hello.\r\n",
        macros: Mapping[str, Text] | None = None,
    ) -> Message:
        """Send DATA, headers and body and end the message; stops at a step that does not pass."""
        known: Mapping[str, Text] = {"i": "QUEUEID", **(macros or {})}
        steps = [("data", b"")]
        fields = list(headers.items()) if isinstance(headers, Mapping) else headers
        steps += [("header", strings(*pair)) for pair in fields or [("Subject", "test")]]
        steps += [("eoh", b""), ("body", body)]
        for stage, data in steps:
            reply = self._command(stage, data, known)
            # No more of the body is wanted; there is none.
            if not reply.passes and reply.kind != "skip":
                return Message(reply)
        self._macros("eom", known)
        self._send(b"E")
        return self._end_of_message()

    def _end_of_message(self) -> Message:
        headers: list[tuple[int, str, str]] = []
        others: list[bytes] = []
        while True:
            kind, data = self._receive()
            if kind not in MODIFICATIONS:
                return Message(self._parse(kind, data), headers, others)
            if kind in b"hi":
                index = struct.unpack("!I", data[:4])[0] if kind == b"i" else -1
                name, value = (data[4:] if kind == b"i" else data).split(b"\0")[:2]
                headers.append((index, name.decode(), value.decode("utf-8", "surrogateescape")))
            else:
                others.append(kind + data)

    def abort(self) -> None:
        """Give the message up (RSET, or all recipients refused); has no reply."""
        self._send(b"A")

    def quit(self) -> None:
        """End the session and the connection."""
        self._send(b"Q")
        self.close()

    def quit_for_next(self) -> None:
        """End the session; another one follows on the same connection."""
        self._send(b"K")
