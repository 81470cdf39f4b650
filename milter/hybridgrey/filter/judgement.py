"""One recipient: what is asked, and in which order, until rules and greylist have said what becomes of it.

Entries by hand are in memory, lists have been asked since CONNECT; then what costs more, and only if it can
still change the outcome.  Where nothing but accepting rules is open before a rule that greylists, the triplet
is looked at first: who is known asks for nothing else.

A triplet's client is its network or, where SPF proves it, the sender's domain.  The network is asked first.
Only a recipient that would be delayed costs SPF, and the question for the domain:

- a first attempt that one of both knows to be earlier is that for the other, too;
- what passes by domain passes by network from then on, but earns the network no credit;
- what passes by network alone earns the domain nothing;
- the domain's credit holds only while SPF proves the client: it is not handed to the network.

All questions to the store for one recipient share its timeout, and there are four at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from hybridgrey.clientaddress import Carried
from hybridgrey.envelope import Mailbox
from hybridgrey.filter import proof
from hybridgrey.filter.awaited import Call, Steps
from hybridgrey.filter.transaction import Transaction
from hybridgrey.greylist.triplets import State, Touch
from hybridgrey.hand.expected import Expected
from hybridgrey.lists import lookup
from hybridgrey.policy.conditions import NO_ENTRY, UNKNOWN, ByHand, Spf, Unknown
from hybridgrey.policy.judge import Answer, Awaited, Facts, Policy, Verdict, judge
from hybridgrey.store.connection import StoreError

MOST_CALLS: Final = 4
# Which rules may match differs little between clients.
MOST_REMEMBERED: Final = 4096
# Of the store's timeout; with less left a call would fail for want of time and not for the store's sake.
_LEAST: Final = 0.25

Said = Callable[[bytes | None, Carried | None, str | None, Mailbox, Mailbox], ByHand | Unknown]
"""What entries by hand say of a client, its sender and a recipient (`hand.table.Table.of`)."""


class Triplets(Protocol):
    """The greylist, as far as a verdict needs it."""

    def attempt(
        self,
        client: str,
        sender: str,
        recipient: str,
        delay: int,
        expected: tuple[bytes, bytes] | None = None,
    ) -> Call:
        """The call of an attempt; `Touch.read` takes the reply.

        `expected`: where the store has mail that is expected; who can answers that too (`Touch.expected`).
        """

    def glance(self, client: str, sender: str, recipient: str, delay: int) -> Call:
        """The call that says what an attempt would mean now, changing nothing."""

    def attempt_by_domain(self, domain: str, sender: str, recipient: str, delay: int, network: Touch) -> Call:
        """The call of an attempt of a client that SPF proves; `network` is what its network was told."""

    def hand_over(self, client: str, sender: str, recipient: str, domain: Touch) -> Call | None:
        """The call by which the network learns what the domain was told; None if it need not."""


class Correspondents(Protocol):
    """Whom we have written to."""

    def ask(self, sender: Mailbox) -> Call:
        """The call that says whether a sender is one."""

    def read(self, reply: Sequence[int]) -> bool:
        """What the store has answered.  Raises StoreError."""


class Parts(NamedTuple):
    """What is asked, by all judgements; what is None cannot be.  `delay` and `timeout` are in seconds.

    `remembered`: what the rules say of clients that no list has, by the masks of rules that may match them.
    """

    policy: Policy
    greylist: Triplets
    delay: int
    timeout: float
    sender_pools: bool
    accept_without_store: bool
    remembered: dict[tuple[int, int, int, int], Verdict | Awaited]
    expected: Expected | None = None
    by_hand: Said | None = None
    spf: proof.Carrier | None = None
    correspondents: Correspondents | None = None


class Judgement:
    """One recipient; used once.

    `touch` is the greylist's answer, None before it was asked or, with `store_error`, where it could not be.
    `domain`: the sender's, if it was the domain that let it in; `expected`: its mail is expected.  `stored`:
    seconds that the store took.
    """

    __slots__ = (
        "_calls",
        "_looked",
        "_parts",
        "_to",
        "domain",
        "expected",
        "mail",
        "store_error",
        "stored",
        "touch",
    )

    def __init__(self, parts: Parts, mail: Transaction, recipient: Mailbox) -> None:
        self._parts = parts
        self.mail = mail
        self._to = recipient
        self.touch: Touch | None = None
        self.domain = ""
        self.expected = False
        self.store_error = ""
        self.stored = 0.0
        self._calls = 0
        self._looked = False

    def verdict(self) -> Steps[Verdict]:
        """What the rules say."""
        facts = self._known()
        return self._judged(facts, self._first(facts))

    def _judged(self, facts: Facts, outcome: Verdict | Awaited) -> Steps[Verdict]:
        """The verdict; while there is none yet, what is awaited is asked for."""
        lookup_ = self.mail.client.lookup
        while not isinstance(outcome, Verdict):
            if not outcome.zones:
                standing = yield from self._standing(outcome, facts)
                if standing is not None:
                    return standing
                facts = yield from self._learnt(outcome, facts)
            elif lookup_ is None:
                # A client without an IP address is in no list.
                facts = facts._replace(answers=dict.fromkeys(outcome.zones, lookup.NO_ADDRESS))
            else:
                yield from lookup_.collect(outcome.zones)
            outcome = judge(self._parts.policy, facts)
        return outcome

    def _standing(self, awaited: Awaited, _facts: Facts) -> Steps[Verdict | None]:
        """The verdict that needs nothing more: who is known, or may not be held up, asks for no more."""
        standing = awaited.standing
        if standing is None or self._looked or self.mail.client.source.packed is None:
            return None
        yield from self._attempt(standing)
        accepted = self._parts.accept_without_store if self.touch is None else self.touch.accepted
        return standing if accepted else None

    def _known(self) -> Facts:
        """What is known without a question."""
        mail, parts = self.mail, self._parts
        client, policy = mail.client, parts.policy
        answers: Mapping[str, Answer] = {}
        if client.lookup is not None:
            client.lookup.peek()
            answers = client.lookup.answers
        mask = policy.recipient(mail.rules, self._to)
        by_hand: ByHand | Unknown = NO_ENTRY
        if mask & policy.by_hand:
            if parts.by_hand is not None:
                source = client.source
                by_hand = parts.by_hand(source.packed, source.carried, client.host, mail.sender, self._to)
            if by_hand == NO_ENTRY:
                # As for nearly everybody: rules on entries by hand need not be looked at.
                by_hand = NO_ENTRY
                mask &= ~policy.by_hand
        return Facts(
            mask, mask, answers, client.facts.unclear, mail.spf, by_hand, mail.correspondent, UNKNOWN
        )

    def _first(self, facts: Facts) -> Verdict | Awaited:
        """What the rules say to that; remembered for a client that no list has, as most are, and alike."""
        parts, client, answers = self._parts, self.mail.client, facts.answers
        if (
            len(answers) != client.zones
            or facts.by_hand is not NO_ENTRY
            or facts.spf is not None
            or facts.correspondent is not None
        ):
            return judge(parts.policy, facts)
        for answer in answers.values():
            if answer.codes:
                return judge(parts.policy, facts)
        # Which lists were asked follows from the first; a list that failed has no vote.
        key = client.facts.maybe, facts.maybe, facts.unclear, len(answers)
        outcome = parts.remembered.get(key)
        if outcome is None:
            outcome = judge(parts.policy, facts)
            if len(parts.remembered) < MOST_REMEMBERED:
                parts.remembered[key] = outcome
        return outcome

    def _learnt(self, awaited: Awaited, facts: Facts) -> Steps[Facts]:
        """The facts with one more of those that are awaited; the one that probably answers for others first.

        With sender pools SPF is wanted of whoever is not a correspondent, too.
        """
        if awaited.spf and (self._parts.sender_pools or not awaited.correspondent):
            return facts._replace(spf=(yield from proof.learn(self._parts.spf, self.mail)))
        if awaited.correspondent:
            return facts._replace(correspondent=(yield from self._correspondent()))
        return facts._replace(by_hand=facts.by_hand or UNKNOWN, score=UNKNOWN)

    def _correspondent(self) -> Steps[bool | Unknown]:
        """Whether we have written to the sender."""
        mail, asked = self.mail, self._parts.correspondents
        if asked is None:
            return UNKNOWN
        if mail.sender.null or not mail.sender.certain:
            return False
        try:
            mail.correspondent = asked.read((yield from self._call(asked.ask(mail.sender))))
        except StoreError as error:
            self.store_error = self.store_error or str(error)
            return UNKNOWN
        return mail.correspondent

    # The greylist.

    def greylist(self, verdict: Verdict) -> Steps[None]:
        """Ask the greylist, as far as it was not, and whatever may spare the recipient its delay."""
        if self.touch is None and not self._looked:
            yield from self._attempt(verdict)
        touch = self.touch
        if touch is None or touch.accepted:
            return
        expected, hoped = self._parts.expected, touch.expected
        try:
            if self._parts.sender_pools:
                touch = yield from self._by_domain(touch, self._delay(verdict))
            if not touch.accepted and expected is not None:
                if hoped is None:
                    hoped = expected.read((yield from self._call(expected.ask(self._to))))
                self.expected = hoped
        except StoreError as error:
            # What is known already stands: it is delayed.
            self.store_error = str(error)

    def _attempt(self, verdict: Verdict) -> Steps[None]:
        """Ask for the network: of most recipients the only question, so it takes no detour."""
        mail = self.mail
        client, sender, parts = mail.client.source.listed, mail.sender.key, self._parts
        place = None if parts.expected is None else parts.expected.place(self._to)
        call = parts.greylist.attempt(client, sender, self._to.key, self._delay(verdict), place)
        self._looked = True
        asked = time.monotonic()
        try:
            self.touch = Touch.read((yield self._in_time(call)))
        except StoreError as error:
            self.store_error = str(error)
        self.stored += time.monotonic() - asked

    def _by_domain(self, network: Touch, delay: int) -> Steps[Touch]:
        """What the domain is told, if SPF proves the client and that is better; its network learns of it.

        Raises StoreError.
        """
        mail, greylist = self.mail, self._parts.greylist
        spf = yield from proof.learn(self._parts.spf, mail)
        if not isinstance(spf, Spf) or not spf.proved or mail.sender.null:
            return network
        sender, recipient = mail.sender.key, self._to.key
        call = greylist.attempt_by_domain(spf.proved, sender, recipient, delay, network)
        touch = Touch.read((yield from self._call(call)))
        if touch.accepted:
            self.domain = spf.proved
        elif touch.age <= network.age:
            return network
        self.touch = touch
        # One call is kept for the mail that is expected: that somebody waits for.
        if touch.accepted or (network.state is not State.FULL and self._calls < MOST_CALLS - 1):
            handed = greylist.hand_over(mail.client.source.listed, sender, recipient, touch)
            if handed is not None:
                yield from self._call(handed)
        return touch

    def _delay(self, verdict: Verdict) -> int:
        """The delay in seconds of a verdict that greylists."""
        rule, delay = verdict.rule, verdict.delay
        if rule is None or delay is None or rule.unclear(self.mail.sender, self._to):
            return self._parts.delay
        return delay

    def _call(self, call: Call) -> Steps[Sequence[int]]:
        """What the store answers.  Raises StoreError."""
        call = self._in_time(call)
        asked = time.monotonic()
        try:
            reply: Sequence[int] = yield call
        finally:
            self.stored += time.monotonic() - asked
        return reply

    def _in_time(self, call: Call) -> Call:
        """A call for which there is the time that is left.  Raises StoreError if that is too little."""
        if self._calls:
            left = self._parts.timeout - self.stored
            if self._calls >= MOST_CALLS or left < self._parts.timeout * _LEAST:
                raise StoreError("no time is left for the store")
            call = call._replace(seconds=left)
        self._calls += 1
        return call
