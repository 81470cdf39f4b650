"""What the native engine has of a filter: the steps of its sessions."""

from __future__ import annotations

from typing import Protocol

from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.reply import Reply
from hybridgrey.filter.session import Context, Session
from hybridgrey.protocol.terms import Terms


class Served(Protocol):
    """As `filter.session.Sessions`."""

    terms: Terms

    def open(self, session: Session, /) -> None:
        """An MTA has connected."""
        ...

    def connect(self, session: Session, ctx: Context, name: str | None, where: str, /) -> None:
        """CONNECT."""
        ...

    def hello(self, session: Session, name: str, /) -> None:
        """HELO."""
        ...

    def mail(self, session: Session, ctx: Context, path: bytes, /) -> None:
        """MAIL."""
        ...

    def recipient(self, session: Session, ctx: Context, path: bytes, /) -> Steps[Reply | None]:
        """RCPT: the refusal, if any."""
        ...

    def header(self, session: Session, ctx: Context, field: str, value: bytes, /) -> None:
        """A header field that may be ours."""
        ...

    def scored(self, session: Session, ctx: Context, /) -> Steps[Reply | None]:
        """The end of a message whose score is wanted: the refusal, if any."""
        ...

    def abort(self, session: Session, /) -> None:
        """The end of a transaction before that of its message."""
        ...

    def end(self, session: Session, ctx: Context, /) -> Reply | None:
        """The end of a message: the refusal, if any."""
        ...

    def close(self, session: Session, /) -> None:
        """The client or the MTA has gone."""
        ...

    def failed(self, step: str, error: Exception, /) -> None:
        """A step has raised an exception."""
        ...
