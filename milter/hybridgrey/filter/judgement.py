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

Where nothing but the score of the message is open the recipient is *pending*, see `pending`.  Before that the
triplet is looked at, but not written: who comes back too early is refused at once, and who has passed is let
in, without a scan.  Where a rule may refuse by score, who has passed is scanned, too.

All questions to the store for one recipient share its timeout, and there are four at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from hybridgrey.clientaddress import Carried
from hybridgrey.envelope import Mailbox
from hybridgrey.filter import proof
from hybridgrey.filter.awaited import Call, Steps
from hybridgrey.filter.prospect import without_score
from hybridgrey.filter.transaction import Transaction
from hybridgrey.greylist.triplets import State, Touch
from hybridgrey.hand.expected import Expected
from hybridgrey.lists import lookup
from hybridgrey.policy.conditions import NO_ENTRY, UNKNOWN, ByHand, Spf, Unknown
from hybridgrey.policy.judge import Awaited, Facts, Policy, Verdict, judge
from hybridgrey.store.connection import StoreError

MOST_CALLS: Final = 4
# Of the store's timeout; with less left a call would fail for want of time and not for the store's sake.
_LEAST: Final = 0.25

Said = Callable[[bytes | None, Carried | None, str | None, Mailbox, Mailbox], ByHand | Unknown]
"""What entries by hand say of a client, its sender and a recipient (`hand.table.Table.of`)."""


class Triplets(Protocol):
    """The greylist, as far as a verdict needs it."""

    def attempt(self, client: str, sender: str, recipient: str, delay: int) -> Call:
        """The call of an attempt; `Touch.read` takes the reply."""

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
    """What is asked, by all judgements; what is None cannot be.  `delay` and `timeout` are in seconds."""

    policy: Policy
    greylist: Triplets
    delay: int
    timeout: float
    sender_pools: bool
    accept_without_store: bool
    expected: Expected | None = None
    by_hand: Said | None = None
    spf: proof.Carrier | None = None
    correspondents: Correspondents | None = None


