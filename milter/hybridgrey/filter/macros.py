"""What an MTA says beside the commands: its macros, as a session reads them."""

from __future__ import annotations

from typing import Protocol

from hybridgrey import address


class Symbols(Protocol):
    """libmilter's context, as far as macros go."""

    def getsymval(self, name: str, /) -> object:
        """A macro's value; None if the MTA has not sent it. Raises UnicodeDecodeError."""


def said(ctx: Symbols, name: str) -> str | None:
    """A macro's value; None if the MTA has not sent it or it cannot be decoded. Empty is a value."""
    try:
        value = ctx.getsymval(name)
    except UnicodeDecodeError:
        return None
    return value if isinstance(value, str) else None


def macro(ctx: Symbols, name: str) -> str:
    """A macro's value, "" if the MTA has not sent it or it is not UTF-8."""
    return said(ctx, name) or ""


def is_postfix(ctx: Symbols) -> bool:
    """Whether the MTA is one whose macros are the address.

    Sendmail's {v} is a number; one that says nothing is not trusted so far.  No client has a say in it.
    """
    version = macro(ctx, "v")
    return bool(version) and not version[0].isdigit()


def is_set(ctx: Symbols, name: str) -> bool:
    """Whether the MTA has sent a value for a macro, in whatever encoding."""
    try:
        return bool(ctx.getsymval(name))
    except UnicodeDecodeError:
        return True


def verified(ctx: Symbols, name: str | None) -> str | None:
    """The client's host name, if the MTA has found that it leads back to the client's address."""
    if not name or name.startswith("[") or name.lower() == "unknown":
        return None
    resolve = macro(ctx, "{client_resolve}")
    # Postfix, which has checked, has no such macro; others might have left it out.
    verified = resolve == "OK" if resolve else is_postfix(ctx)
    return address.host(name) if verified else None
