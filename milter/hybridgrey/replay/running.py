"""All attempts through all trials, in order of time, and the result of each message.

The order of the lines is no matter: attempts of the same moment run in the order of what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from hybridgrey.outcome import Outcome
from hybridgrey.replay.messages import Message
from hybridgrey.replay.trial import Trial, mailbox


class End(StrEnum):
    """What became of a message in the end."""

    AT_ONCE = "accepted at once"
    DELAYED = "accepted after a delay"
    UNTIL_UNKNOWN = "delayed, until unknown"
    GIVEN_UP = "delayed, never accepted"
    REJECTED = "rejected"


ACCEPTED = frozenset({End.AT_ONCE, End.DELAYED})


class Result(NamedTuple):
    """How a message ended.

    `rule` is the one that accepted or rejected it, or that put it off first; `put_off` says whether any did.
    `delay` is in seconds from the first attempt to the accepted one, None if none was.
    """

    end: End
    rule: str
    put_off: bool
    delay: float | None = None


def run(messages: Sequence[Message], trials: Sequence[Trial]) -> list[list[Result]]:
    """For each trial the results of the messages, in their order."""
    results: list[list[Result | None]] = [[None] * len(messages) for _ in trials]
    waiting: list[dict[int, str]] = [{} for _ in trials]  # messages that were put off, and by which rule
    for number, turn in _in_time(messages):
        message = messages[number]
        attempt = message.attempts[turn]
        sender, recipient = mailbox(message.sender), mailbox(message.recipient)
        last = turn == len(message.attempts) - 1
        for trial, ends, put_off in zip(trials, results, waiting, strict=True):
            if ends[number] is not None:
                continue
            outcome, rule = trial.attempt(attempt, sender, recipient)
            if outcome in (Outcome.ACCEPTED, Outcome.REJECTED):
                delay = attempt.at - message.attempts[0].at
                ends[number] = _ended(outcome, rule, put_off.pop(number, None), delay)
                continue
            first = put_off.setdefault(number, rule)
            if last:
                end = End.UNTIL_UNKNOWN if message.ended else End.GIVEN_UP
                ends[number] = Result(end, put_off.pop(number, first), True)
    return [[one for one in ends if one is not None] for ends in results]


def _ended(outcome: Outcome, rule: str, put_off_by: str | None, delay: float) -> Result:
    put_off = put_off_by is not None
    if outcome is Outcome.REJECTED:
        return Result(End.REJECTED, rule, put_off)
    if put_off_by is None:
        return Result(End.AT_ONCE, rule, False, 0.0)
    return Result(End.DELAYED, put_off_by, True, delay)


def _in_time(messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
    """Which message's attempt is next: their numbers."""
    moments = [
        (attempt.at, number, turn)
        for number, message in enumerate(messages)
        for turn, attempt in enumerate(message.attempts)
    ]
    moments.sort()
    for _, same in groupby(moments, key=itemgetter(0)):
        together = list(same)
        if len(together) > 1:
            together.sort(key=lambda one: (one[2], repr(messages[one[1]])))
        yield from ((number, turn) for _, number, turn in together)
