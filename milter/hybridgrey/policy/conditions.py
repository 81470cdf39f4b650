"""Conditions on facts that cost something to learn: SPF, entries by hand, correspondents, the score.

Three values, Kleene's, and a fourth that says "not yet".  A condition's *state* is an int, so that the state
of all conditions of a rule is their bitwise or: 0, it holds; `FALSE` beats all else; `NEVER`, it is unknown
for good; the other bits say which facts could still tell.

A fact is None while nobody has asked, and `UNKNOWN` when it cannot be learnt: a time-out, or a failure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from hybridgrey.policy.rdns import Name

SPF: Final = 1
BY_HAND: Final = 2
CORRESPONDENT: Final = 4
SCORE: Final = 8
WANTED: Final = SPF | BY_HAND | CORRESPONDENT | SCORE
NEVER: Final = 16
FALSE: Final = 32
HOLDS: Final = 0

TEMPERROR: Final = "temperror"
PASS: Final = "pass"  # noqa: S105 (no password)
SPF_RESULTS: Final = (PASS, "fail", "softfail", "neutral", "none", TEMPERROR, "permerror")
"""RFC 7208 section 2.6."""
RDNS_KINDS: Final = tuple(kind.value for kind in Name)


class Unknown(Enum):
    """What stands for a fact that cannot be learnt."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


class Spf(NamedTuple):
    """The result of SPF, one of `SPF_RESULTS`; `proved` is the domain that a pass proves, "" for none."""

    result: str
    proved: str = ""


class ByHand(NamedTuple):
    """Which entries by hand name the client, the sender or the recipient.

    `allowed_by_spf`: the sender is allowed, and that holds for whom SPF lets pass only.
    """

    allowed: bool = False
    blocked: bool = False
    allowed_by_spf: bool = False


NO_ENTRY: Final = ByHand()


class Hand(StrEnum):
    """The two kinds of entries by hand."""

    ALLOW = "allow"
    BLOCK = "block"


class Results(NamedTuple):
    """A condition on SPF: the results for which it holds.

    `judges_failure`: it names temperror, which is else no result but a failure, and so unknown.
    """

    among: frozenset[str]
    judges_failure: bool = False

    @classmethod
    def of(cls, words: Iterable[str]) -> Results:
        """Read the words of the file, ``!`` before what is excluded; raises ValueError."""
        said = tuple(words)
        return cls(frozenset(_among(said, SPF_RESULTS)), any(w.lstrip("! ") == TEMPERROR for w in said))


class Score(NamedTuple):
    """A condition on the content scanner's score."""

    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Score:
        """Read ``">=4"``; raises ValueError."""
        match = re.fullmatch(r"\s*(<=|>=|<|>)\s*([-+]?[0-9]{1,6}(?:\.[0-9]{1,6})?)\s*", text)
        if match is None:
            raise ValueError('must be <, <=, > or >= and a number, such as ">=4"')
        return cls(match[1], float(match[2]))

    def holds(self, score: float) -> bool:
        """Whether a score is as this wants it."""
        match self.operator:
            case "<":
                return score < self.limit
            case "<=":
                return score <= self.limit
            case ">":
                return score > self.limit
            case _:
                return score >= self.limit

    @property
    def example(self) -> float:
        """A score for which it holds."""
        return self.limit + (1 if self.operator.startswith(">") else -1)

    def __str__(self) -> str:
        return f"{self.operator}{self.limit:g}"


def kinds(words: Iterable[str]) -> frozenset[Name]:
    """A condition on the client's name, from the words of the file; raises ValueError."""
    return frozenset(Name(word) for word in _among(tuple(words), RDNS_KINDS))


def _among(words: Iterable[str], known: Iterable[str]) -> set[str]:
    """The words that are meant: those included, or all others, without those excluded."""
    included: set[str] = set()
    excluded: set[str] = set()
    for word in words:
        (excluded if word.startswith("!") else included).add(word.lstrip("! "))
    return (included or set(known)) - excluded


def of_spf(wanted: Results, spf: Spf | Unknown | None) -> int:
    """The state of a condition on SPF."""
    if spf is None:
        return SPF
    if isinstance(spf, Unknown) or (spf.result == TEMPERROR and not wanted.judges_failure):
        return NEVER
    return HOLDS if spf.result in wanted.among else FALSE


_PASSES: Final = Results(frozenset({PASS}))


def of_hand(kind: Hand, found: ByHand | Unknown | None, spf: Spf | Unknown | None) -> int:
    """The state of a condition on entries by hand."""
    if found is None:
        return BY_HAND
    if isinstance(found, Unknown):
        return NEVER
    if kind is Hand.BLOCK:
        return HOLDS if found.blocked else FALSE
    if found.allowed:
        return HOLDS
    return of_spf(_PASSES, spf) if found.allowed_by_spf else FALSE


def of_correspondent(
    wanted: bool,
    known: bool | Unknown | None,
    spf: Spf | Unknown | None,
) -> int:
    """The state of the condition that we have written to the sender, and that SPF proves the client."""
    state = _proved(spf)
    if known is None:
        state |= CORRESPONDENT
    elif isinstance(known, Unknown):
        state |= NEVER
    elif not known:
        state |= FALSE
    if wanted:
        return state
    if state & FALSE:
        return HOLDS
    # What is open can still make it hold, whatever is unknown for good.
    return state & WANTED or state or FALSE


def _proved(spf: Spf | Unknown | None) -> int:
    if spf is None:
        return SPF
    if isinstance(spf, Unknown) or spf.result == TEMPERROR:
        return NEVER
    return HOLDS if spf.proved else FALSE


def of_score(wanted: Score, score: float | Unknown | None) -> int:
    """The state of a condition on the score."""
    if score is None:
        return SCORE
    if isinstance(score, Unknown) or math.isnan(score):
        return NEVER
    return HOLDS if wanted.holds(score) else FALSE
