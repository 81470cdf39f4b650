"""A milter that lets everything pass and writes down each envelope path with what the MTA says of it.

with PathMilter() as milter, Postfix(milter.spec) as mta:
    ...
    for call in milter.paths():
        print(call.step, call.raw, call.said)
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts.base import Part, accepts, free_port


@dataclass(frozen=True, slots=True)
class Seen:
    """One MAIL or RCPT: the raw path, and the macro, None where there is none or it cannot be decoded."""

    step: str
    raw: bytes
    said: str | None
    mailer: str
    version: str


class PathMilter(Part):
    """The milter as a process; `unix` for an MTA in a namespace."""

    def __init__(self, *, unix: bool = False) -> None:
        super().__init__()
        self._unix = unix
        self._port = 0 if unix else free_port()
        self._notes = self.directory / "paths"

    @property
    def spec(self) -> str:
        """The address as libmilter and Sendmail write it."""
        return f"unix:{self.directory}/socket" if self._unix else f"inet:{self._port}@127.0.0.1"

    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__)), self.spec, str(self._notes)]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(Path(__file__).parents[1])}

    def ready(self) -> bool:
        return accepts(f"{self.directory}/socket" if self._unix else ("127.0.0.1", self._port))

    def close(self) -> None:
        self.kill()  # libmilter takes five seconds to notice SIGTERM
        super().close()

    def paths(self) -> list[Seen]:
        """All paths in the order in which they were sent."""
        found = []
        with self._notes.open(encoding="ascii") as lines:
            for line in lines:
                step, raw, said, mailer, version = json.loads(line)
                found.append(Seen(step, raw.encode("latin-1"), said, mailer or "", version or ""))
        return found


def _run(spec: str, notes: str) -> None:
    # By name: a type checker would take the folder milter/ of this project for it.
    milter: Any = importlib.import_module("milter")
    file = Path(notes).open("a", encoding="ascii", buffering=1)  # noqa: SIM115 (open as long as the process)

    def said(ctx: Any, name: str) -> str | None:
        try:
            value: str | None = ctx.getsymval(name)
        except UnicodeDecodeError:
            return None
        return value

    def note(ctx: Any, step: str, path: bytes, macro: str) -> int:
        row = [step, path.decode("latin-1"), said(ctx, macro), said(ctx, "{rcpt_mailer}"), said(ctx, "v")]
        file.write(json.dumps(row) + "\n")
        return int(milter.CONTINUE)

    def negotiate(ctx: Any, options: list[int]) -> int:
        ctx.setsymlist(milter.M_CONNECT, "v")
        ctx.setsymlist(milter.M_ENVFROM, "{mail_addr}")
        ctx.setsymlist(milter.M_ENVRCPT, "{rcpt_addr} {rcpt_mailer}")
        options[0], options[1] = milter.SETSYMLIST, milter.P_NOHDRS | milter.P_NOEOH | milter.P_NOBODY
        return int(milter.CONTINUE)

    milter.set_flags(milter.SETSYMLIST)
    milter.set_envfrom_callback(lambda ctx, path, *_: note(ctx, "mail", path, "{mail_addr}"))
    milter.set_envrcpt_callback(lambda ctx, path, *_: note(ctx, "rcpt", path, "{rcpt_addr}"))
    milter.register("paths", negotiate=negotiate)
    milter.setconn(spec)
    milter.opensocket(True)
    if spec.startswith("unix:"):
        # It must be writable for the MTA's user.
        Path(spec.removeprefix("unix:")).chmod(0o777)
    milter.main()


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2])
