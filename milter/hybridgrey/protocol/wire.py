"""Letters and flags of the milter protocol, as libmilter's mfdef.h and mfapi.h have them."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

VERSION: Final = 6
OLDEST: Final = 2
"""Version 1 is refused by libmilter as well."""

# -- commands of the MTA
ABORT: Final = ord("A")
BODY: Final = ord("B")
CONNECT: Final = ord("C")
MACRO: Final = ord("D")
END_OF_MESSAGE: Final = ord("E")
HELO: Final = ord("H")
QUIT_NC: Final = ord("K")
HEADER: Final = ord("L")
MAIL: Final = ord("M")
END_OF_HEADERS: Final = ord("N")
OPTNEG: Final = ord("O")
QUIT: Final = ord("Q")
RCPT: Final = ord("R")
DATA: Final = ord("T")
UNKNOWN: Final = ord("U")

# -- actions: what the filter may change at the end of a message
ADD_HEADERS: Final = 0x01
CHANGE_BODY: Final = 0x02
ADD_RECIPIENTS: Final = 0x04
DELETE_RECIPIENTS: Final = 0x08
CHANGE_HEADERS: Final = 0x10
QUARANTINE: Final = 0x20
CHANGE_SENDER: Final = 0x40
ADD_RECIPIENTS_WITH_PARAMETERS: Final = 0x80
SET_MACRO_LISTS: Final = 0x100

DEFAULT_ACTIONS: Final = 0x0F
"""What an offer of no action means (version 1)."""

# -- steps that the MTA can leave out
NO_CONNECT: Final = 0x01
NO_HELO: Final = 0x02
NO_MAIL: Final = 0x04
NO_RCPT: Final = 0x08
NO_BODY: Final = 0x10
NO_HEADERS: Final = 0x20
NO_END_OF_HEADERS: Final = 0x40
NO_UNKNOWN: Final = 0x100
NO_DATA: Final = 0x200

# -- replies that the MTA can do without
SILENT_HEADER: Final = 0x80
SILENT_CONNECT: Final = 0x1000
SILENT_HELO: Final = 0x2000
SILENT_MAIL: Final = 0x4000
SILENT_RCPT: Final = 0x8000
SILENT_DATA: Final = 0x10000
SILENT_UNKNOWN: Final = 0x20000
SILENT_END_OF_HEADERS: Final = 0x40000
SILENT_BODY: Final = 0x80000

# -- what else it can do
CAN_SKIP: Final = 0x400
REJECTED_RCPT: Final = 0x800
LEADING_SPACE: Final = 0x100000
SIZE_256K: Final = 0x10000000
SIZE_1M: Final = 0x20000000

DEFAULT_STEPS: Final = 0x3F
"""What an offer of no step means (version 1)."""

STEPS: Final = {
    CONNECT: (NO_CONNECT, SILENT_CONNECT),
    HELO: (NO_HELO, SILENT_HELO),
    MAIL: (NO_MAIL, SILENT_MAIL),
    RCPT: (NO_RCPT, SILENT_RCPT),
    DATA: (NO_DATA, SILENT_DATA),
    UNKNOWN: (NO_UNKNOWN, SILENT_UNKNOWN),
    HEADER: (NO_HEADERS, SILENT_HEADER),
    END_OF_HEADERS: (NO_END_OF_HEADERS, SILENT_END_OF_HEADERS),
    BODY: (NO_BODY, SILENT_BODY),
    END_OF_MESSAGE: (0, 0),
}
"""The commands that have a reply: the flag to leave the command out, the flag to leave out the reply."""

ALL_SILENT: Final = sum(silent for _, silent in STEPS.values())
ALL_SIZES: Final = SIZE_256K | SIZE_1M

LARGEST: Final = 65_535
"""Bytes of a payload (MILTER_MAX_DATA_SIZE), unless more was agreed; Postfix cuts headers at 60,000."""
LARGEST_AGREED: Final = {SIZE_256K: 262_143, SIZE_1M: 1_048_575}


class Stage(IntEnum):
    """What macros and lists of macros belong to (SMFIM_*)."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END_OF_MESSAGE = 5
    END_OF_HEADERS = 6


HEAD: Final = struct.Struct("!IB")
"""The length of what follows it, and the letter."""
LONG: Final = struct.Struct("!I")
OFFER: Final = struct.Struct("!iII")
"""Version, actions, steps; libmilter compares the version as a signed number."""


class ProtocolError(Exception):
    """The peer does not keep to the protocol: close the connection."""


class NotAllowedError(Exception):
    """The filter wants to send what must not be sent here: a mistake in the program."""


def frame(letter: int, payload: bytes = b"") -> bytes:
    """A frame as it goes over the wire."""
    return HEAD.pack(len(payload) + 1, letter) + payload
