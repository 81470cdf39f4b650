"""One milter by two engines: libmilter and `hybridgrey.protocol`. What an MTA sees of both must be the same.

    with TwinMilter("native") as milter, Postfix(milters=milter.spec) as mta:
        ...
    assert milter.calls() == the_other.calls()

It does what the envelope says. A recipient's local part, up to a "+": `reject`, `tempfail`, `discard`,
`accept`, `said` (554, with a "%"), `lines` (451, three lines), `long`, `eight`. A sender's at the end of the
message: `edit` (headers), `hold` (quarantine), `slow` (progress), `refuse`, `swap` (recipients). Each call is
written to the log as a line of JSON, with macros.

Terms are read anew for each connection from a file: `milter.terms(actions, steps, macros)`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parts.base import Part, accepts, free_port

ENGINES = ("libmilter", "native")
ADD, CHANGE, RCPT, DELETE, QUARANTINE, LISTS = 0x1, 0x10, 0x4, 0x8, 0x20, 0x100
ALL_EDITS = ADD | CHANGE | RCPT | DELETE | QUARANTINE
LIST_NAMES = {
    "0": "j v {daemon_name} {client_addr} {client_name} {client_resolve}",
    "2": "i {auth_authen} {mail_addr}",
    "3": "i {rcpt_addr}",
}
MACROS = (
    *("j", "{j}", "v", "i", "{i}", "x", "{x}", "{}", "{daemon_name}", "{client_addr}", "{client_name}"),
    *("{client_resolve}", "{auth_authen}", "{mail_addr}", "{rcpt_addr}", "{long_name}", "long_name"),
)


class TwinMilter(Part):
    """The milter as a process; `address` for MilterPeer, `spec` for an MTA."""

    def __init__(self, engine: str, *, unix: bool = True) -> None:
        super().__init__()
        self.engine = engine
        self.address: tuple[str, int] | str = str(self.directory / "socket")
        if not unix:
            self.address = ("127.0.0.1", free_port())
        self.terms()

    def terms(
        self,
        actions: int = ALL_EDITS | LISTS,
        steps: int = 0,
        macros: Mapping[str, str] | None = None,
    ) -> None:
        """What to want of MTAs from now on."""
        lists = LIST_NAMES if macros is None else dict(macros)
        made = self.directory / "terms.new"
        made.write_text(json.dumps([actions, steps, lists]))
        made.rename(self.directory / "terms")

    @property
    def spec(self) -> str:
        """libmilter's and both MTAs' way to write the address."""
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        return f"inet:{self.address[1]}@{self.address[0]}"

    def command(self) -> list[str]:
        program = Path(__file__).with_name(f"twin_{self.engine}.py")
        return [sys.executable, str(program), self.spec, str(self.directory / "terms")]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(Path(__file__).parents[1])}

    def ready(self) -> bool:
        return accepts(self.address)

    def close(self) -> None:
        self.kill()  # libmilter takes five seconds to notice SIGTERM
        super().close()

    def calls(self) -> list[dict[str, Any]]:
        """All calls, oldest first, without those of a connection that said nothing."""
        lines = [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["call"] != "close"]


# -- what it does, whatever the engine: calls give a reply, edits are made through `Edits`


class Script:
    """One connection."""

    def __init__(self, macro: Callable[[str], str | None], space: str = "") -> None:
        self.macro = macro
        self.space = space
        self.sender = ""

    def call(self, name: str, *arguments: str) -> tuple[str, ...]:
        """Write a call down; the reply to it."""
        macros = {one: value for one in MACROS if (value := self.macro(one)) is not None}
        print(json.dumps({"call": name, "args": arguments, "macros": macros}), flush=True)
        if name == "mail":
            self.sender = _word(arguments[0])
        if name == "rcpt":
            return self._rcpt(_word(arguments[0]))
        return ("reject",) if name == "eom" and self.sender == "refuse" else ("continue",)

    @staticmethod
    def _rcpt(word: str) -> tuple[str, ...]:
        match word:
            case "said":
                return ("554", "5.7.1", "100% no, 50%d %s %%")
            case "lines":
                return ("451", "4.7.1", "one", "two 2%", "three")
            case "long":
                return ("450", "4.2.0", "x" * 900)
            case "eight":
                return ("554", "5.7.1", "b\u00fccher")
            case "reject" | "tempfail" | "discard" | "accept":
                return (word,)
        return ("continue",)

    def edits(self) -> list[tuple[str, ...]]:
        """What to change at the end of the message."""
        match self.sender:
            case "edit":
                return [
                    ("add", "X-Added", "first\n\tand more"),
                    ("insert", "0", "X-Top", "top"),
                    ("change", "1", "Subject", "changed"),
                    ("change", "2", "X-Many", ""),
                    ("change", "1", "X-Many", "one"),
                    ("add", "X-Eight", "b\u00fccher"),
                ]
            case "hold":
                return [("quarantine", "for a test")]
            case "slow":
                return [("progress",), ("progress",)]
            case "swap":
                return [("delrcpt", "<b@example.net>"), ("addrcpt", "<c@example.net>")]
        return []


def _word(path: str) -> str:
    return path.strip("<>").partition("@")[0].partition("+")[0]


def text_of(raw: bytes | str) -> str:
    """Text as it came; bytes that are no UTF-8 are kept as surrogates."""
    return raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")


def wanted(path: str) -> tuple[int, int, dict[int, str]]:
    """Actions, steps and lists of macros to ask for now."""
    actions, steps, lists = json.loads(Path(path).read_text())
    return actions, steps, {int(stage): names for stage, names in lists.items()}
