"""One connection of an MTA, whatever engine speaks the protocol: its steps, and one reply for each recipient.

An engine gives each step a `Session`, its own private data, and a `Context`, by which the step asks the MTA
for macros and has it change headers.  The verdict about a recipient is a generator, which yields what it
waits for (see `awaited`); all other steps are over at once.

Only steps that something needs are in `terms`: CONNECT, MAIL and headers without a reply, RCPT, end of
message, HELO where a rule or the log wants the name, and the body where a rule wants its score.  A recipient
passes with "continue": "accept" at RCPT would end the filtering of the whole message (Postfix
src/milter/milter8.c), and the next recipient would skip its judgement.

With Sendmail the host name at CONNECT may be forged; it counts as verified only if ``{client_resolve}`` is
OK.  Postfix has no such macro and passes ``unknown`` for what it could not verify.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from hybridgrey import envelope
from hybridgrey.config.load import Config
from hybridgrey.content.message import Message
from hybridgrey.envelope import Mailbox
from hybridgrey.filter import forged, macros
from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.followup import Events, Judged
from hybridgrey.filter.headers import TOO_MANY, Fields, Headers
from hybridgrey.filter.learning import Learner
from hybridgrey.filter.pending import Pending, common, described
from hybridgrey.filter.reply import Reply, printable
from hybridgrey.filter.scored import ScoredJudgement
from hybridgrey.filter.screen import Client, Decision, Screen, Transaction
from hybridgrey.outcome import Reason
from hybridgrey.protocol import wire
from hybridgrey.protocol.terms import Terms
from hybridgrey.trouble.reporter import Report

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_MACROS: Final = {
    wire.Stage.CONNECT: "j v {client_addr} {client_resolve}",
    wire.Stage.MAIL: "{auth_authen} {mail_addr}",
    wire.Stage.RCPT: "i {rcpt_addr} {rcpt_mailer}",
}
# Steps that no rule, header or log line needs.
_UNUSED: Final = wire.NO_DATA | wire.NO_END_OF_HEADERS | wire.NO_BODY | wire.NO_UNKNOWN
# What a scanner is to know of the dialogue is in the ``Received`` line.
_MACROS_OF_MESSAGE: Final = _MACROS | {wire.Stage.MAIL: "{auth_authen} {mail_addr} {tls_version}"}
_OF_MESSAGE: Final = wire.NO_HELO | wire.NO_HEADERS | wire.NO_BODY
# Not CONNECT: Postfix sends what has no reply only together with the next step that has one, which would be
# RCPT, and the lists would be asked no sooner.
_SILENT: Final = wire.SILENT_HELO | wire.SILENT_MAIL | wire.SILENT_HEADER


class Context(macros.Symbols, Fields, Protocol):
    """What an engine lets a step ask of the MTA: macros, and changes of the header at the end."""


class Session:
    """A client of the MTA's, and its current mail transaction."""

    __slots__ = ("client", "helo", "pending", "postfix", "tally", "transaction")

    def __init__(self) -> None:
        self.client: Client | None = None
        self.helo: str | None = None
        self.postfix = False
        self.transaction: Transaction | None = None
        self.tally: forged.Tally | None = None
        self.pending: Pending | None = None

    @property
    def message(self) -> Message | None:
        """What is collected of the message, if its score is wanted."""
        return self.pending.message if self.pending is not None else None

    def reset(self) -> None:
        """Forget the transaction; the client stays."""
        if self.transaction is not None:
            self.transaction.close()
        self.transaction = None
        self.tally = None
        self.pending = None


