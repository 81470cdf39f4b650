"""The entries by hand as the page shows them; to change them is the command line's part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hybridgrey.cleaning import clean
from hybridgrey.hand.entries import Entry

MOST_SHOWN: Final = 200
"""Entries, the newest first; more are looked at on the command line, where they can be searched."""


def shown(entries: Sequence[Entry]) -> dict[str, object]:
    """What JSON is made of: the newest entries, and how many there are."""
    newest = sorted(entries, key=lambda entry: (-entry.at, entry.subject.field))[:MOST_SHOWN]
    return {"count": len(entries), "entries": [_fields(entry) for entry in newest]}


def _fields(entry: Entry) -> dict[str, object]:
    return {name: clean(said) if isinstance(said, str) else said for name, said in entry.fields().items()}
