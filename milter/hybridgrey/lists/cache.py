"""Answers of lists by client, kept for their TTL in one process.

Two generations of dicts: when the young one is full it becomes the old one, and the old one is dropped.  So
nothing is ever searched for a victim, and each step is one dict operation that threads cannot see half done.
"""

from __future__ import annotations

from hybridgrey.policy.judge import Answer

# Expiry in monotonic seconds, the answer, and the TXT record (None: not known) of a client in a list.
Known = tuple[float, Answer, str | None]
# By zone. A look-up fills its client's record answer by answer, so a record may grow after it was kept.
Record = dict[str, Known]


class Cache:
    """Answers by client and zone; at most about twice `answers` of them, some 200 bytes each."""

    def __init__(self, answers: int = 16384) -> None:
        self._limit = answers
        # Counted without a lock: a count lost between threads only lets a generation grow by one.
        self._count = 0
        self._young: dict[bytes, Record] = {}
        self._old: dict[bytes, Record] = {}

    def __len__(self) -> int:
        return sum(map(len, list(self._young.values()))) + sum(map(len, list(self._old.values())))

    def get(self, client: bytes) -> Record | None:
        """What is known of a client, by zone; expired answers may be among it."""
        return self._young.get(client) or self._old.get(client)

    def keep(self, client: bytes, record: Record, answers: int) -> None:
        """Keep what is known of a client; its look-up goes on adding to the record, `answers` at most."""
        if client in self._young:
            self._young[client] = record
            return
        if self._count >= self._limit:
            self._old, self._young, self._count = self._young, {}, 0
        self._young[client] = record
        self._count += answers

    def forget(self, zone: str) -> None:
        """Drop all answers of a list: it has turned out to be no list any more.  Slow, and rare."""
        for record in [*list(self._young.values()), *list(self._old.values())]:
            record.pop(zone, None)
