"""The decision: rules, what was seen of one recipient, and the verdict or what is still awaited.

Pure: no sockets, clocks or store.  Rules are tried in order and the first that matches decides; a rule
matches when all its conditions do.  Conditions are three-valued, because the answers of DNS lists, and early
in the dialogue the sender and the recipient, are not known yet.  A rule that may still match is waited for
only if that can change the outcome: with a blocklist hit in hand, a rejecting rule above it that is undecided
would reject too, so the verdict stands without it.

Masks: a set of rules is an int whose bit i stands for rule i (see `match.Index`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from hybridgrey.clientaddress import Carried, ClientReader
from hybridgrey.envelope import Mailbox
from hybridgrey.policy.match import Entry, Index
from hybridgrey.policy.pattern import ListEntry, Pattern


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
    """One rule; a condition that is None always holds. `delay` is in seconds, None for the common one."""

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

    `sure` and `maybe` are masks of the rules whose conditions, the lists apart, hold or may yet hold; they
    come from `Policy.connect` and its kin.  `answers` has the answer of each list that is in, by zone.
    """

    sure: int
    maybe: int
    answers: Mapping[str, Answer] = MappingProxyType({})


class Hit(NamedTuple):
    """A list that counted for the rule that decided, and which of its codes did."""

    zone: str
    codes: tuple[bytes, ...]
    weight: int


class Verdict(NamedTuple):
    """The rule that decides (None: no rule matched, so accept), the lists that made it match, and the
    rules with action none that matched before it."""

    rule: Rule | None
    hits: tuple[Hit, ...] = ()
    noted: tuple[Rule, ...] = ()

    @property
    def action(self) -> Action:
        """What to do with the recipient."""
        return self.rule.action if self.rule else Action.ACCEPT


class Awaited(NamedTuple):
    """No verdict yet: the lists whose answers can change it, and whether facts of the dialogue can."""

    zones: frozenset[str]
    dialogue: bool = False


class Policy:
    """The rules in the form in which they are judged, made once for a configuration."""

    def __init__(self, rules: Sequence[Rule], clients: ClientReader | None = None) -> None:
        """`clients`: how a client's address is read, for who has but its text."""
        self.rules = tuple(rules)
        self.clients = clients or ClientReader()
        self.helo = Index([r.helo for r in rules])
        self.senders = Index([r.senders for r in rules])
        self.zones = tuple(dict.fromkeys(e.zone for r in rules for e in r.lists))
        self.needs_helo = any(r.helo is not None for r in rules)
        self._clients = Index([r.clients for r in rules])
        self._recipients = Index([r.recipients for r in rules])
        self._authenticated = _mask(r.authenticated is not False for r in rules)
        self._anonymous = _mask(r.authenticated is not True for r in rules)
        self._greylisting = _mask(r.action is Action.GREYLIST for r in rules)
        self._refusing = _mask(r.action in REFUSING for r in rules)
        # Rules by which a list speaks for a client: not for an address that may be another's.
        self._vouching = _mask(r.action is Action.ACCEPT and bool(r.lists) for r in rules)
        # Rules that need nothing of the dialogue after CONNECT.
        self._early = (
            self.helo.unconditional
            & self.senders.unconditional
            & self._recipients.unconditional
            & self._authenticated
            & self._anonymous
        )

    def connect(self, packed: bytes | None, host: str | None, carried: Carried | None = None) -> Facts:
        """Facts known at CONNECT: the client's address, 4 or 16 bytes, and its verified host name.

        `carried`: the IPv4 address in it, of which lists are asked; none vouches for one that is not proven.
        """
        maybe = self._clients.client(packed, host, carried, self._refusing)
        if carried is not None and not carried.proven:
            maybe &= ~self._vouching
        return Facts(sure=maybe & self._early, maybe=maybe)

    def transaction(self, client: int, helo: str | None, sender: Mailbox, *, authenticated: bool) -> int:
        """Mask of the rules that may hold in a mail transaction; `client` is `connect(...).maybe`."""
        login = self._authenticated if authenticated else self._anonymous
        return client & login & self.helo.name(helo) & self._mailbox(self.senders, sender)

    def recipient(self, transaction: int, recipient: Mailbox) -> int:
        """Mask of the rules that hold for a recipient, the lists apart."""
        return transaction & self._mailbox(self._recipients, recipient)

    def _mailbox(self, index: Index, box: Mailbox) -> int:
        """Rules that hold for a mailbox.

        A condition on an uncertain one is unknown, and in the end unknown makes greylist match and all else
        not: never a refusal out of it, and never a way in.
        """
        holding = index.mailbox(box)
        return holding if box.certain else holding | self._greylisting

    def questions(self, facts: Facts) -> tuple[str, ...]:
        """The lists that may have a say, in the order of the rules: what to ask at CONNECT."""
        zones: dict[str, None] = {}
        for i, rule in _members(self.rules, facts.maybe):
            zones.update((e.zone, None) for e in rule.lists)
            if not rule.lists and facts.sure >> i & 1 and rule.action is not Action.NONE:
                break
        return tuple(zones)

    def trusted(self, facts: Facts) -> Verdict | None:
        """The verdict, if it is to accept whatever the client goes on to say and the lists answer.

        None too where a rule with action none may match before: it wants to see each recipient.
        """
        verdict = judge(self, facts)
        if isinstance(verdict, Awaited) or verdict.action is not Action.ACCEPT:
            return None
        for _, rule in _members(self.rules, facts.maybe):
            if rule is verdict.rule:
                break
            if rule.action is Action.NONE:
                return None
        return verdict


