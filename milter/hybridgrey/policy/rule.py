"""What is judged: a rule with its conditions, and the facts of one recipient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from hybridgrey.envelope import Mailbox
from hybridgrey.policy import conditions
from hybridgrey.policy.conditions import ByHand, Hand, Results, Score, Spf, Unknown
from hybridgrey.policy.match import Entry
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.policy.rdns import Name


class Action(StrEnum):
    """What a rule does with a recipient."""

    ACCEPT = "accept"
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    GREYLIST = "greylist"
    NONE = "none"  # log and count, then go on: to try a new list


REFUSING: Final = frozenset({Action.REJECT, Action.TEMPFAIL})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; a condition that is None always holds. `delay` is in seconds, None for the common one.

    `learn`: whom the mail that it accepts goes to is a correspondent from then on.
    """

    name: str
    action: Action
    clients: tuple[Entry, ...] | None = None
    helo: tuple[Entry, ...] | None = None
    senders: tuple[Entry, ...] | None = None
    recipients: tuple[Entry, ...] | None = None
    authenticated: bool | None = None
    lists: tuple[ListEntry, ...] = ()
    threshold: int = 1
    text: str | None = None
    delay: int | None = None
    rdns: frozenset[Name] | None = None
    pools: tuple[Entry, ...] | None = None
    spf: Results | None = None
    by_hand: Hand | None = None
    correspondent: bool | None = None
    score: Score | None = None
    learn: bool = False

    @property
    def asks(self) -> bool:
        """Whether a condition of it is on a fact that has to be asked for; see `conditions`."""
        wanted = (self.spf, self.by_hand, self.correspondent, self.score)
        return any(condition is not None for condition in wanted)

    def state(self, facts: Facts) -> int:
        """The state of these conditions; see `conditions`."""
        state = conditions.HOLDS
        if self.spf is not None:
            state |= conditions.of_spf(self.spf, facts.spf)
        if self.by_hand is not None:
            state |= conditions.of_hand(self.by_hand, facts.by_hand, facts.spf)
        if self.correspondent is not None:
            state |= conditions.of_correspondent(self.correspondent, facts.correspondent, facts.spf)
        if self.score is not None:
            state |= conditions.of_score(self.score, facts.score)
        return state

    def unclear(self, sender: Mailbox, recipient: Mailbox) -> bool:
        """Whether a condition of it is on an address that is uncertain."""
        return (self.senders is not None and not sender.certain) or (
            self.recipients is not None and not recipient.certain
        )


class Answer(NamedTuple):
    """What a list said of a client: its return codes, none when it is not listed there.

    With `error` set the list has no vote: an error is never a listing (DESIGN section 4); `silent` says that
    the error is that no answer came.  `seconds` is how long it took, for logs and `explain`.
    """

    codes: tuple[bytes, ...] = ()
    error: str = ""
    seconds: float = 0.0
    silent: bool = False


NOT_LISTED = Answer()


class Facts(NamedTuple):
    """What was seen of one recipient.

    `sure` and `maybe` are masks of the rules that hold or may yet hold, lists and what follows here apart;
    they come from `Policy.connect` and its kin, as does `unclear`: those that hold only because something is
    unknown for good.  `answers` has the answer of each list that is in, by zone.

    The rest is None while it is not known yet.  `correspondent`: whether we have written to this sender.
    """

    sure: int
    maybe: int
    answers: Mapping[str, Answer] = MappingProxyType({})
    unclear: int = 0
    spf: Spf | Unknown | None = None
    by_hand: ByHand | Unknown | None = None
    correspondent: bool | Unknown | None = None
    score: float | Unknown | None = None


class Pools(NamedTuple):
    """The pools that a client is in, by their domains, and those of which that is not known."""

    within: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


NO_POOL = Pools()
