"""What the greylist's script does, as a function of what is stored and what happens: no server, no clock.

A test holds it against the real script, key by key, value by value and expiry by expiry. Times are whole
seconds; a key that was written at T to live for N seconds is there until T + N, exclusively.

A name is anything that tells keys apart: the script's own keys, or the parts that they are made of. A triplet
has a second key, by the sender's domain, where SPF proves the client; to each key the script is asked apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
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
    waiting: Hashable = ""


class Stored(NamedTuple):
    """A value (of a waiting key: slots with their numbers, by time) and when it expires."""

    value: int | Slots
    until: int


class What(Enum):
    """What is asked of the script."""

    ATTEMPT = 0
    KEEP_NOTHING = 2
    """An attempt, of which nothing is kept if it is the first."""
    TAKE_OVER = 3
    """No attempt: take over what the triplet's other key says."""


class Asked(NamedTuple):
    """What is asked; of the triplet's other key: `since`, seconds since its first attempt, and `passed`.

    `bounded`: whether what waits counts for the client's address.
    """

    what: What = What.ATTEMPT
    since: int = 0
    passed: bool = False
    bounded: bool = True


ATTEMPT: Final = Asked()


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

    def touch(self, at: int, names: Sequence[Hashable], delay: int, asked: Asked = ATTEMPT) -> Touch:
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
        before = first
        if 0 < asked.since <= terms.retry_window and (not first or asked.since > at - first):
            first = at - asked.since
        if asked.what is What.TAKE_OVER:
            return self._taken_over(at, keys, before, first, asked)
        if not first:
            return self._new(at, keys, delay, asked)
        if at - first < delay:
            if first != before:
                self._wait(keys.triplet, first, at)
            return Touch(State.EARLY, delay - (at - first), at - first)
        return self._passed(at, keys, first, passes, asked)

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

    def _new(self, at: int, keys: Keys, delay: int, asked: Asked) -> Touch:
        if asked.what is What.KEEP_NOTHING:
            return Touch(State.NEW, max(1, delay), 0)
        if self.terms.max_waiting and asked.bounded:
            if sum(self._waiting(at, keys.waiting).values()) >= self.terms.max_waiting:
                return Touch(State.FULL, max(1, delay), 0)
            self._note(at, keys.waiting, at, 1)
        self._store(keys.triplet, at, at + self.terms.retry_window)
        return Touch(State.NEW, max(1, delay), 0)

    def _wait(self, triplet: Hashable, first: int, at: int) -> None:
        """Keep a triplet as waiting since an earlier time."""
        self._store(triplet, first, at + max(1, self.terms.retry_window - (at - first)))

    def _taken_over(self, at: int, keys: Keys, before: int, first: int, asked: Asked) -> Touch:
        """The triplet's other key knows of an earlier attempt, or has passed."""
        if asked.passed:
            first = at - asked.since
        if self.terms.max_waiting and first != before and (before or not asked.passed):
            self._move(at, keys.waiting, before, 0 if asked.passed else first)
        if asked.passed:
            self._store(keys.triplet, -first, at + self.terms.lifetime)
        elif first != before:
            self._wait(keys.triplet, first, at)
        return Touch(State.KNOWN if asked.passed else State.EARLY, 0, at - first)

    def _move(self, at: int, key: Hashable, before: int, first: int) -> None:
        """A waiting triplet counts for another time, 0 for none."""
        if before:
            self._note(at, key, before, -1)
        if first:
            self._note(at, key, first, 1)

    def _passed(self, at: int, keys: Keys, first: int, passes: int, asked: Asked) -> Touch:
        terms = self.terms
        self._store(keys.triplet, -first, at + terms.lifetime)
        if terms.max_waiting and asked.bounded:
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
