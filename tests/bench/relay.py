"""The delay in front of the lists and the count of what is asked of them: relay.c, compiled when needed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SOURCE = Path(__file__).with_name("relay.c")


@dataclass(frozen=True, slots=True)
class Counts:
    """Datagrams since the relay's start."""

    queries: int
    answers: int
    lost: int


class Relay:
    """A running relay at HOST:PORT in front of `server`; the folder takes the program."""

    def __init__(self, server: tuple[str, int], here: tuple[str, int], folder: Path) -> None:
        self.server, self.here = server, here
        self._program = folder / "relay"

    @property
    def address(self) -> str:
        """What `nameservers` takes."""
        return f"{self.here[0]}:{self.here[1]}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def __enter__(self) -> Self:
        if not self._program.exists():
            subprocess.run(["gcc", "-O2", "-o", self._program, SOURCE], check=True)
        words = [str(word) for word in (self._program, *self.here, *self.server)]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        if self._line() != "ready\n":
            raise OSError("the relay does not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)  # the end of its input ends it

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def delay(self, milliseconds: float) -> Counts:
        """Set the delay from now on; what has been asked so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{milliseconds}\n")
        return Counts(*map(int, self._line().split()))
