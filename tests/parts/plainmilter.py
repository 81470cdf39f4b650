"""A milter of a few lines, to show that an MTA, or the rig's own milter client, does its part.

It writes each callback with its arguments and macros as one JSON line to the log, answers RCPT for
reject@… with 554, for greylist@… with 450, and adds `X-Plain` to messages.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from parts.base import Part, accepts, free_port

MACROS = ("j", "i", "{client_addr}", "{client_name}", "{client_resolve}", "{auth_authen}", "{rcpt_addr}")


class PlainMilter(Part):
    """The milter as a process; `address` for MilterPeer, `spec` for an MTA."""

    def __init__(self, *, unix: bool = False) -> None:
        super().__init__()
        self.address: tuple[str, int] | str = ("127.0.0.1", free_port())
        if unix:
            self.address = str(self.directory / "socket")

    @property
    def spec(self) -> str:
        """libmilter's and both MTAs' way to write the address."""
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        return f"inet:{self.address[1]}@{self.address[0]}"

    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__)), self.spec]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(Path(__file__).parents[1])}

    def ready(self) -> bool:
        return accepts(self.address)

    def close(self) -> None:
        self.kill()  # libmilter takes five seconds to notice SIGTERM
        super().close()

    def calls(self, name: str) -> list[dict[str, Any]]:
        """The logged calls of one callback, oldest first."""
        lines = [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["call"] == name]


def _macro(ctx: Any, name: str) -> str | None:
    try:
        value: str | None = ctx.getsymval(name)
    except UnicodeDecodeError:
        return "(not UTF-8)"
    return value


def _note(ctx: Any, call: str, *arguments: object) -> None:
    macros = {name: _macro(ctx, name) for name in MACROS}
    print(
        json.dumps(
            {
                "call": call,
                "args": [
                    str(one, "utf-8", "backslashreplace") if isinstance(one, bytes) else str(one)
                    for one in arguments
                ],
                **macros,
            }
        ),
        flush=True,
    )


def _run(spec: str) -> None:
    # By name: a type checker would take the folder milter/ of this project for it.
    milter: Any = importlib.import_module("milter")

    def negotiate(ctx: Any, options: list[int]) -> int:
        ctx.setsymlist(milter.M_CONNECT, "j {client_addr} {client_name} {client_resolve}")
        options[0], options[1] = milter.ADDHDRS | milter.SETSYMLIST, 0
        return int(milter.CONTINUE)

    def connect(ctx: Any, host: str, family: int, address: Any) -> int:
        _note(ctx, "connect", host, family, address[0] if isinstance(address, tuple) else address)
        return int(milter.CONTINUE)

    def rcpt(ctx: Any, recipient: bytes, *parameters: bytes) -> int:
        _note(ctx, "rcpt", recipient, *parameters)
        for word, code, extended in (("reject@", "554", "5.7.1"), ("greylist@", "450", "4.2.0")):
            if recipient.startswith(b"<" + word.encode()):
                ctx.setreply(code, extended, f"plain says {word}")
                return int(milter.REJECT if code[0] == "5" else milter.TEMPFAIL)
        return int(milter.CONTINUE)

    def eom(ctx: Any) -> int:
        _note(ctx, "eom")
        ctx.addheader("X-Plain", "seen", 0)
        return int(milter.CONTINUE)

    milter.set_connect_callback(connect)
    milter.set_envrcpt_callback(rcpt)
    milter.set_eom_callback(eom)
    milter.set_flags(milter.ADDHDRS | milter.SETSYMLIST)
    milter.register("plain", negotiate=negotiate)
    milter.setconn(spec)
    # A unix socket must be writable for the MTA's user.
    milter.opensocket(True)
    if spec.startswith("unix:"):
        Path(spec.removeprefix("unix:")).chmod(0o777)
    milter.main()


if __name__ == "__main__":
    _run(sys.argv[1])
