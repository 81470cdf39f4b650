"""Milter callbacks to `screen` and back, and one reply and one event for each recipient.

Uses the C module ``milter`` directly; the package ``Milter`` costs twice the CPU.  Only steps that something
needs are negotiated: CONNECT, MAIL and headers without a reply, RCPT, end of message, and HELO where a rule
or the log wants the name.  A recipient passes with CONTINUE: ACCEPT at RCPT would end the filtering of the
whole message (Postfix src/milter/milter8.c), and the next recipient would skip its judgement.

With Sendmail the host name at CONNECT may be forged; it counts as verified only if ``{client_resolve}`` is
OK.  Postfix has no such macro and passes ``unknown`` for what it could not verify.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import milter
from hybridgrey import envelope
from hybridgrey.config.load import Config
from hybridgrey.filter import forged, macros
from hybridgrey.filter.followup import Events, Judged
from hybridgrey.filter.headers import NAME, TOO_MANY, Headers
from hybridgrey.filter.screen import Client, Decision, Reply, Screen, plain
from hybridgrey.greylist.triplets import State
from hybridgrey.trouble.reporter import Report

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

Context: TypeAlias = "milter.milterContext"

_CONNECT_MACROS = "j v {client_addr} {client_resolve}"
_MAIL_MACROS = "{auth_authen} {mail_addr}"
_RCPT_MACROS = "i {rcpt_addr} {rcpt_mailer}"
# Steps that no rule, header or log line needs.
_UNUSED_STEPS = milter.P_NODATA | milter.P_NOEOH | milter.P_NOBODY | milter.P_NOUNKNOWN
# Not CONNECT: Postfix sends what has no reply only together with the next step that has one, which would be
# RCPT, and the lists would be asked no sooner.
_SILENT_STEPS = milter.P_NR_HELO | milter.P_NR_MAIL | milter.P_NR_HDR


class Session:
    """One connection of an MTA: a client, and its current mail transaction."""

    __slots__ = (
        "authenticated",
        "client",
        "delay",
        "dnswl",
        "flags",
        "helo",
        "postfix",
        "sender",
        "tally",
        "transaction",
    )

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.client: Client | None = None
        self.helo: str | None = None
        self.postfix = False
        self.reset()

    def reset(self) -> None:
        """Forget the transaction; the client stays."""
        self.sender = envelope.NULL
        self.authenticated = False
        # The rules that may hold in it; None until MAIL.
        self.transaction: int | None = None
        self.delay = 0
        self.dnswl: dict[str, None] = {}
        self.tally: forged.Tally | None = None

    def answer(self, silent: int) -> int:
        """What a step returns that needs no reply: none, if the MTA has agreed to do without."""
        return milter.NOREPLY if self.flags & silent else milter.CONTINUE


class Milter:
    """The callbacks of one worker.

    There is none for the end of a transaction (xxfi_abort): the next one begins with MAIL, which forgets.
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
    ) -> None:
        """`store_well`: whether no part of the store is given up; asked after a failure."""
        self._screen = screen
        self._log = log
        self._events = events
        self._reports = reports
        self._store_well = store_well
        self._store_failed = False
        self._observe = config.observe
        self._hostname = config.hostname
        # Postfix sends the macros of DATA even to who has negotiated DATA away: a small write without an
        # answer.  Over TCP its next write, the end of the message, then waits for our delayed acknowledgement
        # (Nagle), 40 ms.  The answer to DATA carries the acknowledgement; libmilter gives it without us.
        self._over_tcp = config.address.family != "unix"
        self._headers = Headers(config, log)
        self._actions = milter.ADDHDRS if self._headers.adds else 0
        self._actions |= milter.CHGHDRS if self._headers.removes else 0
        self._names_helo = screen.policy.needs_helo or events.told
        self._sessions: set[Session] = set()

    @property
    def live(self) -> int:
        """Open sessions."""
        return len(self._sessions)

    def register(self) -> None:
        """Make the callbacks known to libmilter; call after `milter.setconn`, before `milter.main`."""
        milter.set_exception_policy(milter.CONTINUE)
        milter.set_flags(self._actions | milter.SETSYMLIST)
        milter.set_connect_callback(self._guarded(self.connect, milter.P_NR_CONN))
        milter.set_helo_callback(self._guarded(self.hello, milter.P_NR_HELO))
        milter.set_envfrom_callback(self._guarded(self.envfrom, milter.P_NR_MAIL))
        milter.set_envrcpt_callback(self._guarded(self.envrcpt, 0))
        if self._headers.removes:
            milter.set_header_callback(self._passing_over(self._guarded(self.header, milter.P_NR_HDR)))
        if self._actions:
            milter.set_eom_callback(self._guarded(self.eom, 0))
        milter.set_close_callback(self._guarded(self.close, 0))
        milter.register(NAME, negotiate=self._guarded(self.negotiate, 0))

    def _guarded(self, callback: Callable[..., int], silent: int) -> Callable[..., int]:
        """The callback, with any error in it told and answered by passing the mail on."""

        def guard(ctx: Context, *args: object) -> int:
            try:
                return callback(ctx, *args)
            except Exception as e:
                self._reports.failing("callback", step=callback.__name__, error=repr(e))
                self._log.error("callback failed", step=callback.__name__, exc_info=True)
                session = _session_of(ctx)
                return session.answer(silent) if session is not None else milter.CONTINUE

        return guard

    def negotiate(self, ctx: Context, options: list[int]) -> int:
        """Agree with the MTA on actions and steps (libmilter xxfi_negotiate)."""
        actions, steps = options[0], options[1]
        unused = _UNUSED_STEPS
        if self._over_tcp:
            unused &= ~milter.P_NODATA
        if not self._names_helo:
            unused |= milter.P_NOHELO
        if not actions & self._actions & milter.CHGHDRS:
            unused |= milter.P_NOHDRS
        flags = steps & (unused | _SILENT_STEPS)
        if actions & milter.SETSYMLIST:
            ctx.setsymlist(milter.M_CONNECT, _CONNECT_MACROS)
            ctx.setsymlist(milter.M_ENVFROM, _MAIL_MACROS)
            ctx.setsymlist(milter.M_ENVRCPT, _RCPT_MACROS)
        options[0] = actions & (self._actions | milter.SETSYMLIST)
        options[1] = flags
        options[2] = options[3] = 0
        # Headers that an MTA sends all the same are not for us.
        self._open(ctx, flags | unused & milter.P_NOHDRS)
        return milter.CONTINUE

    def _session(self, ctx: Context) -> Session:
        # After QUIT_NC an MTA goes on with a new client without a new negotiation.
        return _session_of(ctx) or self._open(ctx)

    def _open(self, ctx: Context, flags: int = 0) -> Session:
        session = Session(flags)
        ctx.setpriv(session)
        self._sessions.add(session)
        self._events.opened(self.live)
        return session

    def connect(self, ctx: Context, name: str, _family: int, where: object) -> int:
        """A client has connected to the MTA: ask the lists about it."""
        session = self._session(ctx)
        where = where[0] if isinstance(where, tuple) else where
        self._begin(ctx, session, where if isinstance(where, str) else "unknown", name)
        return session.answer(milter.P_NR_CONN)

    def _begin(self, ctx: Context, session: Session, where: str, name: str | None) -> Client:
        if session.client is not None:
            self._leave(session.client)
        session.reset()
        session.helo = None
        session.postfix = macros.is_postfix(ctx)
        session.client = self._screen.connect(where, macros.verified(ctx, name))
        return session.client

    def _leave(self, client: Client) -> None:
        client.close()
        self._events.left(client)

    def hello(self, ctx: Context, name: str) -> int:
        """The client's HELO or EHLO."""
        session = self._session(ctx)
        session.helo = name
        return session.answer(milter.P_NR_HELO)

    def envfrom(self, ctx: Context, path: bytes, *_parameters: bytes) -> int:
        """MAIL FROM: the beginning of a transaction."""
        session = self._session(ctx)
        client = self._renewed(session, session.client or self._recovered(ctx, session))
        session.reset()
        session.sender = envelope.delivered(path, macros.said(ctx, "{mail_addr}"), final=session.postfix)
        session.authenticated = macros.is_set(ctx, "{auth_authen}")
        session.transaction = self._transaction(client, session)
        return session.answer(milter.P_NR_MAIL)

    def _renewed(self, session: Session, client: Client) -> Client:
        """The client, its lists asked again if what they said is too old for another transaction."""
        fresh = self._screen.renew(client)
        if fresh is not client:
            session.client = fresh
            self._leave(client)
        return fresh

    def _transaction(self, client: Client, session: Session) -> int:
        return self._screen.policy.transaction(
            client.facts.maybe, session.helo, session.sender, authenticated=session.authenticated
        )

    def _recovered(self, ctx: Context, session: Session) -> Client:
        """The client whose CONNECT was lost: pymilter cannot pass on a host name that is not UTF-8."""
        helo = session.helo
        client = self._begin(ctx, session, macros.macro(ctx, "{client_addr}"), None)
        session.helo = helo
        return client

    def envrcpt(self, ctx: Context, path: bytes, *_parameters: bytes) -> int:
        """RCPT TO: the verdict."""
        session = self._session(ctx)
        client = session.client or self._recovered(ctx, session)
        said, mailer = macros.said(ctx, "{rcpt_addr}"), macros.macro(ctx, "{rcpt_mailer}")
        recipient = envelope.delivered(path, said, mailer, final=session.postfix)
        if session.transaction is None:
            # No MTA sends RCPT without MAIL; if one did, no rule must be evaded by it.
            session.transaction = self._transaction(client, session)
        decision = self._screen.judge(client, session.transaction, session.sender, recipient)
        # As they are now: a late answer has had no vote.
        answers = client.lookup.answers.copy() if client.lookup is not None else {}
        queue_id = macros.macro(ctx, "i") if self._events.told else ""
        self._events.judged(
            Judged(time.time(), client, answers, queue_id, session.helo, session.sender, recipient, decision),
            self.live,
        )
        if decision.store_error:
            self._store_failed = True
            self._reports.failing("store", error=decision.store_error)
        elif self._store_failed and decision.touch is not None and self._store_well():
            # One shard that serves says nothing of another that does not.
            self._store_failed = False
            self._reports.recovered("store")
        if decision.reply is None or self._observe:
            self._note(session, decision)
            return milter.CONTINUE
        return _refuse(ctx, decision.reply)

    def _note(self, session: Session, decision: Decision) -> None:
        """Remember what the message's headers are to say."""
        if decision.touch is not None and decision.touch.state is State.PASSED and not self._observe:
            session.delay = max(session.delay, decision.touch.age)
        if self._headers.adds_results:
            session.dnswl.update(dict.fromkeys(self._screen.dnswl(decision.verdict)))

    def _name(self, ctx: Context) -> str:
        return plain(self._hostname or macros.macro(ctx, "j") or socket.gethostname())

    @staticmethod
    def _passing_over(header: Callable[..., int]) -> Callable[..., int]:
        """The callback for header fields, which come by the dozen, called for those only that may be ours."""

        def pass_over(ctx: Context, field: str, value: bytes) -> int:
            if field.lower() in forged.FIELDS or (session := _session_of(ctx)) is None:
                return header(ctx, field, value)
            return milter.NOREPLY if session.flags & milter.P_NR_HDR else milter.CONTINUE

        return pass_over

    def header(self, ctx: Context, field: str, value: bytes) -> int:
        """A header field of the message that may be ours; its value as it came, folds and all."""
        session = self._session(ctx)
        if not session.flags & milter.P_NOHDRS:
            if session.tally is None:
                session.tally = forged.Tally()
            session.tally.note(field.lower(), value, self._name(ctx))
        return session.answer(milter.P_NR_HDR)

    def eom(self, ctx: Context) -> int:
        """End of message: the only step at which headers can be added and taken out."""
        session = _session_of(ctx)
        if session is None:
            return milter.CONTINUE
        tally = session.tally
        if tally is not None and tally.count and not self._headers.remove(ctx, tally, macros.macro(ctx, "i")):
            return _refuse(ctx, TOO_MANY)
        if session.delay or session.dnswl:
            self._headers.add(ctx, self._name(ctx), session.delay, session.dnswl)
        session.reset()
        return milter.CONTINUE

    def close(self, ctx: Context) -> int:
        """The client or the MTA has gone."""
        session = _session_of(ctx)
        if session is not None:
            ctx.setpriv(None)
            self._sessions.discard(session)
            if session.client is not None:
                self._leave(session.client)
            self._events.closed(self.live)
        return milter.CONTINUE


def _session_of(ctx: Context) -> Session | None:
    session = ctx.getpriv()
    return session if isinstance(session, Session) else None


def _refuse(ctx: Context, reply: Reply) -> int:
    # libmilter takes the text for a format: a lone "%" is an error.
    ctx.setreply(reply.code, reply.enhanced, reply.text.replace("%", "%%"))
    return milter.REJECT if reply.code[0] == "5" else milter.TEMPFAIL
