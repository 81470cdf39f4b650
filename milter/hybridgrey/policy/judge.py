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
from types import MappingProxyType
from typing import Final, NamedTuple

from hybridgrey.clientaddress import Carried, ClientReader
from hybridgrey.envelope import Mailbox
from hybridgrey.policy import conditions, rdns
from hybridgrey.policy.match import Index
from hybridgrey.policy.pattern import Pattern
from hybridgrey.policy.rdns import Name
from hybridgrey.policy.rule import NO_POOL, NOT_LISTED, REFUSING, Action, Answer, Facts, Pools, Rule

__all__ = [
    "NOT_LISTED",
    "NO_POOL",
    "REFUSING",
    "Action",
    "Answer",
    "Awaited",
    "Facts",
    "Hit",
    "Policy",
    "Pools",
    "Rule",
    "Verdict",
    "judge",
    "kind_of",
]


class Hit(NamedTuple):
    """A list that counted for the rule that decided, and which of its codes did."""

    zone: str
    codes: tuple[bytes, ...]
    weight: int


class Verdict(NamedTuple):
    """The rule that decides (None: no rule matched, so accept), and the lists that made it match.

    `noted` are the rules with action none that matched before it.  `unclear`: it greylists for want of
    knowledge, so its own delay does not count.
    """

    rule: Rule | None
    hits: tuple[Hit, ...] = ()
    noted: tuple[Rule, ...] = ()
    unclear: bool = False

    @property
    def action(self) -> Action:
        """What to do with the recipient."""
        return self.rule.action if self.rule else Action.ACCEPT

    @property
    def delay(self) -> int | None:
        """The delay in seconds, None for the common one."""
        return None if self.rule is None or self.unclear else self.rule.delay


class Awaited(NamedTuple):
    """No verdict yet: the lists whose answers can change it, and whether facts of the dialogue can.

    So for the facts `spf`, `by_hand`, `correspondent` and `score`.  `standing`: a verdict that greylists and
    stands if the greylist knows the triplet, for all that is awaited could only let the recipient in, or is a
    score.
    """

    zones: frozenset[str]
    dialogue: bool = False
    spf: bool = False
    by_hand: bool = False
    correspondent: bool = False
    score: bool = False
    standing: Verdict | None = None


class Policy:
    """The rules in the form in which they are judged, made once for a configuration."""

    def __init__(self, rules: Sequence[Rule], clients: ClientReader | None = None) -> None:
        """`clients`: how a client's address is read, for who has but its text."""
        self.rules = tuple(rules)
        self.clients = clients or ClientReader()
        self.helo = Index([r.helo for r in rules])
        self.senders = Index([r.senders for r in rules])
        self.zones = tuple(dict.fromkeys(e.zone for r in rules for e in r.lists))
        self.pools = tuple(dict.fromkeys(str(e.key) for r in rules for e in r.pools or ()))
        # Without HELO there is no SPF for the null sender.
        self.needs_helo = any(r.helo is not None or r.spf is not None for r in rules)
        self.asking = _mask(r.asks for r in rules)
        self.by_hand = _mask(r.by_hand is not None for r in rules)
        self._clients = Index([r.clients for r in rules])
        self._recipients = Index([r.recipients for r in rules])
        self._authenticated = _mask(r.authenticated is not False for r in rules)
        self._anonymous = _mask(r.authenticated is not True for r in rules)
        self._greylisting = _mask(r.action is Action.GREYLIST for r in rules)
        self._refusing = _mask(r.action in REFUSING for r in rules)
        # Rules by which a list speaks for a client: not for an address that may be another's.
        self._vouching = _mask(r.action is Action.ACCEPT and bool(r.lists) for r in rules)
        self._pools = Index([r.pools for r in rules])
        self._rdns = {kind: _mask(r.rdns is None or kind in r.rdns for r in rules) for kind in (None, *Name)}
        self._names = any(r.rdns is not None for r in rules)
        self._of_pools = any(r.pools is not None for r in rules)
        # Rules that need nothing of the dialogue after CONNECT.
        self._early = (
            self.helo.unconditional
            & self.senders.unconditional
            & self._recipients.unconditional
            & self._authenticated
            & self._anonymous
            & ~self.asking
        )

    def connect(
        self, packed: bytes | None, host: str | None, carried: Carried | None = None, pools: Pools = NO_POOL
    ) -> Facts:
        """Facts known at CONNECT: the client's address, 4 or 16 bytes, and its verified host name.

        `carried`: the IPv4 address in it, of which lists are asked; none vouches for one that is not proven.
        """
        maybe, unclear = self._clients.client(packed, host, carried, self._refusing), 0
        if carried is not None and not carried.proven:
            maybe &= ~self._vouching
        if self._names:
            maybe &= self._rdns[kind_of(host, packed, carried)]
        if self._of_pools:
            surely, possibly = self._pools.names(pools.within, pools.unknown)
            unclear = maybe & possibly & ~surely & self._greylisting
            maybe &= surely | unclear
        return Facts(sure=maybe & self._early, maybe=maybe, unclear=unclear)

    def transaction(self, client: Facts, helo: str | None, sender: Mailbox, *, authenticated: bool) -> int:
        """Mask of the rules that may hold in a mail transaction; `client` is what `connect` knows."""
        login = self._authenticated if authenticated else self._anonymous
        return client.maybe & login & self.helo.name(helo) & self._mailbox(self.senders, sender)

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


