"""SPF records, whatever a domain publishes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from fuzz.base import CLIENT, one_line, text_of
from hybridgrey.spf.evaluate import MAX_QUESTIONS, Identity, evaluate
from hybridgrey.spf.pools import collect
from hybridgrey.spf.question import Answer, Ask, Status
from hybridgrey.spf.record import RecordError, Result, read


def spf(data: bytes) -> None:
    """Records, a sender and HELO of any kind give a result, after no more questions than are allowed.

    The input: HELO, the local part, then what is answered, one line for each question; at its end it begins
    anew.  A line's first character says of what kind the answer is.
    """
    helo, local, *lines = [*data.split(b"\n"), b"", b""]
    for line in lines[:8]:
        found = read(line[1:])
        if isinstance(found, RecordError):
            one_line(str(found))
    for address in (CLIENT, bytes(15) + b"\1"):
        identity = Identity.of(address, "example.org", text_of(local), text_of(helo))
        outcome = carried(evaluate(identity), lines, MAX_QUESTIONS)
        assert outcome.proven <= (outcome.result is Result.PASS)
        assert bool(outcome.doubt) <= (outcome.result is Result.PASS)
        for text in (outcome.term, outcome.domain, outcome.error, outcome.doubt):
            one_line(text)
            assert len(text) < 400
    pool = carried(collect("example.org"), lines, 2 * MAX_QUESTIONS)
    one_line(pool.problem)
    assert all(network.prefixlen >= (14 if network.version == 4 else 32) for network in pool.networks)


def carried(steps: Generator[Ask, Sequence[Answer], Any], lines: Sequence[bytes], most: int) -> Any:
    """What comes of the questions when the lines answer them; fails if there are too many."""
    asked = 0
    try:
        ask = next(steps)
        while True:
            assert ask.now
            begin, asked = asked, asked + len(ask.now)
            assert asked <= most
            ask = steps.send([answered(lines[(begin + n) % len(lines)]) for n in range(len(ask.now))])
    except StopIteration as stop:
        return stop.value


def answered(line: bytes) -> Answer:
    """A line as the answer to any question."""
    status = {b"!": Status.FAILED, b"?": Status.EMPTY, b"-": Status.NXDOMAIN}.get(line[:1], Status.FOUND)
    if status is not Status.FOUND:
        return Answer(status, len(line))
    words = line[1:].split(b",")
    numbers = tuple(word.ljust(4, b"\0")[:4] for word in words) + tuple(
        word.ljust(16, b"\0")[:16] for word in words
    )
    return Answer(status, len(line), (line[1:], *numbers), tuple(text_of(word) for word in words))


SPF = (
    b"mail.example.org\nuser\n v=spf1 a mx/24 include:_a.example.org -all\n c000,mail.example.org\n-",
    b"mail\nuser\n v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ?ptr:example.org exists:%{ir}.%{v}.x ~all\n!\n?",
    b"x\n\n v=spf1 redirect=%{d2}.%{l1r-}._spf.example.org exp=%{o}.x\n v=spf1 -ip4:192.0.2.1 +all\n!",
    b"%{h}\na.b-c\n V=SPF1 include:%{p}.x include:%{S}.y mx:%{h}/0//0\n v=spf1 a a a a a a a a a a a\n c000",
)
