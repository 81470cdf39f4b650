"""Threads that wait in the loop's place, for what knows no other way, as TLS handshakes.

They are few, started when they are needed, and touch nothing of the loop's: what comes of their work the
loop's own thread is told by `Loop.post`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from hybridgrey.eventloop import Loop

T = TypeVar("T")


class Helpers:
    """So many threads at most; further work waits for one of them."""

    def __init__(self, loop: Loop, threads: int, name: str) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def run(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Do `work` in a thread; `done` is called in the loop's with what it returned or raised."""
        future = self._executor.submit(work)
        future.add_done_callback(partial(self._over, done))

    def _over(self, done: Callable[[Any], None], future: Future[Any]) -> None:
        error = future.exception()
        self._loop.post(partial(done, future.result() if error is None else error))
