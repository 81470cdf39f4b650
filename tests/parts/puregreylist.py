"""What the greylist's script does, as a function of what is stored and what happens: no server, no clock.

A test holds it against the real script, key by key, value by value and expiry by expiry. Times are whole
seconds; a key that was written at T to live for N seconds is there until T + N, exclusively.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hybridgrey.greylist.triplets import State, Touch

SLOTS = 8
Slots = tuple[tuple[int, int], ...]


class Keys(NamedTuple):
    """The names of what one attempt is about."""

    triplet: bytes
    network: bytes
    credit: bytes
    waiting: bytes


class Stored(NamedTuple):
    """A value (of a waiting key: slots with their numbers, by time) and when it expires."""

    value: int | Slots
    until: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Of `Greylist`; seconds and triplets, 0: never, each pass counts, no bound."""

    retry_window: int
    lifetime: int
    auto_allow_after: int
    auto_allow_interval: int
    max_waiting: int


@dataclass(slots=True)
class PureGreylist:
    """A store with nothing but the greylist in it."""

    terms: Terms
    stored: dict[bytes, Stored] = field(default_factory=dict)

    def touch(self, at: int, names: Sequence[bytes], delay: int) -> Touch:
        """One attempt at a time; times never go back."""
        keys, terms = Keys(*names), self.terms
        self.expire(at)
        first, passes = self._number(keys.triplet), self._number(keys.network)
        if first < 0:
            self._renew(keys.triplet, at)
            self._renew(keys.network, at)
            return Touch(State.KNOWN, 0, at + first)
        if 0 < terms.auto_allow_after <= passes:
            self._renew(keys.network, at)
            return Touch(State.NETWORK, 0, at - first if first else 0)
        if not first:
            return self._new(at, keys, delay)
        if at - first < delay:
            return Touch(State.EARLY, delay - (at - first), at - first)
        return self._passed(at, keys, first, passes)

    def expire(self, at: int) -> None:
        """Let go of what has expired."""
        self.stored = {key: one for key, one in self.stored.items() if at < one.until}

    def _new(self, at: int, keys: Keys, delay: int) -> Touch:
        if self.terms.max_waiting:
            if sum(self._waiting(at, keys.waiting).values()) >= self.terms.max_waiting:
                return Touch(State.FULL, max(1, delay), 0)
            self._note(at, keys.waiting, at, 1)
        self.stored[keys.triplet] = Stored(at, at + self.terms.retry_window)
        return Touch(State.NEW, max(1, delay), 0)

    def _passed(self, at: int, keys: Keys, first: int, passes: int) -> Touch:
        terms = self.terms
        self.stored[keys.triplet] = Stored(-first, at + terms.lifetime)
        if terms.max_waiting:
            self._note(at, keys.waiting, first, -1)
        last = self._number(keys.credit)
        if last and at - last < terms.auto_allow_interval:
            self._renew(keys.network, at)
        else:
            if terms.auto_allow_interval:
                kept = max(terms.lifetime, terms.auto_allow_interval)
                self.stored[keys.credit] = Stored(at, at + kept)
            self.stored[keys.network] = Stored(passes + 1, at + terms.lifetime)
        return Touch(State.PASSED, 0, at - first)

    def _number(self, key: bytes) -> int:
        value = self.stored[key].value if key in self.stored else 0
        assert isinstance(value, int)
        return value

    def _renew(self, key: bytes, at: int) -> None:
        if key in self.stored:
            self.stored[key] = self.stored[key]._replace(until=at + self.terms.lifetime)

    @property
    def _width(self) -> int:
        return -(-self.terms.retry_window // SLOTS)

    def _waiting(self, at: int, key: bytes) -> dict[int, int]:
        """The slots that can have a waiting triplet in them."""
        value = self.stored[key].value if key in self.stored else ()
        assert isinstance(value, tuple)
        return {start: number for start, number in value if at < self._end(start)}

    def _end(self, start: int) -> int:
        return start + self._width + self.terms.retry_window

    def _note(self, at: int, key: bytes, first: int, change: int) -> None:
        slots, start = self._waiting(at, key), first - first % self._width
        if change < 0 and start not in slots:
            return
        slots[start] = slots.get(start, 0) + change
        left = tuple(sorted((begin, number) for begin, number in slots.items() if number))
        if left:
            self.stored[key] = Stored(left, self._end(left[-1][0]))
        else:
            self.stored.pop(key, None)