_NOTHING: Final[Mapping[int, int]] = MappingProxyType({})
_ACCEPTED: Final = (Action.ACCEPT, None)
_NO_LISTS: Final[tuple[bool | None, tuple[Hit, ...], tuple[str, ...]]] = (True, (), ())
_Undecided = tuple[int, tuple[str, ...]]
"""The number of a rule that may still match, and the lists that may tell."""


def judge(policy: Policy, facts: Facts) -> Verdict | Awaited:
    """Judge one recipient by the first rule that matches.

    A rule whose answer can no longer change the outcome is not waited for.  A failed list has no vote.
    """
    noted: list[Rule] = []
    undecided: list[_Undecided] = []
    decided: Rule | None = None
    hits: tuple[Hit, ...] = ()
    sure, maybe, unclear, answers = facts.sure, facts.maybe, facts.unclear, facts.answers
    wanted = _NOTHING
    if policy.asking & maybe:
        sure, maybe, unclear, wanted = _weighed(policy, facts)
    rules = policy.rules
    # As `_members`, which here would cost a third of the rest.
    while maybe:
        lowest = maybe & -maybe
        maybe ^= lowest
        i = lowest.bit_length() - 1
        rule = rules[i]
        holds, hits, zones = _lists(rule, answers) if rule.lists else _NO_LISTS
        if holds is False:
            continue
        settled = holds and sure & lowest
        if rule.action is Action.NONE:
            if settled:
                noted.append(rule)
        elif settled:
            decided = rule
            break
        else:
            undecided.append((i, zones))
    doubt = unclear != 0 and decided is not None and bool(unclear >> i & 1)
    verdict = Verdict(decided, hits if decided else (), tuple(noted), doubt)
    if not undecided:
        return verdict
    outcome = _outcome(decided, doubt)
    while undecided:
        last = undecided[-1][0]
        if _outcome(rules[last], bool(unclear >> last & 1)) != outcome:
            return _awaited(rules, undecided, facts.sure, wanted, verdict)
        undecided.pop()
    return verdict


def _weighed(policy: Policy, facts: Facts) -> tuple[int, int, int, dict[int, int]]:
    """The masks `sure`, `maybe` and `unclear` by what was asked for too, and what each rule yet wants."""
    sure, maybe, unclear = facts.sure, facts.maybe, facts.unclear
    wanted: dict[int, int] = {}
    for i, rule in _members(policy.rules, policy.asking & maybe):
        state = rule.state(facts)
        if state & conditions.FALSE or (state & conditions.NEVER and rule.action is not Action.GREYLIST):
            maybe &= ~(1 << i)
            continue
        if state & conditions.NEVER:
            unclear |= 1 << i
        if state & conditions.WANTED:
            wanted[i] = state & conditions.WANTED
            sure &= ~(1 << i)
    return sure, maybe, unclear, wanted


def _awaited(
    rules: Sequence[Rule],
    undecided: Sequence[_Undecided],
    sure: int,
    wanted: Mapping[int, int],
    verdict: Verdict,
) -> Awaited:
    """What the undecided rules wait for; `verdict` is what stands if none of them matches."""
    zones: list[str] = []
    dialogue, lenient, bits = False, verdict.action is Action.GREYLIST, 0
    for i, some in undecided:
        zones += some
        if not sure >> i & 1:
            dialogue = True
        if wanted:
            facts = wanted.get(i, 0)
            bits |= facts
            if rules[i].action is not Action.ACCEPT and not facts & conditions.SCORE:
                lenient = False
    if not bits:
        return Awaited(frozenset(zones), dialogue)
    return Awaited(
        frozenset(zones),
        dialogue,
        bits & conditions.SPF != 0,
        bits & conditions.BY_HAND != 0,
        bits & conditions.CORRESPONDENT != 0,
        bits & conditions.SCORE != 0,
        verdict if lenient and not zones and not dialogue else None,
    )


def _outcome(rule: Rule | None, doubt: bool) -> tuple[Action, int | None]:
    """What the client gets, so far as it is worth waiting for; the words of a refusal are not."""
    if rule is None:
        return _ACCEPTED
    return rule.action, rule.delay if rule.action is Action.GREYLIST and not doubt else None


def kind_of(host: str | None, packed: bytes | None, carried: Carried | None) -> Name | None:
    """The kind of a client's verified name; None for who has no address, and so cannot have a name."""
    if packed is None:
        return None
    kind = rdns.classify(host, packed)
    if kind is Name.NAMED and carried is not None:
        return rdns.classify(host, carried.address)
    return kind


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
