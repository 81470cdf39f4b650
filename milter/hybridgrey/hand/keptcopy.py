"""The copy of the entries by hand that a host keeps on disk: its bytes, written and read with suspicion.

It holds while the store is down, over restarts too.  A JSON object: which store it is of, the version there,
and the entries as they are stored.  Whatever is found in a file, reading it gives a copy or ValueError.

Pure.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from hybridgrey.hand.entries import json_object
from hybridgrey.hand.register import MOST, Copy

MAX_BYTES: Final = 8 << 20
"""Larger ones are neither written nor read; 5,000 entries with the longest of comments have less."""


def mark(url: str) -> str:
    """What tells one store from another in a copy, without its password or its name."""
    _, at, place = url.partition("://")
    return hashlib.sha256((place if at else url).rpartition("@")[2].encode()).hexdigest()[:16]


def dump(copy: Copy, store: str) -> bytes:
    """The bytes of a copy; `store` is the mark of the one it is of."""
    # Latin-1: any byte is a character of it, so nothing that a store may hold is lost or refused.
    pairs = [[field.decode("latin-1"), value.decode("latin-1")] for field, value in copy.pairs]
    return json.dumps({"store": store, "version": copy.version, "entries": pairs}).encode()


def parse(data: bytes) -> tuple[Copy, str]:
    """A copy and the mark of its store; the copy's clock is 0, for it has none.  Raises ValueError."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    found = json_object(data) or {}
    store, version, rows = map(found.get, ("store", "version", "entries"))
    if not isinstance(store, str) or type(version) is not int or not isinstance(rows, list):
        raise ValueError("is no copy of entries by hand")
    pairs = (_pair(row) for row in rows[:MOST])
    return Copy(version, 0, tuple(pair for pair in pairs if pair is not None)), store


def _pair(row: Any) -> tuple[bytes, bytes] | None:  # noqa: ANN401 (as JSON has it)
    if not isinstance(row, list) or len(row) != 2 or not all(isinstance(item, str) for item in row):
        return None
    try:
        return row[0].encode("latin-1"), row[1].encode("latin-1")
    except UnicodeEncodeError:
        return None
