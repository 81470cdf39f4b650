"""What a look-up waits for, as values; and the way to wait that blocks.

Whoever has to wait is a generator, `Steps`: it yields what it awaits and is resumed with what came of it.
`run` brings it to its end in a thread that has nothing else to do; an event loop does the same in turns.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from hybridgrey.lists import tcp
from hybridgrey.lists.exchange import Exchange
from hybridgrey.lists.question import LISTS, Form, Reply
from hybridgrey.lists.upstream import Server


class Answers(NamedTuple):
    """Something that comes in on an exchange, or a moment in monotonic seconds; resumed with None."""

    exchange: Exchange[Any]
    until: float


class OverTcp(NamedTuple):
    """A question, in wire format, asked over TCP within `seconds`: what `tcp.ask` takes.

    Resumed with a `Reply`, or None if no answer came.
    """

    question: bytes
    server: Server
    seconds: float
    form: Form = LISTS


T = TypeVar("T")
Awaited: TypeAlias = Answers | OverTcp
# With what it is resumed depends on what it has yielded.
Steps: TypeAlias = Generator[Awaited, Any, T]

# Waits on what it is given for so many milliseconds at most.
Wait: TypeAlias = Callable[["select.poll", int], object]


def poll_only(poll: select.poll, milliseconds: int) -> None:
    """Wait for nobody's sake but one's own."""
    poll.poll(milliseconds)


def wait_for(awaited: Awaited, wait: Wait = poll_only) -> Reply | None:
    """Block until what is awaited is there, or its time is over; what to resume with."""
    if isinstance(awaited, OverTcp):
        return tcp.ask(*awaited)
    poll = select.poll()
    for fd in awaited.exchange.filenos():
        poll.register(fd, select.POLLIN)
    seconds = awaited.until - time.monotonic()
    # Rounded up: a wait of a fraction of a millisecond must not become a busy loop.
    wait(poll, max(1, int(seconds * 1000 + 0.999)))
    return None


def run(steps: Steps[T], wait: Wait = poll_only) -> T:
    """Bring a generator to its end; what it returns."""
    try:
        awaited = next(steps)
        while True:
            awaited = steps.send(wait_for(awaited, wait))
    except StopIteration as stop:
        result: T = stop.value
        return result
