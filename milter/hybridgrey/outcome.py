"""What a client got for a recipient, and why: the words that the log, the page, reports and commands share.

Metrics and the history had other words for outcomes before these were settled; what is published and stored
keeps them (`LABELS`), and `outcome_of` reads both.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final


class Outcome(StrEnum):
    """What the client got, or in observe mode would have got."""

    ACCEPTED = "accepted"
    GREYLISTED = "greylisted"
    REJECTED = "rejected"
    DEFERRED = "deferred"


LABELS: Final[Mapping[Outcome, str]] = MappingProxyType(
    {
        Outcome.ACCEPTED: "accept",
        Outcome.GREYLISTED: "delay",
        Outcome.REJECTED: "reject",
        Outcome.DEFERRED: "tempfail",
    }
)
"""The label of each outcome in metrics and in the names of the history."""

_REFUSED_STATES: Final = frozenset({"new", "early", "full"})
_WORDS: Final = {label: outcome for outcome, label in LABELS.items()} | {str(o): o for o in Outcome}


class Reason(StrEnum):
    """Why: of a rule what made it match, of the greylist what it found."""

    BY_HAND = "allowed by hand"
    BLOCKED = "blocked by hand"
    POOL = "pool"
    CORRESPONDENT = "correspondent"
    LOGGED_IN = "authenticated"
    LIST = "list"
    RULE = "rule"
    NO_RULE = "no rule"
    NO_ADDRESS = "no IP address"
    NEW = "new"
    EARLY = "early"
    FULL = "full"
    PASSED = "passed"
    KNOWN = "known"
    NETWORK = "network"
    DOMAIN = "domain"
    EXPECTED = "expected"
    STORE_DOWN = "store down"
    UNFINISHED = "unfinished"
    ALONE = "comes alone"
    TOGETHER = "one reply"


LET_IN_EARLY: Final = frozenset({Reason.POOL, Reason.CORRESPONDENT, Reason.DOMAIN, Reason.EXPECTED})
"""Why mail is let in that greylisting would have delayed: its client was not known by its own mail."""

_SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.POOL: "in the pool of a big sender",
    Reason.CORRESPONDENT: "we have written to the sender",
    Reason.LOGGED_IN: "logged in",
    Reason.LIST: "on a list",
    Reason.RULE: "the rule says so",
    Reason.NO_RULE: "no rule matched",
    Reason.NO_ADDRESS: "the client has no IP address",
    Reason.NEW: "first attempt",
    Reason.EARLY: "came back too early",
    Reason.FULL: "too many first attempts of this client wait",
    Reason.KNOWN: "has passed before",
    Reason.NETWORK: "its network passes as a whole",
    Reason.DOMAIN: "the sender's domain passes as a whole",
    Reason.UNFINISHED: "the message never came to its end",
    Reason.ALONE: "is to come alone, for the message of another recipient is scanned",
    Reason.TOGETHER: "the message of another recipient is delayed",
    Reason.EXPECTED: "mail for the recipient was expected",
}


def outcome_of(text: object) -> Outcome | None:
    """An outcome by its word or its label; None for anything else."""
    return _WORDS.get(text) if isinstance(text, str) else None


def outcome_of_event(event: Mapping[str, Any]) -> Outcome:
    """What the client got, or would have got; lines of version 0.1 do not say so themselves."""
    said = outcome_of(event.get("outcome"))
    if said is not None:
        return said
    match event.get("action"):
        case "reject":
            return Outcome.REJECTED
        case "tempfail":
            return Outcome.DEFERRED
        case "greylist" if event.get("state") in _REFUSED_STATES:
            return Outcome.GREYLISTED
        case "greylist" if event.get("state") is None and event.get("reply"):
            return Outcome.DEFERRED  # the store was down, and on_failure says so
        case _:
            return Outcome.ACCEPTED


def why(reason: str, age: float | None = None) -> str:
    """A reason in words, for people; `age`: seconds since the first attempt. An unknown one is left."""
    if reason == Reason.PASSED:
        return "passed" if age is None else f"passed after {age:g} s"
    return next((text for known, text in _SENTENCES.items() if known == reason), reason)
