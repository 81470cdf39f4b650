"""The floor: a milter of raw pymilter that does nothing, in the shape of one of the daemon's workers.

One process bound to one CPU; the steps that `session` negotiates, answered or not as there; RCPT is answered
"continue". What a decision costs above this is what judging costs; below it pymilter cannot go.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from parts.base import Part, accepts


class Floor(Part):
    """The milter as a process, on a unix socket."""

    def __init__(self, cpu: int) -> None:
        super().__init__()
        self.address = str(self.directory / "socket")
        self.cpu = cpu

    def command(self) -> list[str]:
        return [sys.executable, "-m", "bench.floor", self.address, str(self.cpu)]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(Path(__file__).parents[1])}

    def ready(self) -> bool:
        return accepts(self.address)

    def close(self) -> None:
        self.kill()  # libmilter takes five seconds to notice SIGTERM
        super().close()


def _run(path: str, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    # By name: a type checker would take the folder milter/ of this project for it.
    milter: Any = importlib.import_module("milter")
    unused = milter.P_NODATA | milter.P_NOEOH | milter.P_NOBODY | milter.P_NOUNKNOWN
    silent = milter.P_NR_HELO | milter.P_NR_MAIL | milter.P_NR_HDR
    go_on, no_reply = int(milter.CONTINUE), int(milter.NOREPLY)

    def negotiate(ctx: Any, options: list[int]) -> int:
        ctx.setsymlist(milter.M_CONNECT, "j v {client_addr} {client_resolve}")
        ctx.setsymlist(milter.M_ENVFROM, "{auth_authen}")
        ctx.setsymlist(milter.M_ENVRCPT, "i")
        options[0] = milter.ADDHDRS | milter.CHGHDRS | milter.SETSYMLIST
        options[1] &= unused | silent
        options[2] = options[3] = 0
        return go_on

    def answered(_ctx: Any, *_arguments: object) -> int:
        return go_on

    def unanswered(_ctx: Any, *_arguments: object) -> int:
        return no_reply

    milter.set_flags(milter.ADDHDRS | milter.CHGHDRS | milter.SETSYMLIST)
    milter.set_connect_callback(answered)
    milter.set_helo_callback(unanswered)
    milter.set_envfrom_callback(unanswered)
    milter.set_header_callback(unanswered)
    for step in (milter.set_envrcpt_callback, milter.set_eom_callback, milter.set_abort_callback):
        step(answered)
    milter.set_close_callback(answered)
    milter.register("floor", negotiate=negotiate)
    milter.setconn(f"unix:{path}")
    milter.opensocket(True)
    Path(path).chmod(0o777)
    milter.main()


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]))
