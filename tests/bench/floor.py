"""The floors: milters that do nothing, in the shape of one of the daemon's workers.

`pymilter` is libmilter's binding bare, `loop` the native engine with sessions of no work, `C` a loop in C
(floor.c).  One process bound to one CPU; the steps that `session` negotiates, answered or not as there.  What
a decision costs above its floor is what judging costs.

The verdict is the right one, for a milter that lets all mail in does the MTA's work, too.  It is told by the
name in HELO, aATTEMPT.NAME.KIND.example: a blocked client is refused, an unknown one at its first attempt.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from hybridgrey.eventloop import Loop
from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.reply import Reply
from hybridgrey.process import native_worker, serving
from hybridgrey.protocol import wire
from hybridgrey.protocol.terms import Terms
from parts.base import Part, accepts

KINDS = ("pymilter", "loop", "C")
SOURCE = Path(__file__).with_name("floor.c")
LISTED = Reply("554", "5.7.1", "listed")
LATER = Reply("450", "4.2.0", "later")
MACROS = {
    wire.Stage.CONNECT: "j v {client_addr} {client_resolve}",
    wire.Stage.MAIL: "{auth_authen}",
    wire.Stage.RCPT: "i",
}


def verdict(helo: str) -> Reply | None:
    """The right answer to a client that says so."""
    if ".block." in helo:
        return LISTED
    later = helo.startswith("a") and helo[1:2] > "1"
    return LATER if ".unknown." in helo and not later else None


class Floor(Part):
    """The milter as a process, on a unix socket."""

    def __init__(self, cpu: int, kind: str = "pymilter") -> None:
        super().__init__()
        self.address = str(self.directory / "socket")
        self.cpu = cpu
        self.kind = kind

    def command(self) -> list[str]:
        if self.kind == "C":
            program = self.directory / "floor"
            subprocess.run(["gcc", "-O2", "-o", program, SOURCE], check=True)
            return ["taskset", "-c", str(self.cpu), str(program), self.address]
        return [sys.executable, "-m", "bench.floor", self.kind, self.address, str(self.cpu)]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(Path(__file__).parents[1])}

    def ready(self) -> bool:
        return accepts(self.address)

    def close(self) -> None:
        self.kill()  # libmilter takes five seconds to notice SIGTERM
        super().close()


class _Idle:
    """Sessions that do nothing (`native_worker.Registration`)."""

    def __init__(self) -> None:
        unused = wire.NO_DATA | wire.NO_END_OF_HEADERS | wire.NO_BODY | wire.NO_UNKNOWN
        silent = wire.SILENT_HELO | wire.SILENT_MAIL | wire.SILENT_HEADER
        self.terms = Terms(
            actions=wire.ADD_HEADERS | wire.CHANGE_HEADERS, steps=unused | silent, macros=MACROS
        )
        self.sessions = self.calls = self

    def hello(self, session: Any, name: str) -> None:
        session.helo = name

    def recipient(self, session: Any, *_arguments: object) -> Steps[Reply | None]:
        return verdict(session.helo)
        yield

    def nothing(self, *_arguments: object) -> None:
        """No work."""

    call = open = connect = mail = header = end = close = failed = turned = tick = full = nothing


def _loop(path: str, cpu: int) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    listening.listen(1024)
    Path(path).chmod(0o777)

    def build(_loop: Loop) -> Any:
        return _Idle()

    native_worker.serve(listening, build, lambda: None, serving.Terms(cpu=cpu))


def _pymilter(path: str, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    # By name: a type checker would take the folder milter/ of this project for it.
    milter: Any = importlib.import_module("milter")
    unused = milter.P_NODATA | milter.P_NOEOH | milter.P_NOBODY | milter.P_NOUNKNOWN
    silent = milter.P_NR_HELO | milter.P_NR_MAIL | milter.P_NR_HDR
    go_on, no_reply = int(milter.CONTINUE), int(milter.NOREPLY)

    def negotiate(ctx: Any, options: list[int]) -> int:
        for stage, names in MACROS.items():
            ctx.setsymlist(stage, names)
        options[0] = milter.ADDHDRS | milter.CHGHDRS | milter.SETSYMLIST
        options[1] &= unused | silent
        options[2] = options[3] = 0
        return go_on

    def answered(_ctx: Any, *_arguments: object) -> int:
        return go_on

    def unanswered(_ctx: Any, *_arguments: object) -> int:
        return no_reply

    def hello(ctx: Any, name: str) -> int:
        ctx.setpriv(name)
        return no_reply

    def judged(ctx: Any, *_arguments: object) -> int:
        reply = verdict(ctx.getpriv() or "")
        if reply is None:
            return go_on
        ctx.setreply(*reply)
        return int(milter.REJECT if reply is LISTED else milter.TEMPFAIL)

    def closed(ctx: Any) -> int:
        ctx.setpriv(None)
        return go_on

    milter.set_flags(milter.ADDHDRS | milter.CHGHDRS | milter.SETSYMLIST)
    milter.set_connect_callback(answered)
    milter.set_helo_callback(hello)
    milter.set_envrcpt_callback(judged)
    milter.set_envfrom_callback(unanswered)
    milter.set_header_callback(unanswered)
    for step in (milter.set_eom_callback, milter.set_abort_callback):
        step(answered)
    milter.set_close_callback(closed)
    milter.register("floor", negotiate=negotiate)
    milter.setconn(f"unix:{path}")
    milter.opensocket(True)
    Path(path).chmod(0o777)
    milter.main()


if __name__ == "__main__":
    (_loop if sys.argv[1] == "loop" else _pymilter)(sys.argv[2], int(sys.argv[3]))