class Sessions:
    """The sessions of one worker.

    There is no step for the end of a transaction: the next one begins with MAIL, which forgets.
    """

    def __init__(
        self,
        screen: Screen,
        config: Config,
        *,
        log: FilteringBoundLogger,
        events: Events,
        reports: Report,
        store_well: Callable[[], bool],
        learner: Learner | None = None,
    ) -> None:
        """`store_well`: whether no part of the store is given up; asked after a failure.

        `learner` remembers correspondents; None where no rule learns.
        """
        self._screen = screen
        self._log = log
        self._events = events
        self._reports = reports
        self._store_well = store_well
        self._store_failed = False
        self._learner = learner
        self._observe = config.observe
        self._hostname = config.hostname
        self._headers = Headers(config, log)
        self._live: set[Session] = set()
        self.terms = self._terms(config)
        """What is wanted of an MTA."""

    def _terms(self, config: Config) -> Terms:
        steps = _UNUSED | _SILENT
        # Postfix sends the macros of DATA even to who has negotiated DATA away: a small write without an
        # answer.  Over TCP its next write, the end of the message, then waits for our delayed acknowledgement
        # (Nagle), 40 ms.  The answer to DATA carries the acknowledgement; engines give it without us.
        if config.address.family != "unix":
            steps &= ~wire.NO_DATA
        if not (self._screen.policy.needs_helo or self._events.told):
            steps |= wire.NO_HELO
        if not self._headers.removes:
            steps |= wire.NO_HEADERS
        # Our fields are looked for only where they can be taken out.
        if_fixed = wire.NO_HEADERS
        if self._screen.scanner is not None:
            steps, if_fixed = steps & ~_OF_MESSAGE | wire.CAN_SKIP, 0
        actions = wire.ADD_HEADERS if self._headers.adds else 0
        actions |= wire.CHANGE_HEADERS if self._headers.removes else 0
        told = _MACROS if self._screen.scanner is None else _MACROS_OF_MESSAGE
        return Terms(actions=actions, steps=steps, if_fixed=if_fixed, macros=told)

    @property
    def wants_end(self) -> bool:
        """Whether anything is done at the end of a message."""
        changes = self._headers.adds or self._headers.removes
        return self._learner is not None or changes or self._screen.scanner is not None

    @property
    def live(self) -> int:
        """Open sessions."""
        return len(self._live)

    def open(self, session: Session) -> None:
        """An MTA has connected."""
        self._live.add(session)
        self._events.opened(self.live)

    def close(self, session: Session) -> None:
        """The client or the MTA has gone; of what was awaited nothing follows."""
        self._live.discard(session)
        self._forget(session)
        if session.client is not None:
            self._leave(session.client)
        self._events.closed(self.live)

    def failed(self, step: str, error: Exception) -> None:
        """A step has failed, which is a bug: told, and to be answered by passing the mail on."""
        self._reports.failing("callback", step=step, error=repr(error))
        self._log.error("callback failed", step=step, exc_info=error)

    def connect(self, session: Session, ctx: Context, name: str | None, where: str) -> None:
        """A client has connected to the MTA: ask the lists about it."""
        self._begin(session, ctx, name, where)

    def _begin(self, session: Session, ctx: Context, name: str | None, where: str) -> Client:
        self._forget(session)
        if session.client is not None:
            self._leave(session.client)
        session.helo = None
        session.postfix = macros.is_postfix(ctx)
        session.client = self._screen.connect(where, macros.verified(ctx, name))
        return session.client

    def _recovered(self, session: Session, ctx: Context) -> Client:
        """The client whose CONNECT was lost: pymilter cannot pass on a host name that is not UTF-8."""
        helo = session.helo
        client = self._begin(session, ctx, None, macros.macro(ctx, "{client_addr}"))
        session.helo = helo
        return client

    def _leave(self, client: Client) -> None:
        client.close()
        self._events.left(client)

    @staticmethod
    def hello(session: Session, name: str) -> None:
        """The client's HELO or EHLO."""
        session.helo = name

    def mail(self, session: Session, ctx: Context, path: bytes) -> None:
        """MAIL FROM: the beginning of a transaction."""
        self._forget(session)
        client = self._renewed(session, session.client or self._recovered(session, ctx))
        sender = envelope.delivered(path, macros.said(ctx, "{mail_addr}"), final=session.postfix)
        login = macros.is_set(ctx, "{auth_authen}")
        session.transaction = mail = self._screen.mail(client, session.helo, sender, authenticated=login)
        if self._screen.scanner is not None:
            mail.scans = True
            session.pending = Pending(self._screen, self._screen.scanner, enforced=not self._observe)

    def _renewed(self, session: Session, client: Client) -> Client:
        """The client, its lists asked again if what they said is too old for another transaction."""
        fresh = self._screen.renew(client)
        if fresh is not client:
            session.client = fresh
            self._leave(client)
        return fresh

    def recipient(self, session: Session, ctx: Context, path: bytes) -> Steps[Reply | None]:
        """RCPT TO: the refusal, or None if it passes."""
        client = session.client or self._recovered(session, ctx)
        said, mailer = macros.said(ctx, "{rcpt_addr}"), macros.macro(ctx, "{rcpt_mailer}")
        recipient = envelope.delivered(path, said, mailer, final=session.postfix)
        mail = session.transaction
        if mail is None:
            # No MTA sends RCPT without MAIL; if one did, no rule must be evaded by it.
            mail = self._screen.mail(client, session.helo, envelope.NULL, authenticated=False)
            session.transaction = mail
        judged = yield from self._screen.judge(mail, recipient)
        pending = session.pending
        decision = judged if pending is None else (yield from pending.admit(judged))
        if isinstance(judged, ScoredJudgement):
            judged.mailer = mailer
        if not isinstance(decision, Decision):
            return None
        self._told(ctx, mail, recipient, decision, mailer)
        return decision.reply if not self._observe else None

    def _told(
        self, ctx: Context | None, mail: Transaction, recipient: Mailbox, decision: Decision, mailer: str
    ) -> None:
        """What follows a decision."""
        client = mail.client
        # As they are now: a late answer has had no vote.
        answers = client.lookup.answers.copy() if client.lookup is not None else {}
        queue_id = macros.macro(ctx, "i") if ctx is not None and self._events.told else ""
        self._events.judged(
            Judged(time.time(), client, answers, queue_id, mail.helo, mail.sender, recipient, decision),
            self.live,
        )
        if decision.store_error or self._store_failed:
            self._heed_store(decision)
        passes = decision.reply is None or self._observe
        if not passes or decision.deferred is Reason.UNFINISHED:
            return
        results = self._screen.dnswl(decision.verdict) if self._headers.adds_results else ()
        mail.passes(None if self._observe else decision.touch, results)
        if self._learner is not None and (rule := decision.verdict.rule) is not None and rule.learn:
            self._learner.note(mail, recipient, mailer)

    def _heed_store(self, decision: Decision) -> None:
        """Tell of a store that fails, or that is back."""
        if decision.store_error:
            self._store_failed = True
            self._reports.failing("store", error=decision.store_error)
        elif decision.touch is not None and self._store_well():
            # One shard that serves says nothing of another that does not.
            self._store_failed = False
            self._reports.recovered("store")

    def header(self, session: Session, ctx: Context, field: str, value: bytes) -> None:
        """A header field of the message that may be ours; its value as it came, folds and all."""
        if session.tally is None:
            session.tally = forged.Tally()
        session.tally.note(field.lower(), value, self._name(ctx))

    def scored(self, session: Session, ctx: Context) -> Steps[Reply | None]:
        """The end of a message whose score is wanted, before `end`: the refusal, or None if it passes."""
        pending, mail = session.pending, session.transaction
        if pending is None or mail is None or not pending.waiting:
            return None
        to = tuple(one.recipient.text for one in pending.waiting)
        decisions = yield from pending.finish(described(ctx, mail, to, self._name(ctx)))
        waiting, pending.waiting = pending.waiting, []
        for judgement, decision in zip(waiting, decisions, strict=True):
            self._told(ctx, mail, judgement.recipient, decision, judgement.mailer)
        reply = common(decisions)
        if reply is None or self._observe:
            return None
        session.reset()
        return reply

    def abort(self, session: Session) -> None:
        """The transaction is over before its end."""
        self._forget(session)

    def _forget(self, session: Session) -> None:
        """Forget the transaction; of recipients that were pending it is told that it came to nothing."""
        pending, mail = session.pending, session.transaction
        if pending is not None and mail is not None:
            for judgement, decision in pending.unfinished():
                self._told(None, mail, judgement.recipient, decision, judgement.mailer)
        session.reset()

    def end(self, session: Session, ctx: Context) -> Reply | None:
        """End of message, the only step at which headers change: a refusal, or None if it passes."""
        tally, mail = session.tally, session.transaction
        if tally is not None and tally.count and not self._headers.remove(ctx, tally, macros.macro(ctx, "i")):
            return TOO_MANY
        score = session.pending.score if session.pending is not None else None
        if mail is not None and (mail.delay or mail.results or score is not None):
            self._headers.add(ctx, self._name(ctx), mail.delay, mail.results, score)
        if mail is not None and self._learner is not None:
            self._learner.learn(mail)
        session.reset()
        return None

    def _name(self, ctx: Context) -> str:
        return printable(self._hostname or macros.macro(ctx, "j") or socket.gethostname())
