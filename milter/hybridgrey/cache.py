"""Answers of lists by client, kept for their TTL in one process.

Two generations of dicts: when the young one is full it becomes the old one, and the old one is dropped.  So
nothing is ever searched for a victim, and each step is one dict operation that threads cannot see half done.

Used by `lookup`.
"""

from __future__ import annotations

from hybridgrey.policy import Answer

# Expiry in monotonic seconds, the answer, and the TXT record (None: not known) of a client in a list.
Known = tuple[float, Answer, str | None]


class Cache:
    """Answers by client and zone; at most about twice `answers` of them, some 300 bytes each."""

    def __init__(self, answers: int = 32768) -> None:
        self._limit = answers
        # Counted without a lock: a count lost between threads only lets a generation grow by one.
        self._count = 0
        self._young: dict[bytes, dict[str, Known]] = {}
        self._old: dict[bytes, dict[str, Known]] = {}

    def __len__(self) -> int:
        return sum(map(len, list(self._young.values()))) + sum(map(len, list(self._old.values())))

    def get(self, client: bytes) -> dict[str, Known]:
        """What is known of a client, by zone; expired answers may be among it."""
        return self._young.get(client) or self._old.get(client) or {}

    def put(self, client: bytes, zone: str, expires: float, answer: Answer, text: str | None = None) -> None:
        """Keep an answer."""
        known = self._young.get(client)
        if known is None:
            if self._count >= self._limit:
                self._old, self._young, self._count = self._young, {}, 0
            known = self._young.setdefault(client, dict(self._old.get(client, {})))
            self._count += len(known)
        if zone not in known:
            self._count += 1
        known[zone] = (expires, answer, text)
