"""What is asked of DNS and what comes back; which names can be asked.

A generator of this package yields an `Ask` and is resumed with one `Answer` for each question of `Ask.now`,
in that order.  What stands in `Ask.soon` will probably be asked next: whoever carries the questions may send
these at once as well, but needs not, and must not wait for their answers.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from enum import Enum
from typing import Literal, NamedTuple, TypeAlias, TypeVar

Type: TypeAlias = Literal["A", "AAAA", "MX", "PTR", "TXT"]

# Octets of a name as text (RFC 1035 section 2.3.4: 255 on the wire).
MAX_NAME = 253
# Seconds for which anything is believed at most.
MAX_TTL = 86400

# One pass, no way back: hostile names are long.
_NAME = re.compile(r"[^.]{1,63}(?:\.[^.]{1,63})*+", re.DOTALL)


class Question(NamedTuple):
    """A name in lower case, without a last dot, and a type.

    Dots part the labels and nothing is escaped: a label may hold any other ASCII character, for macros put
    into names what the sender wrote.
    """

    name: str
    type: Type


class Status(Enum):
    """What kind of an answer it is."""

    FOUND = "found"
    EMPTY = "no data"
    NXDOMAIN = "no such name"
    FAILED = "no answer"
    """A time-out, SERVFAIL, REFUSED, a reply that cannot be read, a loop of CNAMEs."""


class Answer(NamedTuple):
    """The records of a name, at the end of its CNAMEs.

    `data`: for A and AAAA 4 or 16 octets each; for TXT the strings of a record joined, as they came.
    `names`: for MX and PTR the hosts.  `ttl`: seconds, of a denial by RFC 2308; of a failure for as long as
    it is remembered.
    """

    status: Status
    ttl: int = 0
    data: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()


class Ask(NamedTuple):
    """Questions whose answers are needed to go on, and those that may come next."""

    now: tuple[Question, ...]
    soon: tuple[Question, ...] = ()


T = TypeVar("T")
Steps: TypeAlias = Generator[Ask, Sequence[Answer], T]
"""Yields questions, takes answers, returns a T."""


def plain_name(name: str) -> str:
    """A name as it is asked: in lower case, without its last dot."""
    return name.lower().removesuffix(".")


def askable(name: str) -> bool:
    """Whether a question can be made of the name: labels of 1 to 63 octets, ASCII (RFC 8616 section 4)."""
    return len(name) <= MAX_NAME and name.isascii() and _NAME.fullmatch(name) is not None
