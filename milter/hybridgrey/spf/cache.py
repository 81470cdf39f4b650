"""Answers to SPF's questions, kept for their TTL in one process, and failures for a short time.

Two generations of dicts, as in `lists.cache`: when the young one is full it becomes the old one, and the old
one is dropped.  Full is also said of octets: records are as long as strangers like.
"""

from __future__ import annotations

from hybridgrey.spf.question import Answer, Question

# What an answer costs besides its data, about.
_OVERHEAD = 300


class Cache:
    """At most about twice `answers` answers, and about twice `octets`."""

    def __init__(self, answers: int = 8192, octets: int = 4 << 20) -> None:
        self._answers = answers
        self._octets = octets
        # Counted without a lock: what is lost between threads lets a generation grow a little.
        self._size = 0
        # Expiry in monotonic seconds, and the answer.
        self._young: dict[Question, tuple[float, Answer]] = {}
        self._old: dict[Question, tuple[float, Answer]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, question: Question, now: float) -> Answer | None:
        """An answer that holds, with the seconds for which it does; `now` in monotonic seconds."""
        known = self._young.get(question) or self._old.get(question)
        if known is None:
            return None
        left = int(known[0] - now)
        if left <= 0:
            return None
        status, _, data, names = known[1]
        return Answer(status, left, data, names)

    def keep(self, question: Question, answer: Answer, expiry: float) -> None:
        """Keep an answer until then."""
        if len(self._young) >= self._answers or self._size >= self._octets:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[question] = expiry, answer
        self._size += (
            _OVERHEAD + len(question.name) + sum(map(len, answer.data)) + sum(map(len, answer.names))
        )
