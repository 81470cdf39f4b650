"""A judgement brought to its end in a thread that waits: a callback of libmilter's, or a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hybridgrey.content import wire
from hybridgrey.content.question import ScanError
from hybridgrey.filter.awaited import Call, Scan, Steps, T
from hybridgrey.lists.awaited import Wait, poll_only, wait_for
from hybridgrey.store.connection import Script, StoreError
from hybridgrey.store.link import Arguments


class Scripts(Protocol):
    """The store, as far as a judgement needs it."""

    def run(
        self, script: Script, keys: Sequence[bytes], args: Arguments, seconds: float | None = None
    ) -> list[int]:
        """Run a script that returns integers, in at most `seconds`. Raises StoreError."""


class Blocking:
    """Waits for whatever is awaited; thread safe."""

    def __init__(self, store: Scripts, wait: Wait = poll_only) -> None:
        self._store = store
        self._wait = wait

    def run(self, steps: Steps[T]) -> T:
        """What the generator returns."""
        try:
            awaited = next(steps)
            while True:
                if not isinstance(awaited, Call | Scan):
                    awaited = steps.send(wait_for(awaited, self._wait))
                    continue
                try:
                    reply = self._brought(awaited)
                except (StoreError, ScanError) as error:
                    awaited = steps.throw(error)
                else:
                    awaited = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _brought(self, awaited: Call | Scan) -> list[int] | bytes:
        """What the store or the scanner answers; raises StoreError or ScanError."""
        return self._store.run(*awaited) if isinstance(awaited, Call) else wire.ask(awaited, self._wait)
