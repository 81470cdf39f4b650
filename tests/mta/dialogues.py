"""Whole dialogues with several messages and recipients, for every MTA, in the world of `mta.cases`.

Each message says what every recipient is told, who gets it in the end, and which headers it then has. A
dialogue's recipients are its own (`{name}` is put into each), so that none disturbs another's triplets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mta.cases import ALLOWLISTS, AUTHENTICATED, BLOCK, BLOCKLISTS, GREY, MANUAL, PASS, blocked
from parts.sasl import LOGIN

RULES = [
    AUTHENTICATED,
    MANUAL,
    {"name": "required", "recipients": ["open@", "postmaster@"], "action": "accept"},
    {"name": "later", "recipients": ["later@"], "action": "tempfail", "text": "4.3.2 Not before noon, 100%"},
    {"name": "closed", "recipients": ["closed@"], "action": "reject", "text": "5.7.27 Closed to the world"},
    BLOCKLISTS,
    ALLOWLISTS,
    {"name": "the rest", "action": "greylist"},
]
LISTED = blocked("192.0.2.10")
LISTED6 = blocked("2001:db8:b10c::1")
LATER = r"451 4\.3\.2 Not before noon, 100%"
CLOSED = r"554 5\.7\.27 Closed to the world"
DNSWL = (
    r"mx\.example\.test; dnswl=pass dns\.zone=list\.dnswl\.org policy\.ip=127\.0\.5\.2",
)  # one header of this value
NONE: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One transaction: local parts with what each is told; `before` is a command line."""

    told: Mapping[str, str]
    results: tuple[str, ...] = NONE  # its Authentication-Results
    sender: str = "a@sender.example"
    before: str = ""
    cut: bool = False  # not sent, and the next follows without RSET


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One connection."""

    name: str
    address: str
    messages: tuple[Message, ...]
    host: str = ""
    login: str = ""
    forged: bool = False
    lists: frozenset[str] = field(default_factory=frozenset)  # those that the log must name

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def recipient(self, local: str) -> str:
        """A recipient that no other dialogue has."""
        return f"{local}@{self}.example"


EACH = {"later": LATER, "closed": CLOSED, "open": PASS}
DIALOGUES = [
    Dialogue(
        "listed and mixed",
        "192.0.2.10",
        (Message({"joe": LISTED, **EACH, "postmaster": PASS, "ann": LISTED}),),
        lists=frozenset({BLOCK}),
    ),
    Dialogue(
        "listed and mixed six",
        "2001:db8:b10c::1",
        (Message({"joe": LISTED6, **EACH, "postmaster": PASS, "ann": LISTED6}),),
        lists=frozenset({BLOCK}),
    ),
    Dialogue("unknown and mixed", "203.0.113.20", (Message({"open": PASS, "joe": GREY, **EACH}),)),
    Dialogue("unknown and mixed six", "2001:db8:2::1", (Message({"joe": GREY, **EACH, "ann": GREY}),)),
    Dialogue("unknown and nobody passes", "203.0.113.21", (Message({"joe": GREY, "closed": CLOSED}),)),
    Dialogue(
        "allowlisted and mixed", "192.0.2.15", (Message({"joe": PASS, "ann": PASS, **EACH}, results=DNSWL),)
    ),
    Dialogue(
        "allowlisted six", "2001:db8:a110::1", (Message({"joe": PASS, "closed": CLOSED}, results=DNSWL),)
    ),
    # The list let nobody in: the recipient was open to all.
    Dialogue("allowlisted to the open", "192.0.2.15", (Message({"open": PASS, "closed": CLOSED}),)),
    Dialogue(
        "allowlisted and then to the open",
        "192.0.2.15",
        (
            Message({"joe": PASS}, results=DNSWL),
            Message({"open": PASS}),
            Message({"joe": PASS}, results=DNSWL),
        ),
    ),
    Dialogue(
        "allowlisted and reset",
        "192.0.2.15",
        (Message({"joe": PASS}, cut=True), Message({"open": PASS}, before="RSET")),
    ),
    Dialogue(
        "listed and greeting again",
        "192.0.2.10",
        (
            Message({"open": PASS, "joe": LISTED}, cut=True),
            Message({"joe": LISTED, "open": PASS}, before="EHLO b"),
        ),
    ),
    Dialogue("logged in", "192.0.2.10", (Message({"joe": PASS, **dict.fromkeys(EACH, PASS)}),), login=LOGIN),
    Dialogue(
        "logged in and a second message",
        "2001:db8:b10c::1",
        (Message({"joe": PASS, "closed": PASS}), Message({"closed": PASS}, before="RSET")),
        login=LOGIN,
    ),
    Dialogue(
        "known by name", "203.0.113.22", (Message({"joe": PASS, "closed": PASS}),), host="mail.example.org"
    ),
    Dialogue(
        "known by a forged name",
        "203.0.113.23",
        (Message({"joe": GREY, "closed": CLOSED}),),
        host="mail.example.org",
        forged=True,
    ),
    Dialogue("null sender", "203.0.113.24", (Message({"joe": GREY, "open": PASS}, sender=""),)),
]
