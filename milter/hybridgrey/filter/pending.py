"""Recipients whose verdict waits for the score of the message, and the one reply that they share.

A recipient is *pending* where nothing but the score is open.  RCPT lets it go on, and the end of the message
answers for all.  So a recipient that cannot share that answer is not held:

- After one that was accepted for good, a pending one is greylisted at RCPT.  Where its score might do worse
  to it than that, it is to come alone: company must not save a mail from a rule that refuses by score.
- After a pending one, no recipient is accepted for good: it is to come alone.
- Two of whom the same score may refuse one and not the other come one after the other.

What is left for the end is a mix of accepted and greylisted: then the message is delayed, and the triplets of
all of them are written, so that the retry passes for all.

In observe mode nothing is refused, and each recipient is judged by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from hybridgrey.content.message import Envelope, Message
from hybridgrey.content.scanner import Scanned, Scanner
from hybridgrey.filter import macros
from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.reply import LATER, Reply, worded
from hybridgrey.filter.scored import ScoredJudgement
from hybridgrey.filter.transaction import Decision, Transaction
from hybridgrey.outcome import Reason
from hybridgrey.policy.conditions import Unknown

COMES_ALONE: Final = Reply("452", "4.5.3", "Too many recipients, please send to this one separately")
"""RFC 5321 section 4.5.3.1.10: the client sends the rest in a transaction of its own."""


class Screen(Protocol):
    """As `screen.Screen`."""

    def decide(self, judgement: ScoredJudgement, scanned: Scanned) -> Steps[Decision]:
        """The decision about a pending recipient."""

    def delay(self, judgement: ScoredJudgement) -> Steps[Decision]:
        """The decision about a pending recipient whose score is not to be known."""


class Pending:
    """Those of one transaction, and the message that is collected for their sake.

    `message` is None until there is one of them.  `scanned` is what came of the scan.
    """

    __slots__ = ("_accepted", "_enforced", "_scanner", "_screen", "message", "scanned", "waiting")

    def __init__(self, screen: Screen, scanner: Scanner, *, enforced: bool) -> None:
        """`enforced`: False in observe mode."""
        self._screen = screen
        self._scanner = scanner
        self._enforced = enforced
        self._accepted = False
        self.message: Message | None = None
        self.scanned: Scanned | None = None
        self.waiting: list[ScoredJudgement] = []

    @property
    def score(self) -> float | None:
        """The score of the message, if it has been asked for and is known."""
        scanned = self.scanned
        return None if scanned is None or isinstance(scanned.score, Unknown) else scanned.score

    def admit(self, found: Decision | ScoredJudgement) -> Steps[Decision | None]:
        """What becomes of a recipient now, with those before it in mind; None: it is pending."""
        if isinstance(found, ScoredJudgement):
            return (yield from self._hold(found))
        if found.reply is None and self._enforced:
            if self.waiting:
                return found._replace(reply=COMES_ALONE, deferred=Reason.ALONE)
            self._accepted = True
        return found

    def _hold(self, judgement: ScoredJudgement) -> Steps[Decision | None]:
        lenient = judgement.lenient
        if self._enforced and self._accepted and lenient:
            return (yield from self._screen.delay(judgement))
        if self._enforced and (self._accepted or not all(map(judgement.shares, self.waiting))):
            return Decision(judgement.plain, COMES_ALONE, deferred=Reason.ALONE)
        if self.message is None:
            self.message = self._scanner.message()
        self.waiting.append(judgement)
        return None

    def finish(self, envelope: Envelope) -> Steps[list[Decision]]:
        """The message is there: what becomes of each of them, in their order."""
        message = self.message or self._scanner.message()
        scanned = self.scanned = yield from self._scanner.scan(envelope, message)
        decisions: list[Decision] = []
        for judgement in self.waiting:
            decisions.append((yield from self._screen.decide(judgement, scanned)))
        if not self._enforced or not _differ(decisions):
            return decisions
        for at, judgement in enumerate(self.waiting):
            if decisions[at].touch is None and decisions[at].reply is None:
                delayed = yield from self._screen.delay(judgement)
                decisions[at] = delayed._replace(scanned=scanned)
        reply = next((one for one in _replies(decisions) if one.code[0] == "4"), worded("451", LATER))
        return [one if _is_delayed(one) else _put_off(one, reply) for one in decisions]

    def unfinished(self) -> Iterator[tuple[ScoredJudgement, Decision]]:
        """The message will never come to its end."""
        for judgement in self.waiting:
            yield judgement, Decision(judgement.plain, deferred=Reason.UNFINISHED)


def common(decisions: Sequence[Decision]) -> Reply | None:
    """The reply for the message, None if it passes."""
    return next(_replies(decisions), None)


def _replies(decisions: Sequence[Decision]) -> Iterator[Reply]:
    return (one.reply for one in decisions if one.reply is not None)


def _differ(decisions: Sequence[Decision]) -> bool:
    """Whether one reply cannot be true of all."""
    return len({"" if one.reply is None else one.reply.code[0] for one in decisions}) > 1


def _is_delayed(decision: Decision) -> bool:
    return decision.reply is not None and decision.reply.code[0] == "4"


def _put_off(decision: Decision, reply: Reply) -> Decision:
    """It gets what another one's mail has to get."""
    return decision._replace(reply=reply, deferred=Reason.TOGETHER)


def described(ctx: macros.Symbols, mail: Transaction, recipients: tuple[str, ...], name: str) -> Envelope:
    """What the dialogue has said, for a scanner; `name` is this host's."""
    client = mail.client
    login = macros.macro(ctx, "{auth_authen}") or "unknown" if mail.authenticated else ""
    return Envelope(
        client.address,
        client.host,
        mail.helo,
        mail.sender.text,
        recipients,
        login,
        bool(macros.macro(ctx, "{tls_version}")),
        name,
        macros.macro(ctx, "v"),
        macros.macro(ctx, "i"),
        time.time(),
    )
