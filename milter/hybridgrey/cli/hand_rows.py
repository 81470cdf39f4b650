"""Entries by hand on the screen: as words, as rows of a table."""

from __future__ import annotations

import time

from hybridgrey.cleaning import clean
from hybridgrey.hand.entries import Entry
from hybridgrey.policy.conditions import Hand

_DONE = {Hand.ALLOW: "allowed", Hand.BLOCK: "blocked"}

HEAD = ("kind", "of", "subject", "since", "until", "who", "host", "why")


def moment_text(at: int) -> str:
    """A moment in local time: ``2026-01-31 10:00``."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
    except (OverflowError, ValueError, OSError):  # from a store that says nonsense
        return "?"


def until_text(entry: Entry) -> str:
    """When an entry ends."""
    return moment_text(entry.until) if entry.until else "unlisted"


def summary(entry: Entry) -> str:
    """What an entry says, in words."""
    subject = entry.subject
    return f"{_DONE[entry.kind]}: {subject.about} {clean(subject.text)}, until {until_text(entry)}"


def row(entry: Entry) -> tuple[str, ...]:
    """An entry as a row under `HEAD`."""
    subject = entry.subject
    times = moment_text(entry.at), until_text(entry)
    return (entry.kind, subject.about, subject.text, *times, entry.who, entry.host, entry.comment)
