"""The filter by libmilter: its callbacks, each a step of a session.

Uses the C module ``milter`` directly; the package ``Milter`` costs twice the CPU.  Each callback runs in a
thread that may wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import milter
from hybridgrey.filter import forged
from hybridgrey.filter.blocking import Blocking
from hybridgrey.filter.headers import NAME
from hybridgrey.filter.reply import Reply
from hybridgrey.filter.session import Session, Sessions
from hybridgrey.protocol import wire

if TYPE_CHECKING:
    Context: TypeAlias = milter.milterContext


class _Session(Session):
    """A session, the steps that its MTA leaves out or wants no reply for, and whether headers may change."""

    __slots__ = ("changes", "flags")

    def __init__(self, flags: int, *, changes: bool) -> None:
        super().__init__()
        self.flags = flags
        self.changes = changes

    def answer(self, silent: int) -> int:
        """What a step returns that needs no reply: none, if the MTA has agreed to do without."""
        return milter.NOREPLY if self.flags & silent else milter.CONTINUE


class Engine:
    """The callbacks of one worker."""

    def __init__(self, sessions: Sessions, blocking: Blocking) -> None:
        self._sessions = sessions
        self._blocking = blocking
        self._terms = sessions.terms

    def register(self) -> None:
        """Make the callbacks known to libmilter; call after `milter.setconn`, before `milter.main`."""
        actions = self._terms.actions
        milter.set_exception_policy(milter.CONTINUE)
        milter.set_flags(actions)
        milter.set_connect_callback(self._guarded(self.connect, wire.SILENT_CONNECT))
        milter.set_helo_callback(self._guarded(self.hello, wire.SILENT_HELO))
        milter.set_envfrom_callback(self._guarded(self.envfrom, wire.SILENT_MAIL))
        milter.set_envrcpt_callback(self._guarded(self.envrcpt, 0))
        if not self._terms.steps & wire.NO_HEADERS:
            milter.set_header_callback(self._passing_over(self._guarded(self.header, wire.SILENT_HEADER)))
        if not self._terms.steps & wire.NO_BODY:
            milter.set_body_callback(self._guarded(self.body, 0))
            milter.set_abort_callback(self._guarded(self.abort, 0))
        if self._sessions.wants_end:
            milter.set_eom_callback(self._guarded(self.eom, 0))
        milter.set_close_callback(self._guarded(self.close, 0))
        milter.register(NAME, negotiate=self._guarded(self.negotiate, 0))

    def _guarded(self, callback: Callable[..., int], silent: int) -> Callable[..., int]:
        """The callback, with any error in it told and answered by passing the mail on."""

        def guard(ctx: Context, *args: object) -> int:
            try:
                return callback(ctx, *args)
            except Exception as e:
                self._sessions.failed(callback.__name__, e)
                session = _session_of(ctx)
                return session.answer(silent) if session is not None else milter.CONTINUE

        return guard

    def negotiate(self, ctx: Context, options: list[int]) -> int:
        """Agree with the MTA on actions and steps (libmilter xxfi_negotiate)."""
        terms = self._terms
        actions = options[0] & terms.actions
        wanted = terms.wanted(actions)
        changes = bool(actions & wire.CHANGE_HEADERS)
        if actions & wire.SET_MACRO_LISTS:
            for stage, names in terms.macros.items():
                ctx.setsymlist(stage, names)
        flags = options[1] & wanted
        options[0] = actions
        options[1] = flags
        options[2] = options[3] = 0
        # Headers that an MTA sends all the same are not for us.
        self._open(ctx, flags | wanted & wire.NO_HEADERS, changes=changes)
        return milter.CONTINUE

    def _session(self, ctx: Context) -> _Session:
        # After QUIT_NC an MTA goes on with a new client without a new negotiation.
        return _session_of(ctx) or self._open(ctx)

    def _open(self, ctx: Context, flags: int = 0, *, changes: bool | None = None) -> _Session:
        if changes is None:
            changes = bool(self._terms.actions & wire.CHANGE_HEADERS)
        session = _Session(flags, changes=changes)
        ctx.setpriv(session)
        self._sessions.open(session)
        return session

    def connect(self, ctx: Context, name: str, _family: int, where: object) -> int:
        """A client has connected to the MTA."""
        session = self._session(ctx)
        where = where[0] if isinstance(where, tuple) else where
        self._sessions.connect(session, ctx, name, where if isinstance(where, str) else "unknown")
        return session.answer(wire.SILENT_CONNECT)

    def hello(self, ctx: Context, name: str) -> int:
        """The client's HELO or EHLO."""
        session = self._session(ctx)
        self._sessions.hello(session, name)
        return session.answer(wire.SILENT_HELO)

    def envfrom(self, ctx: Context, path: bytes, *_parameters: bytes) -> int:
        """MAIL FROM."""
        session = self._session(ctx)
        self._sessions.mail(session, ctx, path)
        return session.answer(wire.SILENT_MAIL)

    def envrcpt(self, ctx: Context, path: bytes, *_parameters: bytes) -> int:
        """RCPT TO."""
        reply = self._blocking.run(self._sessions.recipient(self._session(ctx), ctx, path))
        return milter.CONTINUE if reply is None else _refuse(ctx, reply)

    @staticmethod
    def _passing_over(header: Callable[..., int]) -> Callable[..., int]:
        """The callback for header fields, which come by the dozen, called for those only that may be ours."""

        def pass_over(ctx: Context, field: str, value: bytes) -> int:
            session = _session_of(ctx)
            if field.lower() in forged.FIELDS or session is None or session.message is not None:
                return header(ctx, field, value)
            return session.answer(wire.SILENT_HEADER)

        return pass_over

    def header(self, ctx: Context, field: str, value: bytes) -> int:
        """A header field."""
        session = self._session(ctx)
        if session.message is not None:
            session.message.header(field.encode("utf-8", "surrogateescape"), value)
        if session.changes and field.lower() in forged.FIELDS:
            self._sessions.header(session, ctx, field, value)
        return session.answer(wire.SILENT_HEADER)

    def body(self, ctx: Context, chunk: bytes) -> int:
        """The next piece of the body; it is skipped where the MTA can, once nobody wants it."""
        session = self._session(ctx)
        if session.message is not None and session.message.body(chunk):
            return milter.CONTINUE
        return milter.SKIP if session.flags & wire.CAN_SKIP else milter.CONTINUE

    def eom(self, ctx: Context) -> int:
        """End of message."""
        session = _session_of(ctx)
        if session is None:
            return milter.CONTINUE
        reply = None
        if session.message is not None:
            reply = self._blocking.run(self._sessions.scored(session, ctx))
        if reply is None:
            reply = self._sessions.end(session, ctx)
        return milter.CONTINUE if reply is None else _refuse(ctx, reply)

    def abort(self, ctx: Context) -> int:
        """The transaction is over before its end."""
        session = _session_of(ctx)
        if session is not None:
            self._sessions.abort(session)
        return milter.CONTINUE

    def close(self, ctx: Context) -> int:
        """The client or the MTA has gone."""
        session = _session_of(ctx)
        if session is not None:
            ctx.setpriv(None)
            self._sessions.close(session)
        return milter.CONTINUE


def _session_of(ctx: Context) -> _Session | None:
    session = ctx.getpriv()
    return session if isinstance(session, _Session) else None


def _refuse(ctx: Context, reply: Reply) -> int:
    # libmilter takes the text for a format: a lone "%" is an error.
    ctx.setreply(reply.code, reply.enhanced, reply.text.replace("%", "%%"))
    return milter.REJECT if reply.code[0] == "5" else milter.TEMPFAIL
