"""The native engine's loop, and what waits on it, in the thread of a test.

with Looped(store) as looped:
    by = Resolver(..., exchange=looped.channels.exchange)
    looped.run(found.collect(zones))
    assert looped.run_all(calls)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from hybridgrey.eventloop import Loop, Poller
from hybridgrey.filter.awaited import Call, Steps
from hybridgrey.lists.channels import Channels
from hybridgrey.process.native_helpers import Helpers
from hybridgrey.process.native_task import Answered, Calls, Task, Threaded, Waits
from hybridgrey.store.connection import Store, StoreError
from hybridgrey.store.pipeline import Pipeline
from parts.base import PartError

T = TypeVar("T")
PATIENCE = 60.0


class _NoStore:
    """For who asks lists only."""

    def call(self, _call: Call, _answered: Answered, /) -> None:
        raise StoreError("no store")


class Looped:
    """One loop; leaving it fails if anything on it has failed."""

    def __init__(self, store: Store | None = None, poller: Poller | None = None) -> None:
        self.loop = Loop(poller)
        self.broken: list[BaseException] = []
        self.channels = Channels(self.loop, self.broken.append)
        self.helpers = Helpers(self.loop, 8, "test")
        self.calls: Calls = _NoStore()
        if store is not None:
            where = store.where
            self.calls = (
                Pipeline(store, where, self.loop, self.helpers.run)
                if where
                else Threaded(store, self.helpers)
            )
        self.waits = Waits(self.loop, self.calls, self.helpers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.broken:
            raise PartError(f"failed on the loop: {self.broken}")

    def start(self, steps: Steps[T], done: Callable[[T], None]) -> Task[T]:
        """Begin a generator; what it returns goes to `done` while the loop turns."""
        task = Task(self.waits, steps, done, self.broken.append)
        task.begin()
        return task

    def run(self, steps: Steps[T]) -> T:
        """What the generator returns."""
        results: list[T] = []
        self.start(steps, results.append)
        self.until(lambda: bool(results))
        return results[0]

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Turn until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if self.broken:
                raise self.broken.pop()
            if time.monotonic() > end:
                raise PartError(f"not within {seconds:g} s of turning")
            self.loop.turn(0.05)

    def turn_for(self, seconds: float) -> None:
        """Turn for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.loop.turn(left)

    def ask(self, *calls: Call) -> list[list[int] | StoreError]:
        """Calls to the store, all at once; their answers in the order of the calls."""
        found: dict[int, list[int] | StoreError] = {}
        for number, call in enumerate(calls):
            try:
                self.calls.call(call, _put(found, number))
            except StoreError as error:
                found[number] = error
        self.until(lambda: len(found) == len(calls))
        return [found[number] for number in range(len(calls))]


def _put(found: dict[int, list[int] | StoreError], number: int) -> Answered:
    def put(answer: list[int] | StoreError) -> None:
        assert number not in found, "answered twice"
        found[number] = answer

    return put


def texts(answers: Sequence[list[int] | StoreError]) -> list[str]:
    """Answers as texts."""
    return [str(one) for one in answers]
