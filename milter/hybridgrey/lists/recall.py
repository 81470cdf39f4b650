"""A look-up that the cache answers in full, as a repeated client's mostly is: without sockets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from hybridgrey.lists.awaited import Steps
from hybridgrey.lists.cache import Record
from hybridgrey.lists.zones import Zone
from hybridgrey.policy.judge import Answer

UNASKED: Final = Answer(error="not asked")


class Recalled:
    """What the cache knows of a client, all of it: nothing to wait for."""

    __slots__ = ("_expiry", "answers", "started", "suspended", "texts")

    heard: Final = ()

    def __init__(
        self,
        answers: dict[str, Answer],
        texts: dict[str, str],
        started: float = 0.0,
        expiry: float = 0.0,
        suspended: bytes = b"",
    ) -> None:
        """`started` and `expiry`: of its making and of its first answer to expire, in monotonic seconds."""
        self.answers = answers
        self.texts = texts
        self.started = started
        self.suspended = suspended
        self._expiry = expiry

    def is_fresh(self, now: float) -> bool:
        """As in Lookup."""
        return now < self._expiry

    def peek(self) -> None:
        """As in Lookup."""

    def collect(self, zones: frozenset[str]) -> Steps[None]:
        """As in Lookup; for lists that the client's first rules did not ask."""
        for name in zones:
            self.answers[name] = UNASKED
        yield from ()

    def await_text(self, zones: Sequence[str]) -> Steps[tuple[str, str]]:
        """As in Lookup."""
        yield from ()
        return first_text(zones, self.texts)

    def tell(self, zone: str, text: str) -> None:
        """As in Lookup."""
        self.texts[zone] = text

    def close(self) -> None:
        """As in Lookup."""


def recall(record: Record, zones: Iterable[Zone], now: float, suspended: bytes) -> Recalled | None:
    """What a client's record has of these lists, if that is all there is to know; `now` as its expiries.

    `suspended`: as in Lookup.
    """
    answers: dict[str, Answer] = {}
    expiry = float("inf")
    texts: dict[str, str] = {}
    for zone in zones:
        known = record.get(zone.name)
        if known is None or known[0] <= now:
            return None
        answers[zone.name] = answer = known[1]
        expiry = min(expiry, known[0])
        if answer.codes and zone.wants_text:
            if known[2] is None:
                return None
            texts[zone.name] = known[2]
    return Recalled(answers, texts, now, expiry, suspended)


def first_text(zones: Sequence[str], texts: Mapping[str, str]) -> tuple[str, str]:
    """The first of the lists that has a text, with it; the first of all without one if none has."""
    return next(((z, texts[z]) for z in zones if texts.get(z)), (zones[0], ""))
