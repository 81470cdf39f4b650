"""`twinmilter` by libmilter: twin_libmilter.py SPEC TERMS."""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parts.twinmilter import LISTS, Script, text_of, wanted

# By name: a type checker would take the folder milter/ of this project for it.
milter: Any = importlib.import_module("milter")
LEADING_SPACE = 0x100000
ANSWERS = {
    "continue": milter.CONTINUE,
    "reject": milter.REJECT,
    "tempfail": milter.TEMPFAIL,
    "discard": milter.DISCARD,
    "accept": milter.ACCEPT,
}
CALLBACKS = {"connect", "helo", "header", "eoh", "body", "eom", "abort", "close"}


def negotiate(ctx: Any, options: list[int]) -> int:
    """Ask for what is offered of what is wanted."""
    actions, steps, lists = wanted(sys.argv[2])
    if lists and options[0] & LISTS:
        for stage, names in lists.items():
            ctx.setsymlist(stage, names)
        actions |= LISTS
    options[0] &= actions
    options[1] &= steps
    options[2] = options[3] = 0
    # Nobody else puts it before a header's value then.
    ctx.setpriv(Script(ctx.getsymval, " " if options[1] & LEADING_SPACE else ""))
    return int(milter.CONTINUE)


def script(ctx: Any) -> Script:
    """The connection's script."""
    found: Script | None = ctx.getpriv()
    if found is None:
        found = Script(ctx.getsymval)
        ctx.setpriv(found)
    return found


def connect_texts(host: str, family: int, address: Any) -> list[str]:
    """The arguments of connect, as the protocol has them."""
    if address is None:
        return [host, "U", "", "0"]
    if isinstance(address, str):
        return [host, "L", address, "0"]
    return [host, "6" if family == socket.AF_INET6 else "4", address[0], str(address[1])]


def answer(ctx: Any, said: str, *more: str) -> int:
    """The value that a callback returns."""
    if more:
        ctx.setreply(said, more[0], *[line.replace("%", "%%") for line in more[1:]])
        said = "reject" if said[0] == "5" else "tempfail"
    return int(ANSWERS[said])


def callback(name: str) -> Callable[..., int]:
    """A callback that leaves all to the script."""

    def call(ctx: Any, *arguments: Any) -> int:
        texts = connect_texts(*arguments) if name == "connect" else [text_of(one) for one in arguments]
        one = script(ctx)
        said = one.call(name, *texts)
        if name == "eom":
            for made in one.edits():
                edit(ctx, *made)
        if name == "close":
            ctx.setpriv(None)
        return answer(ctx, *said)

    return call


def edit(ctx: Any, kind: str, *what: str) -> None:
    """Change the message."""
    space = script(ctx).space
    match kind, what:
        case "add", (name, value):
            ctx.addheader(name, space + value)
        case "insert", (index, name, value):
            ctx.addheader(name, space + value, int(index))
        case "change", (index, name, value):
            ctx.chgheader(name, int(index), value and space + value)
        case _:
            getattr(ctx, kind)(*what)


def main() -> None:
    """Serve."""
    for name in CALLBACKS:
        getattr(milter, f"set_{name}_callback")(callback(name))
    milter.set_envfrom_callback(callback("mail"))
    milter.set_envrcpt_callback(callback("rcpt"))
    milter.set_flags(0x1FF)
    milter.register("twin", negotiate=negotiate, data=callback("data"), unknown=callback("unknown"))
    milter.setconn(sys.argv[1])
    milter.opensocket(True)
    if sys.argv[1].startswith("unix:"):
        Path(sys.argv[1].removeprefix("unix:")).chmod(0o777)
    milter.main()


if __name__ == "__main__":
    main()
