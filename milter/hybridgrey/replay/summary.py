"""What became of messages, in numbers, and where two configurations differ.

A *group* is all messages, those of a label, or those of a label and kind. Percentiles are by nearest rank
over all accepted messages, those that were not put off as 0.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hybridgrey.replay.messages import Message
from hybridgrey.replay.running import ACCEPTED, End, Result

LONG: Final = 600
"""Seconds; a login code is of no use after so long."""
MOST_EXAMPLES: Final = 3
MOST_DIFFERENCES: Final = 200


class Group(NamedTuple):
    """Messages that are counted together; None: of any."""

    label: str | None = None
    kind: str | None = None


ALL: Final = Group()


@dataclass(slots=True)
class Counts:
    """What became of a group; `put_off` counts messages put off at least once, whatever came of it."""

    messages: int = 0
    put_off: int = 0
    ends: Counter[End] = field(default_factory=Counter)
    delays: array[float] = field(default_factory=lambda: array("d"))

    def add(self, result: Result) -> None:
        """Count a message."""
        self.messages += 1
        self.put_off += result.put_off
        self.ends[result.end] += 1
        if result.delay is not None:
            self.delays.append(result.delay)

    def include(self, other: Counts) -> None:
        """Count what `other` has counted, too."""
        self.messages += other.messages
        self.put_off += other.put_off
        self.ends.update(other.ends)
        self.delays.extend(other.delays)

    @property
    def accepted(self) -> int:
        """Messages that got in, at once or later."""
        return sum(self.ends[end] for end in ACCEPTED)

    def percentiles(self, *ranks: float) -> list[float | None]:
        """Delays in seconds by nearest rank; None where nothing was accepted."""
        ordered = sorted(self.delays)
        if not ordered:
            return [None for _ in ranks]
        return [ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)] for rank in ranks]

    @property
    def long(self) -> float | None:
        """The share of accepted messages that took longer than `LONG`."""
        return sum(delay > LONG for delay in self.delays) / len(self.delays) if self.delays else None


def counted(messages: Sequence[Message], results: Sequence[Result]) -> dict[Group, Counts]:
    """The counts of each group, all of them first, then by label and kind."""
    groups: dict[Group, Counts] = {ALL: Counts()}
    for message, result in zip(messages, results, strict=True):
        groups[ALL].add(result)
        if message.label or message.kind:
            groups.setdefault(Group(message.label), Counts()).add(result)
            groups.setdefault(Group(message.label, message.kind), Counts()).add(result)
    return dict(
        sorted(groups.items(), key=lambda item: tuple((name is not None, name or "") for name in item[0]))
    )


class Change(NamedTuple):
    """How a message ended under one configuration and under the other, and by which rules."""

    end: End
    rule: str
    other_end: End
    other_rule: str


class Example(NamedTuple):
    """A message that ends differently; delays in seconds."""

    message: Message
    delay: float | None
    other_delay: float | None


@dataclass(slots=True)
class Differences:
    """The messages that two configurations end differently or after another delay."""

    messages: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    examples: dict[Change, list[Example]] = field(default_factory=dict)

    def heaviest(self) -> list[tuple[Change, int]]:
        """The changes, those of most messages first."""
        return sorted(self.changes.items(), key=lambda item: (-item[1], item[0]))[:MOST_DIFFERENCES]


def compared(messages: Sequence[Message], one: Sequence[Result], other: Sequence[Result]) -> Differences:
    """Where the results of two configurations differ."""
    found = Differences()
    for message, mine, theirs in zip(messages, one, other, strict=True):
        if mine.end is theirs.end and mine.delay == theirs.delay:
            continue
        change = Change(mine.end, mine.rule, theirs.end, theirs.rule)
        found.messages += 1
        found.changes[change] += 1
        _keep(found.examples.setdefault(change, []), Example(message, mine.delay, theirs.delay))
    return found


def _keep(examples: list[Example], new: Example) -> None:
    """Keep the first few by time."""
    examples.append(new)
    if len(examples) > MOST_EXAMPLES:
        examples.remove(max(examples, key=_order))
    examples.sort(key=_order)


def _order(example: Example) -> tuple[float, str]:
    return example.message.attempts[0].at, repr(example.message)
