"""What each command does: how it is read, which macros it begins and ends, what follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from hybridgrey.protocol import commands, wire
from hybridgrey.protocol.events import Event
from hybridgrey.protocol.macros import (
    FOR_CONNECT,
    FOR_DATA,
    FOR_END_OF_HEADERS,
    FOR_END_OF_MESSAGE,
    FOR_HELO,
    FOR_MAIL,
    FOR_RCPT,
)

NOTHING, DUE, CONTINUE, END_OF_TRANSACTION, END_OF_SESSION, END = range(6)
"""What follows: no reply, the filter's, one for it; or something is over."""
NO_STAGE = -1

Reader: TypeAlias = Callable[[bytes], Event | None]


class Step(NamedTuple):
    """One command. `read` gives its event, or none if the filter is not to know; None: it brings macros."""

    read: Reader | None
    follows: int
    stage: int


Plan: TypeAlias = Mapping[int, Step]
"""The commands that may come, by letter."""

_ANSWERED: dict[int, tuple[Reader, int]] = {
    wire.CONNECT: (commands.connect, FOR_CONNECT),
    wire.HELO: (commands.helo, FOR_HELO),
    wire.MAIL: (commands.mail, FOR_MAIL),
    wire.RCPT: (commands.rcpt, FOR_RCPT),
    wire.DATA: (commands.data, FOR_DATA),
    wire.HEADER: (commands.header, NO_STAGE),
    wire.END_OF_HEADERS: (commands.end_of_headers, FOR_END_OF_HEADERS),
    wire.BODY: (commands.body, NO_STAGE),
    wire.END_OF_MESSAGE: (commands.end_of_message, FOR_END_OF_MESSAGE),
    wire.UNKNOWN: (commands.unknown, NO_STAGE),
}
_UNANSWERED: dict[int, Step] = {
    wire.MACRO: Step(None, NOTHING, NO_STAGE),
    wire.ABORT: Step(commands.abort, END_OF_TRANSACTION, NO_STAGE),
    wire.QUIT: Step(commands.quit_, END, NO_STAGE),
    wire.QUIT_NC: Step(commands.quit_nc, END_OF_SESSION, NO_STAGE),
}


def _untold(_payload: bytes) -> None:
    """Whatever it says: libmilter does not look at what no callback wants, either."""


@lru_cache(64)
def plan(unused: int, silent: int, steps: int) -> Plan:
    """What to do at each command; one for all connections of the same agreement (`terms.Agreement`)."""
    made = dict(_UNANSWERED)
    for letter, (read, stage) in _ANSWERED.items():
        not_sent, no_reply = wire.STEPS[letter]
        if no_reply & steps:
            follows = NOTHING
        elif no_reply & silent or not_sent & unused:
            follows = CONTINUE
        else:
            follows = DUE
        made[letter] = Step(_untold if not_sent & unused else read, follows, stage)
    return made
