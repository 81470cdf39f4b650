"""What Sendmail logs of the mail that came: refusals by ruleset or milter, messages taken and given on.

A message that is taken is one with recipients (``from=…, nrcpts=1``) that is later given on (``to=…,
stat=…``) and was not refused at its end in between.  Mail of the machine itself is left out.  Paths in angle
brackets are cut off before a text is looked at, for they are the client's.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

PROGRAMS: Final = rb"sm-mta|sendmail"

_LINE: Final = re.compile(rb"(\w+): (.*)", re.DOTALL)
_REPLY: Final = rb"([45])\d\d (?:[45]\.\d{1,3}\.\d{1,3} )?(.*)"
_RULESET: Final = re.compile(rb"ruleset=\w+, .*?\breject=" + _REPLY, re.DOTALL)
# At a high log level "milter=name, action=rcpt, reject=…" says the same once more.
_MILTER: Final = re.compile(rb"Milter: .*?\breject=" + _REPLY, re.DOTALL)
_FROM: Final = re.compile(rb"from=.*, nrcpts=[1-9]\d*,.*\brelay=(?:\S+ )?\[([^\]]*)\]", re.DOTALL)
_TO: Final = re.compile(rb"(?:to|ctladdr)=.*\bstat=", re.DOTALL)
_UNKNOWN: Final = re.compile(rb"\.\.\. User unknown$")
_OWN: Final = re.compile(rb"127\.|(?:IPv6:)?(?:::1|(?:0:){7}1)$")


class Kind(Enum):
    """What a line tells."""

    BEGUN = auto()
    GIVEN_ON = auto()
    REJECTED = auto()
    DEFERRED = auto()


@dataclass(frozen=True, slots=True)
class Event:
    """A line that counts: the message's queue id, and what a refusal said."""

    kind: Kind
    queue_id: bytes
    said: bytes = b""


def event(text: bytes) -> Event | None:
    """The event of a line, given what stands after the program, without what stands between brackets."""
    line = _LINE.match(text)
    if line is None:
        return None
    queue_id, rest = line[1], line[2].rstrip()
    if refused := _RULESET.match(rest) or _MILTER.match(rest):
        kind = Kind.REJECTED if refused[1] == b"5" else Kind.DEFERRED
        return Event(kind, queue_id, refused[2].strip())
    if _UNKNOWN.search(rest):
        return Event(Kind.REJECTED, queue_id)
    if begun := _FROM.match(rest):
        return None if _OWN.match(begun[1]) else Event(Kind.BEGUN, queue_id)
    return Event(Kind.GIVEN_ON, queue_id) if _TO.match(rest) else None
