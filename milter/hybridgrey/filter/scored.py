"""One recipient of a message whose score can be asked for.

Where nothing but the score is open the recipient is *pending*, see `pending`.  Before that the triplet is
looked at, but not written: who comes back too early is refused at once, and who has passed is let in, without
a scan.  Where a rule may refuse by score, who has passed is scanned, too.
"""

from __future__ import annotations

from hybridgrey.envelope import Mailbox
from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.judgement import Judgement, Parts
from hybridgrey.filter.prospect import without_score
from hybridgrey.filter.transaction import Transaction
from hybridgrey.greylist.triplets import State, Touch
from hybridgrey.policy.conditions import Unknown
from hybridgrey.policy.judge import Awaited, Facts, Verdict, judge
from hybridgrey.store.connection import StoreError


class ScoredJudgement(Judgement):
    """As `Judgement`; `mailer` is what delivers to the recipient.

    Of one that is `pending`: `plain` is the verdict if the score stays unknown; `lenient`, that whatever the
    score, it is accepted or greylisted.
    """

    __slots__ = ("_asked", "_glimpse", "_open", "lenient", "mailer", "plain")

    def __init__(self, parts: Parts, mail: Transaction, recipient: Mailbox) -> None:
        super().__init__(parts, mail, recipient)
        self.mailer = ""
        self._asked = False
        self._glimpse: Touch | None = None
        self._open: Facts | None = None
        self.plain = Verdict(None)
        self.lenient = False

    @property
    def pending(self) -> bool:
        """Whether the verdict waits for the score."""
        return self._open is not None

    @property
    def recipient(self) -> Mailbox:
        """Whom it is about."""
        return self._to

    def shares(self, other: ScoredJudgement) -> bool:
        """Whether one reply can be true of this and another pending recipient, whatever the score."""
        if self._open is None or other._open is None or (self.lenient and other.lenient):
            return True
        return (self._open.maybe, self._open.by_hand) == (other._open.maybe, other._open.by_hand)

    def verdict(self) -> Steps[Verdict]:
        """What the rules say; if it is `pending` then, what they would say without a score."""
        facts = self._known()._replace(score=None)
        return self._judged(facts, judge(self._parts.policy, facts))

    def scored(self, score: float | Unknown) -> Steps[Verdict]:
        """What the rules say of a pending one when its score is known, or cannot be."""
        facts, self._open = self._open, None
        assert facts is not None  # noqa: S101 (see `pending`)
        self._again()
        facts = facts._replace(score=score)
        return self._judged(facts, judge(self._parts.policy, facts))

    def unscored(self) -> Verdict:
        """What they say of a pending one that is not to wait."""
        self._open = None
        self._again()
        return self.plain

    def _again(self) -> None:
        """What follows has the store's timeout to itself."""
        self._calls, self.stored = 0, 0.0
        if self.touch is None:
            self.store_error, self._looked = "", False

    def _standing(self, awaited: Awaited, facts: Facts) -> Steps[Verdict | None]:
        """As in `Judgement`; where nothing but the score is open, the one without it, and it is pending."""
        if not awaited.score:
            return (yield from super()._standing(awaited, facts))
        standing = yield from self._unscanned(facts)
        if standing is None and not (awaited.spf or awaited.correspondent):
            self._open, standing = facts, self.plain
        return standing

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
            yield from self._look(plain)
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

    def _look(self, verdict: Verdict) -> Steps[None]:
        """See what an attempt by the network would mean."""
        client, sender = self.mail.client.source.listed, self.mail.sender.key
        call = self._parts.greylist.glance(client, sender, self._to.key, self._delay(verdict))
        try:
            self._glimpse = Touch.read((yield from self._call(call)))
        except StoreError as error:
            self.store_error = str(error)

    def greylist(self, verdict: Verdict) -> Steps[None]:
        """As `Judgement.greylist`, once."""
        if not self._asked:
            self._asked = True
            yield from super().greylist(verdict)
