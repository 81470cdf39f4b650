"""What the greylist's script does, as a function of what is stored and what happens: no server, no clock.

A test holds it against the real script, key by key, value by value and expiry by expiry. Times are whole
seconds; a key that was written at T to live for N seconds is there until T + N, exclusively.

A name is anything that tells keys apart: the script's own keys, or the parts that they are made of.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hybridgrey.greylist.terms import Terms
from hybridgrey.greylist.triplets import State, Touch

SLOTS: Final = 8
Slots = tuple[tuple[int, int], ...]


class Keys(NamedTuple):
    """The names of what one attempt is about."""

    triplet: Hashable
    network: Hashable
    credit: Hashable
    waiting: Hashable


class Stored(NamedTuple):
    """A value (of a waiting key: slots with their numbers, by time) and when it expires."""

    value: int | Slots
    until: int


@dataclass(slots=True)
class PureGreylist:
    """A store with nothing but the greylist in it."""

    terms: Terms
    stored: dict[Hashable, Stored] = field(default_factory=dict)
    # When each key is looked at next, which is never later than it expires; and the same as a heap. A renewed
    # key stays where it is until then: else each mail of a known sender would leave an entry.
    _looks: dict[Hashable, int] = field(default_factory=dict)
    _heap: list[tuple[int, int, Hashable]] = field(default_factory=list)
    _pushed: int = 0

    def touch(self, at: int, names: Sequence[Hashable], delay: int) -> Touch:
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

    def touch_both(
        self, at: int, network: Sequence[Hashable], domain: Sequence[Hashable], delay: int
    ) -> Touch:
        """One attempt of a client that SPF proves: by its network and, if delayed, by domain."""
        by_network = self.touch(at, network, delay)
        if by_network.accepted:
            return by_network
        mine, theirs = Keys(*network), Keys(*domain)
        first = self._number(mine.triplet) or at
        known = self._number(theirs.triplet)
        if known > first or known == 0:
            self._store(theirs.triplet, first, first + self.terms.retry_window)
        elif known > 0:
            self._store(mine.triplet, known, known + self.terms.retry_window)
        by_domain = self.touch(at, domain, delay)
        if by_domain.state in (State.PASSED, State.KNOWN):
            self._store(mine.triplet, self._number(theirs.triplet), at + self.terms.lifetime)
        return by_domain

    def expire(self, at: int) -> None:
        """Let go of what has expired."""
        while self._heap and self._heap[0][0] <= at:
            look, _, key = heapq.heappop(self._heap)
            if self._looks.get(key) != look:
                continue
            del self._looks[key]
            one = self.stored.get(key)
            if one is None or one.until <= at:
                self.stored.pop(key, None)
            else:
                self._look(key, one.until)

    def _store(self, key: Hashable, value: int | Slots, until: int) -> None:
        self.stored[key] = Stored(value, until)
        if until < self._looks.get(key, until + 1):
            self._look(key, until)

    def _look(self, key: Hashable, at: int) -> None:
        self._looks[key] = at
        self._pushed += 1  # two names need not have an order
        heapq.heappush(self._heap, (at, self._pushed, key))

    def _new(self, at: int, keys: Keys, delay: int) -> Touch:
        if self.terms.max_waiting:
            if sum(self._waiting(at, keys.waiting).values()) >= self.terms.max_waiting:
                return Touch(State.FULL, max(1, delay), 0)
            self._note(at, keys.waiting, at, 1)
        self._store(keys.triplet, at, at + self.terms.retry_window)
        return Touch(State.NEW, max(1, delay), 0)

    def _passed(self, at: int, keys: Keys, first: int, passes: int) -> Touch:
        terms = self.terms
        self._store(keys.triplet, -first, at + terms.lifetime)
        if terms.max_waiting:
            self._note(at, keys.waiting, first, -1)
        last = self._number(keys.credit)
        if last and at - last < terms.auto_allow_interval:
            self._renew(keys.network, at)
        else:
            if terms.auto_allow_interval:
                kept = max(terms.lifetime, terms.auto_allow_interval)
                self._store(keys.credit, at, at + kept)
            self._store(keys.network, passes + 1, at + terms.lifetime)
        return Touch(State.PASSED, 0, at - first)

    def _number(self, key: Hashable) -> int:
        value = self.stored[key].value if key in self.stored else 0
        assert isinstance(value, int)  # noqa: S101 (no other kind of key has slots)
        return value

    def _renew(self, key: Hashable, at: int) -> None:
        if key in self.stored:
            self._store(key, self.stored[key].value, at + self.terms.lifetime)

    @property
    def _width(self) -> int:
        return -(-self.terms.retry_window // SLOTS)

    def _waiting(self, at: int, key: Hashable) -> dict[int, int]:
        """The slots that can have a waiting triplet in them."""
        value = self.stored[key].value if key in self.stored else ()
        assert isinstance(value, tuple)  # noqa: S101 (the same the other way round)
        return {start: number for start, number in value if at < self._end(start)}

    def _end(self, start: int) -> int:
        return start + self._width + self.terms.retry_window

    def _note(self, at: int, key: Hashable, first: int, change: int) -> None:
        slots, start = self._waiting(at, key), first - first % self._width
        if change < 0 and start not in slots:
            return
        slots[start] = slots.get(start, 0) + change
        left = tuple(sorted((begin, number) for begin, number in slots.items() if number))
        if left:
            self._store(key, left, self._end(left[-1][0]))
        else:
            self.stored.pop(key, None)