class Judgement:
    """One recipient; used once.

    `to` is the recipient, `mailer` what delivers there.  `touch` is the greylist's answer, None before it was
    asked or, with `store_error`, where it could not be.  `domain`: the sender's, if that let it in;
    `expected`: its mail is expected.  `stored`: seconds that the store took.

    Of one that is `pending`: `plain` is the verdict if the score stays unknown; `lenient`, that whatever the
    score, it is accepted or greylisted.
    """

    __slots__ = (
        "_asked",
        "_before",
        "_calls",
        "_glimpse",
        "_open",
        "_parts",
        "domain",
        "expected",
        "lenient",
        "mail",
        "mailer",
        "plain",
        "store_error",
        "stored",
        "to",
        "touch",
    )

    def __init__(self, parts: Parts, mail: Transaction, recipient: Mailbox) -> None:
        self._parts = parts
        self.mail = mail
        self.to = recipient
        self.touch: Touch | None = None
        self.domain = ""
        self.expected = False
        self.store_error = ""
        self.stored = 0.0
        self.mailer = ""
        self._calls = 0
        self._before = 0.0
        self._asked = False
        self._glimpse: Touch | None = None
        self._open: Facts | None = None
        self.plain = Verdict(None)
        self.lenient = False

    def verdict(self) -> Steps[Verdict]:
        """What the rules say; if it is `pending` then, what they would say without a score."""
        mail, policy = self.mail, self._parts.policy
        client = mail.client
        mask = policy.recipient(mail.rules, self.to)
        answers = {}
        if client.lookup is not None:
            client.lookup.peek()
            answers = client.lookup.answers
        rest = (mail.spf, self._said(mask), mail.correspondent, None if mail.scans else UNKNOWN)
        facts = Facts(mask, mask, answers, client.facts.unclear, *rest)
        return (yield from self._judged(facts))

    @property
    def pending(self) -> bool:
        """Whether the verdict waits for the score."""
        return self._open is not None

    def shares(self, other: Judgement) -> bool:
        """Whether one reply can be true of this and another pending recipient, whatever the score."""
        if self._open is None or other._open is None or (self.lenient and other.lenient):
            return True
        return (self._open.maybe, self._open.by_hand) == (other._open.maybe, other._open.by_hand)

    def scored(self, score: float | Unknown) -> Steps[Verdict]:
        """What the rules say of a pending one when its score is known, or cannot be."""
        facts, self._open = self._open, None
        assert facts is not None  # noqa: S101 (see `pending`)
        self._again()
        return (yield from self._judged(facts._replace(score=score)))

    def unscored(self) -> Verdict:
        """What they say of a pending one that is not to wait."""
        self._open = None
        self._again()
        return self.plain

    def _again(self) -> None:
        """What follows has the store's timeout to itself."""
        self._calls, self._before = 0, self.stored
        if self.touch is None:
            self.store_error = ""

    def _judged(self, facts: Facts) -> Steps[Verdict]:
        policy, client = self._parts.policy, self.mail.client
        while True:
            outcome = judge(policy, facts)
            if isinstance(outcome, Verdict):
                return outcome
            if not outcome.zones:
                if outcome.score:
                    if standing := (yield from self._unscanned(facts)):
                        return standing
                    if not (outcome.spf or outcome.correspondent):
                        self._open = facts
                        return self.plain
                elif self._may_look(outcome) and (standing := (yield from self._looked(outcome))):
                    return standing
                facts = yield from self._learnt(outcome, facts)
            elif client.lookup is None:
                # A client without an IP address is in no list.
                facts = facts._replace(answers=dict.fromkeys(outcome.zones, lookup.NO_ADDRESS))
            else:
                yield from client.lookup.collect(outcome.zones)

    def _said(self, mask: int) -> ByHand | Unknown:
        """What entries by hand say, where a rule of the mask wants to know."""
        by_hand, mail = self._parts.by_hand, self.mail
        if by_hand is None or not mask & self._parts.policy.by_hand:
            return NO_ENTRY
        client = mail.client
        return by_hand(client.source.packed, client.source.carried, client.host, mail.sender, self.to)

    def _may_look(self, awaited: Awaited) -> bool:
        """Whether the triplet is looked at before anything else is asked."""
        unasked = self.touch is None and not self.store_error
        return unasked and awaited.standing is not None and self.mail.client.source.packed is not None

    def _looked(self, awaited: Awaited) -> Steps[Verdict | None]:
        """The verdict that stands, if the greylist lets the triplet in or, being down, may not hold it up."""
        assert awaited.standing is not None  # noqa: S101 (see `_may_look`)
        yield from self._attempt(awaited.standing)
        if self.touch is None:
            return awaited.standing if self._parts.accept_without_store else None
        return awaited.standing if self.touch.accepted else None

    def _unscanned(self, facts: Facts) -> Steps[Verdict | None]:
        """The verdict that needs no score, for what the greylist knows; None if there is none."""
        prospect = without_score(self._parts.policy, facts)
        plain, settled, refuses = prospect
        if plain is None:
            return None
        self.plain, self.lenient = plain, prospect.lenient
        if not prospect.greylists:
            return None
        if self._glimpse is None and not self.store_error and self.mail.client.source.packed is not None:
            self._glimpse = yield from self._network(plain, self._parts.greylist.glance)
        touch = self._glimpse
        if touch is None:
            return plain if settled and not refuses else None
        if touch.accepted:
            return None if refuses else plain
        if touch.state is not State.EARLY or not settled:
            return None
        if refuses:
            # What else lets it in is no reason to do without a scan.
            yield from self.greylist(plain)
            if self.expected or (self.touch is not None and self.touch.accepted):
                return None
        return plain

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
        if self._asked:
            return
        self._asked = True
        if self.touch is None and not self.store_error:
            yield from self._attempt(verdict)
        touch = self.touch
        if touch is None or touch.accepted:
            return
        expected = self._parts.expected
        try:
            if self._parts.sender_pools:
                touch = yield from self._by_domain(touch, self._delay(verdict))
            if not touch.accepted and expected is not None:
                self.expected = expected.read((yield from self._call(expected.ask(self.to))))
        except StoreError as error:
            # What is known already stands: it is delayed.
            self.store_error = str(error)

    def _attempt(self, verdict: Verdict) -> Steps[None]:
        """Ask for the network."""
        self.touch = yield from self._network(verdict, self._parts.greylist.attempt)

    def _network(self, verdict: Verdict, ask: Callable[[str, str, str, int], Call]) -> Steps[Touch | None]:
        """What the greylist answers for the network; None where it cannot."""
        mail = self.mail
        call = ask(mail.client.source.listed, mail.sender.key, self.to.key, self._delay(verdict))
        try:
            return Touch.read((yield from self._call(call)))
        except StoreError as error:
            self.store_error = str(error)
            return None

    def _by_domain(self, network: Touch, delay: int) -> Steps[Touch]:
        """What the domain is told, if SPF proves the client and that is better; its network learns of it.

        Raises StoreError.
        """
        mail, greylist = self.mail, self._parts.greylist
        spf = yield from proof.learn(self._parts.spf, mail)
        if not isinstance(spf, Spf) or not spf.proved or mail.sender.null:
            return network
        sender, recipient = mail.sender.key, self.to.key
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
        if rule is None or delay is None or rule.unclear(self.mail.sender, self.to):
            return self._parts.delay
        return delay

    def _call(self, call: Call) -> Steps[Sequence[int]]:
        """What the store answers, in the time that is left.  Raises StoreError."""
        if self._calls:
            left = self._parts.timeout - (self.stored - self._before)
            if self._calls >= MOST_CALLS or left < self._parts.timeout * _LEAST:
                raise StoreError("no time is left for the store")
            call = call._replace(seconds=left)
        self._calls += 1
        asked = time.monotonic()
        try:
            reply: Sequence[int] = yield call
        finally:
            self.stored += time.monotonic() - asked
        return reply
