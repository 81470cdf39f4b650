"""What an MTA tells: one small tuple for each command.

Text is bytes as they came, without the closing NUL; only a client's address is a str.

`Connect`, `Helo`, `Mail`, `Abort`, `Quit` and `QuitNc` end the transaction that was open, if one was; there
is no further event for that.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Negotiate(NamedTuple):
    """The agreement, which has been answered already: version, actions, steps as the MTA was told."""

    version: int
    actions: int
    steps: int


class Connect(NamedTuple):
    """An SMTP client.

    `family` is "4" or "6" (IP), "L" (a unix socket, `address` is its path, `port` 0) or "U" (unknown,
    `address` is empty).
    """

    host: bytes
    family: str
    address: str
    port: int


class Helo(NamedTuple):
    """The name in HELO or EHLO."""

    name: bytes


class Mail(NamedTuple):
    """MAIL FROM: the path with its brackets, and ESMTP parameters."""

    path: bytes
    parameters: list[bytes]


class Rcpt(NamedTuple):
    """RCPT TO: the path with its brackets, and ESMTP parameters."""

    path: bytes
    parameters: list[bytes]


class Data(NamedTuple):
    """DATA: the envelope is complete."""


class Header(NamedTuple):
    """One header; its value keeps the space after the colon only if `wire.LEADING_SPACE` was agreed."""

    name: bytes
    value: bytes


class EndOfHeaders(NamedTuple):
    """The empty line after the headers."""


class Body(NamedTuple):
    """A piece of the body."""

    chunk: bytes


class EndOfMessage(NamedTuple):
    """The end, with the last piece of the body where the MTA sends it here."""

    chunk: bytes


class Unknown(NamedTuple):
    """An SMTP command that the MTA does not know."""

    command: bytes


class Abort(NamedTuple):
    """The transaction is over before its end (RSET, all recipients refused, the client has gone)."""


class Quit(NamedTuple):
    """The session is over, and the connection with it."""


class QuitNc(NamedTuple):
    """The session is over; another client follows on the same connection."""


Event: TypeAlias = (
    Negotiate
    | Connect
    | Helo
    | Mail
    | Rcpt
    | Data
    | Header
    | EndOfHeaders
    | Body
    | EndOfMessage
    | Unknown
    | Abort
    | Quit
    | QuitNc
)