def judge(policy: Policy, facts: Facts) -> Verdict | Awaited:
    """Judge one recipient by the first rule that matches.

    A rule whose answer can no longer change the outcome is not waited for.  A failed list has no vote.
    """
    noted: list[Rule] = []
    undecided: list[tuple[Rule, tuple[str, ...], bool]] = []
    decided: Rule | None = None
    hits: tuple[Hit, ...] = ()
    for i, rule in _members(policy.rules, facts.maybe):
        holds, hits, zones = _lists(rule, facts.answers) if rule.lists else (True, (), ())
        if holds is False:
            continue
        sure = bool(facts.sure >> i & 1)
        if rule.action is Action.NONE:
            if holds and sure:
                noted.append(rule)
        elif holds and sure:
            decided = rule
            break
        else:
            undecided.append((rule, zones, not sure))
    verdict = Verdict(decided, hits if decided else (), tuple(noted))
    while undecided and _outcome(undecided[-1][0]) == _outcome(decided):
        undecided.pop()
    if not undecided:
        return verdict
    return Awaited(frozenset(z for _, zones, _ in undecided for z in zones), any(d for _, _, d in undecided))


def _outcome(rule: Rule | None) -> tuple[Action, int | None]:
    """What the client gets, so far as it is worth waiting for; the words of a refusal are not."""
    if rule is None:
        return Action.ACCEPT, None
    return rule.action, rule.delay if rule.action is Action.GREYLIST else None


def _lists(rule: Rule, answers: Mapping[str, Answer]) -> tuple[bool | None, tuple[Hit, ...], tuple[str, ...]]:
    """Whether the weights reach the rule's threshold (None: not known yet), what counted, what is open."""
    total = least = most = 0
    hits: list[Hit] = []
    zones: list[str] = []
    for entry in rule.lists:
        answer = answers.get(entry.zone)
        if answer is None:
            zones.append(entry.zone)
            least += min(entry.weight, 0)
            most += max(entry.weight, 0)
        elif not answer.error and (codes := _matching(entry.pattern, answer.codes)):
            total += entry.weight
            hits.append(Hit(entry.zone, codes, entry.weight))
    if total + least >= rule.threshold:
        return True, tuple(hits), ()
    if total + most < rule.threshold:
        return False, (), ()
    return None, tuple(hits), tuple(zones)


def _matching(pattern: Pattern | None, codes: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The codes that count; any of several records is enough for the entry, which counts once."""
    return codes if pattern is None else tuple(filter(pattern.matches, codes))


def _members(rules: Sequence[Rule], mask: int) -> Iterator[tuple[int, Rule]]:
    """The rules of a mask in order; the cost is that of its bits that are set."""
    while mask:
        lowest = mask & -mask
        i = lowest.bit_length() - 1
        yield i, rules[i]
        mask ^= lowest


def _mask(bits: Iterable[bool]) -> int:
    return sum(1 << i for i, bit in enumerate(bits) if bit)
