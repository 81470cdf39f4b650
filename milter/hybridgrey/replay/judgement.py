"""One attempt: rules and greylist in the order in which the daemon asks them, with nothing to wait for.

The order matters, for what is asked leaves its traces: the greylist remembers a triplet that it was asked
about although SPF or a correspondent then let the mail in. A test holds this equal to `filter.judgement`,
which has the reasons, on a real store.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hybridgrey.envelope import Mailbox
from hybridgrey.greylist.triplets import State, Touch
from hybridgrey.policy.conditions import UNKNOWN, Spf, Unknown
from hybridgrey.policy.judge import Awaited, Facts, Policy, Verdict, judge
from hybridgrey.replay.greylist import Asked, PureGreylist, What
from hybridgrey.replay.messages import Attempt
from hybridgrey.replay.names import Names

MOST_CALLS: Final = 4
"""What a recipient may ask of the store; a network may so not learn of a domain's waiting triplet."""


class Parts(NamedTuple):
    """What all judgements of a configuration share; `delay` in seconds."""

    greylist: PureGreylist
    names: Names
    delay: int
    sender_pools: bool


class Judgement:
    """Used once; `facts` are those that are known before anything is asked."""

    __slots__ = ("_at", "_calls", "_facts", "_parts", "_policy", "_recipient", "_sender", "touch")

    def __init__(
        self, parts: Parts, policy: Policy, facts: Facts, at: Attempt, sender: Mailbox, recipient: Mailbox
    ) -> None:
        self._parts = parts
        self._policy = policy
        self._facts = facts
        self._at = at
        self._sender = sender
        self._recipient = recipient
        self._calls = 0
        self.touch: Touch | None = None

    def verdict(self, *, has_address: bool) -> Verdict:
        """What the rules say."""
        facts = self._facts
        while True:
            outcome = judge(self._policy, facts)
            if isinstance(outcome, Verdict):
                return outcome
            if self.touch is None and outcome.standing is not None and has_address:
                self.touch = self._attempt(outcome.standing)
                if self.touch.accepted:
                    return outcome.standing
            facts = self._learnt(outcome, facts)

    def lets_in(self, verdict: Verdict) -> bool:
        """Whether the greylist lets the mail in, or it is expected."""
        if self.touch is None:
            self.touch = self._attempt(verdict)
        if not self.touch.accepted and self._parts.sender_pools:
            self.touch = self._by_domain(self.touch, self._delay(verdict))
        return self.touch.accepted or self._at.expected is True

    def _learnt(self, awaited: Awaited, facts: Facts) -> Facts:
        """The facts with one more of those that are awaited."""
        assert not awaited.zones  # noqa: S101 (see `unknown`)
        if awaited.spf and (self._parts.sender_pools or not awaited.correspondent):
            return facts._replace(spf=self._spf())
        return facts._replace(correspondent=self._correspondent())

    def _spf(self) -> Spf | Unknown:
        """What proves the client is unknown where the result is, and not only then."""
        at, sender = self._at, self._sender
        if at.spf is UNKNOWN or at.proved is UNKNOWN or not sender.certain:
            return UNKNOWN
        return Spf(at.spf, sender.domain if at.proved else "")

    def _correspondent(self) -> bool | Unknown:
        if self._sender.null or not self._sender.certain:
            return False
        self._calls += 1
        return self._at.correspondent

    def _attempt(self, verdict: Verdict) -> Touch:
        """Ask for the network."""
        self._calls += 1
        return self._parts.greylist.touch(int(self._at.at), self._network(), self._delay(verdict))

    def _network(self) -> tuple[object, ...]:
        return self._parts.names.of_network(self._at.client, self._sender.key, self._recipient.key)

    def _by_domain(self, network: Touch, delay: int) -> Touch:
        """What the domain is told, if SPF proves the client and that is better; its network learns of it."""
        spf, full = self._spf(), network.state is State.FULL
        if spf is UNKNOWN or not spf.proved or self._sender.null:
            return network
        at, greylist = int(self._at.at), self._parts.greylist
        names = self._parts.names.of_domain(spf.proved, self._sender.key, self._recipient.key)
        what = What.KEEP_NOTHING if full else What.ATTEMPT
        self._calls += 1
        touch = greylist.touch(at, names, delay, Asked(what, network.age, bounded=False))
        if not touch.accepted and touch.age <= network.age:
            return network
        learns = touch.accepted or (not full and self._calls < MOST_CALLS - 1)
        if learns and touch.state is not State.NETWORK:
            greylist.touch(at, self._network(), 0, Asked(What.TAKE_OVER, touch.age, touch.accepted))
        return touch

    def _delay(self, verdict: Verdict) -> int:
        rule, delay = verdict.rule, verdict.delay
        if rule is None or delay is None or rule.unclear(self._sender, self._recipient):
            return self._parts.delay
        return delay
