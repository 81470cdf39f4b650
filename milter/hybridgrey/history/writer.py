"""Adds to the history in the store what one host has counted since the last time.

One script call (history.lua) that has no effect when it is repeated: a batch has a number, and the store
remembers the last one of each writer.  Names and places are those of `layout`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from hybridgrey.history import layout
from hybridgrey.history.layout import LAYOUTS, Step
from hybridgrey.history.records import (
    DAY_MAX,
    HOSTS_MAX,
    MARKS_MAX,
    TODAY_MAX,
    TOPS,
    TOPS_KEPT,
    Batch,
    packed,
)
from hybridgrey.store.connection import Script, Store

_SCRIPT: Final = Script.installed("hybridgrey.history", "history.lua")
_LONG: Final = LAYOUTS[Step.DAY].kept
_NUMBER_KEPT: Final = 30 * 86400


class Writer:
    """Adds to the history of one host; `name` tells this writer from all others there ever were."""

    def __init__(self, store: Store, host: str, name: str) -> None:
        self._store = store
        self._host = host
        self._number = layout.key("writer", name)

    def write(self, number: int, batch: Batch, now: float) -> None:
        """Add a batch; without effect when one of this or a higher number has been added."""
        changes = list(self._changes(batch, now))
        keys = [self._number, *(key for key, _ in changes)]
        arguments = [word for _, words in changes for word in words]
        self._store.run(_SCRIPT, keys, (number, _NUMBER_KEPT, int(now), *arguments))

    def _changes(self, batch: Batch, now: float) -> Iterator[tuple[bytes, Sequence[bytes | int]]]:
        host = self._host
        # Of one chapter all steps at once: a key, once.
        hashes: dict[bytes, list[bytes | int]] = {}
        kept: dict[bytes, int] = {}
        for (step, at), counts in batch.counts.items():
            key = layout.chapter(step, at).key(host)
            kept[key] = LAYOUTS[step].kept
            row = hashes.setdefault(key, [])
            for series, count in counts.items():
                row += layout.field(step, at, series), count
        for key, row in hashes.items():
            yield key, _change(b"hash", kept[key], 0, row)
        for (day, kind), heaviest in batch.tops.items():
            row = [word for name, count in heaviest.items() for word in (count, _bytes(name))]
            yield layout.key("top", kind, host, day), _change(b"top", TOPS_KEPT, TODAY_MAX, row)
        for day in batch.over:
            for kind in TOPS:
                yield layout.key("top", kind, host, day), _change(b"top", TOPS_KEPT, DAY_MAX, ())
        if batch.marks:
            row = [word for mark in batch.marks for word in (int(mark.time), packed(mark))]
            yield layout.key("marks"), _change(b"recent", _LONG, MARKS_MAX, row)
        yield layout.key("hosts"), _change(b"recent", _LONG, HOSTS_MAX, (int(now), _bytes(host)))


def _change(kind: bytes, kept: int, cap: int, row: Sequence[bytes | int]) -> Sequence[bytes | int]:
    return (kind, kept, cap, len(row) // 2, *row)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
