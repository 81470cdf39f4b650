"""One entry by hand: what it is about, what it says, and its form in the store and on disk.

A subject is read as an entry of a rule is (`policy.match.parse_entry`), so it means the same, and it is
kept in the form in which it is matched.  An entry is a field of a hash, ``client 192.0.2.0/24``, and its
value: when it was made and when it ends (Unix seconds of the store's clock; 0: never), then a JSON object
with the rest:

    1767225600 1769817600 {"kind":"block","who":"ann","host":"mx1.example.org","comment":"junk since June"}

What is read may have been written by anybody.  It is bounded, checked, and passed over where it is none of
ours.

Pure.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, NamedTuple

from hybridgrey.policy import match
from hybridgrey.policy.conditions import Hand
from hybridgrey.policy.match import EntryError

MAX_COMMENT: Final = 200
"""Characters."""
MAX_NAME: Final = 100
"""Characters of who made it, and on which host."""
MAX_FIELD: Final = 600
"""Bytes of a subject; the longest mailbox has 64 + 1 + 255 characters, all but a few of them ASCII."""
MAX_VALUE: Final = 2048
"""Bytes of the rest."""

_VALUE: Final = re.compile(rb"([0-9]{1,12}) ([0-9]{1,12}) (\{.*\})", re.DOTALL)
_WIDEST: Final = {4: 8, 6: 16}


class About(StrEnum):
    """What a subject is."""

    CLIENT = "client"
    SENDER = "sender"
    RECIPIENT = "recipient"


_READ_AS: Final = {
    About.CLIENT: match.Kind.CLIENT,
    About.SENDER: match.Kind.SENDER,
    About.RECIPIENT: match.Kind.RECIPIENT,
}


class SubjectError(ValueError):
    """A subject that cannot be read or can never match; the text says why."""


class Subject(NamedTuple):
    """What an entry is about; `key` is the form in which it is matched (`match.Entry`)."""

    about: About
    key: match.Network | str

    @property
    def text(self) -> str:
        """As an admin may write it; ``read(about, text)`` gives the subject again."""
        if isinstance(self.key, str):
            return self.key
        return (
            str(self.key.network_address) if self.key.prefixlen == self.key.max_prefixlen else str(self.key)
        )

    @property
    def field(self) -> bytes:
        """Its name in the store."""
        return f"{self.about} {self.text}".encode()

    def breadth(self) -> str:
        """Why it is so wide that it may be a slip of the finger, "" when it is not."""
        if isinstance(self.key, IPv4Network | IPv6Network):
            wide = self.key.prefixlen < _WIDEST[self.key.version]
            return f"{self.key.num_addresses:,} addresses" if wide else ""
        if self.key == match.NULL_SENDER:
            return "all bounces"
        if self.key.startswith(".") and "." not in self.key[1:]:
            return f"every name below {self.key}"
        return ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was said of a subject: `at` and `until` are Unix seconds, an `until` of 0 is no end."""

    subject: Subject
    kind: Hand
    who: str
    host: str
    at: int
    until: int
    comment: str

    def over(self, now: float) -> bool:
        """Whether its time is over."""
        return 0 < self.until <= now

    def fields(self) -> dict[str, str | int | None]:
        """It for JSON; times in Unix seconds, `until` null for no end."""
        return {
            "kind": self.kind.value,
            "of": self.subject.about.value,
            "subject": self.subject.text,
            "since": self.at,
            "until": self.until or None,
            "who": self.who,
            "host": self.host,
            "comment": self.comment,
        }


def read(about: About, text: str) -> Subject:
    """The subject that an admin means by a text.  Raises SubjectError."""
    text = text.strip()
    if about is About.SENDER and not text:
        text = match.NULL_SENDER  # as MAIL FROM:<> has it
    if text.startswith("!"):
        raise SubjectError(f"{text!r}: no ! here; make an entry of the other kind, or unlist one")
    try:
        found = Subject(about, match.parse_entry(_READ_AS[about], text).key)
        again = match.parse_entry(_READ_AS[about], found.text).key
    except EntryError as error:
        raise SubjectError(str(error)) from None
    if found.key == match.NULL_SENDER and about is About.RECIPIENT:
        raise SubjectError("<> is no recipient: it would never match")
    # What is stored is read again by each host, and must mean there what it means here.
    if again != found.key or not found.text.isprintable() or len(found.field) > MAX_FIELD:
        raise SubjectError(
            f"{text!r} cannot be kept: it is too long, or has characters that are read two ways"
        )
    return found


def said(kind: Hand, who: str, host: str, comment: str) -> bytes:
    """The part of a value that a command makes; the store puts the times before it."""
    parts = {
        "kind": kind.value,
        "who": plain(who, MAX_NAME),
        "host": plain(host, MAX_NAME),
        "comment": plain(comment, MAX_COMMENT),
    }
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def plain(text: str, limit: int) -> str:
    """A text on one line without what steers a terminal, of `limit` characters at most."""
    if len(text) <= limit and text.isprintable() and " ".join(text.split()) == text:
        return text
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * limit]).split())[:limit]


def parse(field: object, value: object) -> Entry | None:
    """An entry by its field and value; None for what is none."""
    if not isinstance(field, bytes) or not isinstance(value, bytes):
        return None
    if len(field) > MAX_FIELD or len(value) > MAX_VALUE:
        return None
    subject, match_ = _subject(field), _VALUE.fullmatch(value)
    rest = json_object(match_[3]) if match_ else None
    if subject is None or match_ is None or rest is None:
        return None
    kind = rest.get("kind")
    if kind not in (Hand.ALLOW.value, Hand.BLOCK.value):
        return None
    who, host, comment = (_text(rest.get(name), most) for name, most in _TEXTS.items())
    return Entry(subject, Hand(kind), who, host, int(match_[1]), int(match_[2]), comment)


_TEXTS: Final = {"who": MAX_NAME, "host": MAX_NAME, "comment": MAX_COMMENT}


def _subject(field: bytes) -> Subject | None:
    """A subject by its field, if it is written as we write it: no two fields are of one subject."""
    try:
        name, _, text = field.decode().partition(" ")
        about = About(name)
        found = Subject(about, match.parse_entry(_READ_AS[about], text).key)
    except ValueError:  # no UTF-8, no such About, no subject
        return None
    never = found.key == match.NULL_SENDER and about is About.RECIPIENT
    return found if found.field == field and text.isprintable() and not never else None


def json_object(text: bytes) -> dict[str, Any] | None:
    """What anybody may have written as a JSON object; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: object, limit: int) -> str:
    return plain(value, limit) if isinstance(value, str) else ""
