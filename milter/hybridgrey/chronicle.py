"""The host's chronicler: from the workers' counters and records to the history, and back for the page.

A task of the keeper.  This is its face to the page; the same questions as `history.Reader` answers, with what
has not reached the store yet added.
"""

from __future__ import annotations

from collections.abc import Sequence

from hybridgrey.history import Mark, Reader
from hybridgrey.timeline import Step


class Chronicle:
    """The history of all hosts as this one knows it; thread safe.  All questions raise StoreError."""

    def __init__(self, reader: Reader, host: str) -> None:
        self._reader = reader
        self.host = host

    def hosts(self) -> list[str]:
        """The hosts that have a history, this one among them."""
        return sorted({self.host, *self._reader.hosts()})

    def counts(
        self, start: float, end: float, step: Step, hosts: Sequence[str] | None = None
    ) -> dict[str, dict[int, int]]:
        """As `Reader.counts`, with what this host has not written yet."""
        return self._reader.counts(start, end, step, hosts)

    def marks(self, start: float, end: float) -> list[Mark]:
        """As `Reader.marks`, with what this host has not written yet."""
        return self._reader.marks(start, end)

    def tops(
        self, start: float, end: float, hosts: Sequence[str] | None = None, limit: int = 20
    ) -> dict[str, list[tuple[str, int]]]:
        """As `Reader.tops`; of this host's alone, since it started, where the store has none (key_secret)."""
        return self._reader.tops(start, end, hosts, limit)

    def latest(self, hosts: Sequence[str] | None = None, limit: int = 500) -> list[dict[str, object]]:
        """As `Reader.latest`, with this host's last 1,000; with a key_secret only those."""
        return self._reader.latest(hosts, limit)
