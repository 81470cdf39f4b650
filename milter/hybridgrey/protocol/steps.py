"""What each command does to a connection: which macros it ends, which event it is, what follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

from hybridgrey.protocol import commands, wire
from hybridgrey.protocol.events import (
    Abort,
    Body,
    Connect,
    Data,
    EndOfHeaders,
    EndOfMessage,
    Event,
    Header,
    Helo,
    Mail,
    Quit,
    QuitNc,
    Rcpt,
    Unknown,
)
from hybridgrey.protocol.macros import (
    FOR_CONNECT,
    FOR_DATA,
    FOR_END_OF_HEADERS,
    FOR_END_OF_MESSAGE,
    FOR_HELO,
    FOR_MAIL,
    FOR_RCPT,
    Macros,
)

NOTHING, DUE, CONTINUE, END_OF_TRANSACTION, END_OF_SESSION, END = range(6)
"""What follows a command: no reply, the filter's, one for it; or something is over."""

Step: TypeAlias = Callable[[Macros, bytes], Event | None]
Plan: TypeAlias = Mapping[int, tuple[Step, int]]
"""A step, and what follows it, for each letter that may come."""


def _connect(macros: Macros, payload: bytes) -> Connect:
    macros.begin(FOR_CONNECT)
    return commands.connect(payload)


def _helo(macros: Macros, payload: bytes) -> Helo:
    macros.begin(FOR_HELO)
    return commands.helo(payload)


def _mail(macros: Macros, payload: bytes) -> Mail:
    macros.begin(FOR_MAIL)
    return Mail(*commands.path(payload))


def _rcpt(macros: Macros, payload: bytes) -> Rcpt:
    macros.begin(FOR_RCPT)
    return Rcpt(*commands.path(payload))


def _data(macros: Macros, _payload: bytes) -> Data:
    macros.begin(FOR_DATA)
    return Data()


def _header(_macros: Macros, payload: bytes) -> Header:
    return commands.header(payload)


def _end_of_headers(macros: Macros, _payload: bytes) -> EndOfHeaders:
    macros.begin(FOR_END_OF_HEADERS)
    return EndOfHeaders()


def _body(_macros: Macros, payload: bytes) -> Body:
    return Body(payload)


def _end_of_message(macros: Macros, payload: bytes) -> EndOfMessage:
    macros.begin(FOR_END_OF_MESSAGE)
    return EndOfMessage(payload)


def _unknown(_macros: Macros, payload: bytes) -> Unknown:
    return commands.unknown(payload)


def _abort(_macros: Macros, _payload: bytes) -> Abort:
    return Abort()


def _quit(_macros: Macros, _payload: bytes) -> Quit:
    return Quit()


def _quit_nc(_macros: Macros, _payload: bytes) -> QuitNc:
    return QuitNc()


def _untold(read: Step) -> Step:
    """A step that the filter does without: its macros are ended and begun all the same."""

    def untold(macros: Macros, payload: bytes) -> None:
        read(macros, payload)

    return untold


_ANSWERED: dict[int, Step] = {
    wire.CONNECT: _connect,
    wire.HELO: _helo,
    wire.MAIL: _mail,
    wire.RCPT: _rcpt,
    wire.DATA: _data,
    wire.HEADER: _header,
    wire.END_OF_HEADERS: _end_of_headers,
    wire.BODY: _body,
    wire.END_OF_MESSAGE: _end_of_message,
    wire.UNKNOWN: _unknown,
}
_UNANSWERED: dict[int, tuple[Step, int]] = {
    wire.MACRO: (Macros.take, NOTHING),
    wire.ABORT: (_abort, END_OF_TRANSACTION),
    wire.QUIT: (_quit, END),
    wire.QUIT_NC: (_quit_nc, END_OF_SESSION),
}


@lru_cache(64)
def plan(unused: int, silent: int, steps: int) -> Plan:
    """What to do at each command; one for all connections of the same agreement (`terms.Agreement`)."""
    made = dict(_UNANSWERED)
    for letter, read in _ANSWERED.items():
        not_sent, no_reply = wire.STEPS[letter]
        if no_reply & steps:
            follows = NOTHING
        elif no_reply & silent or not_sent & unused:
            follows = CONTINUE
        else:
            follows = DUE
        made[letter] = (_untold(read) if not_sent & unused else read, follows)
    return made
