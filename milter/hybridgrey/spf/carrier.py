"""SPF's questions carried to the nameservers: an evaluation, or a pool, on the wire of the look-ups.

A `Carrier` is what all of a worker's evaluations share: cache, nameservers, and whether these answer at all.
`Carrier.begin` starts a `Chain`: it sends the first questions and returns.  `Chain.peek` goes on with what
has come; `Chain.collect` waits, by yielding what it awaits (see `lists.awaited`), until the outcome is known.
A chain whose answers are all in the cache has its outcome from the beginning and never opens a socket.

A chain waits `timeout` seconds in all.  The time in which nobody waits for it is not counted: the client is
slow then, and answers that lie in the socket are not late.  What has no answer in the end has failed, and the
evaluation goes on with that to its outcome: temperror, for the most part.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from hybridgrey.lists.awaited import Answers, OverTcp
from hybridgrey.lists.awaited import Steps as Waits
from hybridgrey.lists.exchange import Exchange
from hybridgrey.lists.question import Reply
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.upstream import SILENT_AFTER, NoReporter
from hybridgrey.spf import wire
from hybridgrey.spf.cache import Cache
from hybridgrey.spf.evaluate import Identity, Outcome, evaluate
from hybridgrey.spf.pools import Pool, collect
from hybridgrey.spf.proof import DEFAULT, Widths
from hybridgrey.spf.question import Answer, Ask, Question, Status, Steps
from hybridgrey.trouble.reporter import Report

T = TypeVar("T")

# The longest wait (seconds) for a chain while nothing answers: short, for others wait behind it, and enough
# for a resolver that is well after all.
HASTE: Final = 0.25
# Questions that a chain sends before they are needed, at most: records can name ten at each step.
MAX_EARLY: Final = 20
# A question without an answer for so long (seconds) has failed for others, too.  Not shorter: the same
# question may just have come late in its chain.
SILENCE: Final = 1.0

_FAILED: Final = Answer(Status.FAILED, wire.FAILED_TTL)


class Carrier:
    """One for each worker; safe for threads."""

    def __init__(
        self,
        resolver: Resolver,
        widths: Widths = DEFAULT,
        *,
        timeout: float | None = None,
        cache: Cache | None = None,
        reporter: Report | None = None,
    ) -> None:
        """`resolver`: its nameservers and wire are used; `timeout` in seconds, by default the resolver's."""
        self.servers = resolver.servers
        self.exchange = resolver.exchange
        self.widths = widths
        self.timeout = resolver.timeout if timeout is None else timeout
        self.cache = Cache() if cache is None else cache
        self._reporter = reporter or NoReporter()
        # Chains in a row that have heard nothing at all; counted without a lock, as in `upstream`.
        self._silences = 0

    def begin(self, identity: Identity) -> Chain[Outcome]:
        """Start to check a client; waits for nothing."""
        return Chain(self, evaluate(identity, self.widths))

    def pool(self, domain: str) -> Chain[Pool]:
        """Start to collect the networks of a domain; waits for nothing."""
        return Chain(self, collect(domain, self.widths))

    @property
    def patience(self) -> float:
        """Seconds that a chain may wait."""
        return min(self.timeout, HASTE) if self._silences >= SILENT_AFTER else self.timeout

    def heard(self) -> None:
        """Some nameserver has answered something."""
        if self._silences:
            if self._silences >= SILENT_AFTER:
                self._reporter.recovered("spf")
            self._silences = 0

    def silent(self) -> None:
        """A chain has let its whole time pass and heard nothing."""
        self._silences += 1
        if self._silences >= SILENT_AFTER:
            self._reporter.failing("spf", error="no answer about any sender")


class Chain(Generic[T]):
    """One evaluation under way; used by one thread at a time.

    `outcome`: None until it is known.
    """

    __slots__ = (
        "_answers",
        "_asked",
        "_carrier",
        "_deadline",
        "_early",
        "_exchange",
        "_given_up",
        "_heard",
        "_needed",
        "_seen",
        "_soon",
        "_steps",
        "_truncated",
        "outcome",
    )

    def __init__(self, carrier: Carrier, steps: Steps[T]) -> None:
        self.outcome: T | None = None
        self._carrier = carrier
        self._steps = steps
        self._exchange: Exchange[Question] | None = None
        self._answers: dict[Question, Answer] = {}
        # When a question was first sent, in monotonic seconds.
        self._asked: dict[Question, float] = {}
        self._truncated: dict[Question, int] = {}
        self._needed: tuple[Question, ...] = ()
        self._soon: tuple[Question, ...] = ()
        self._early = 0
        self._heard = self._given_up = False
        # When somebody looked last: what is later is not our wait.
        self._seen = time.monotonic()
        self._deadline = self._seen + carrier.patience
        try:
            self._take_up(next(steps))
        except StopIteration as stop:
            self.outcome = stop.value
        else:
            self._go_on()

    def peek(self) -> None:
        """Go on with what has come, without waiting; ask again when it is time to."""
        exchange = self._exchange
        if exchange is None or self.outcome is not None:
            return
        now = time.monotonic()
        self._deadline += now - self._seen
        self._look(exchange, now)

    def _look(self, exchange: Exchange[Question], now: float) -> None:
        """Go on with what has come, or ask again."""
        self._seen = now
        self._receive(exchange)
        self._go_on()
        if self.outcome is None and exchange.open and now >= exchange.due:
            exchange.repeat(now)

    def collect(self) -> Waits[None]:
        """Wait until the outcome is known or the chain's time is up; afterwards it is known."""
        self.peek()
        # Others may have found meanwhile that nothing answers.
        self._deadline = min(self._deadline, time.monotonic() + self._carrier.patience)
        while self.outcome is None:
            exchange = self._exchange
            now = time.monotonic()
            if exchange is None or now >= self._deadline:
                self._give_up(now)
            elif truncated := [question for question in self._needed if question in self._truncated]:
                yield from self._ask_tcp(truncated[0], self._deadline - now)
                self._look(exchange, time.monotonic())
            elif exchange.deaf:
                self._give_up(now)
            else:
                yield Answers(exchange, min(self._deadline, exchange.due))
                self._look(exchange, time.monotonic())

    def close(self) -> None:
        """End the chain; answers that have come meanwhile still reach the cache."""
        self._steps.close()
        if (exchange := self._exchange) is not None:
            exchange.ended = True
            if exchange.open:
                self._receive(exchange)
            exchange.close()

    def _go_on(self) -> None:
        """Resume the evaluation as long as what it needs is known."""
        steps = self._steps
        try:
            while (known := self._known()) is not None:
                self._take_up(steps.send(known))
        except StopIteration as stop:
            self.outcome = stop.value
            if (exchange := self._exchange) is not None and not exchange.open:
                exchange.release()

    def _known(self) -> list[Answer] | None:
        """The answers that the evaluation waits for, if they are all there, or given up."""
        answers, known = self._answers, []
        for question in self._needed:
            answer = answers.get(question)
            if answer is None:
                if not self._given_up:
                    return None
                answer = _FAILED
            known.append(answer)
        return known

    def _take_up(self, ask: Ask) -> None:
        """Look for answers in the cache, and ask for the others.

        What is needed soon goes with the first question that has to be sent anyway.
        """
        self._needed = ask.now
        self._soon = ask.soon or self._soon
        wanted = self._unknown(ask.now)
        if wanted and not self._given_up:
            early = self._unknown(self._soon)[: MAX_EARLY - self._early]
            self._early += len(early)
            self._soon = ()
            self._send([*wanted, *early])

    def _unknown(self, questions: Sequence[Question]) -> list[Question]:
        """Those that are neither answered nor on their way."""
        answers, asked, cache, now = self._answers, self._asked, self._carrier.cache, self._seen
        unknown: list[Question] = []
        for question in questions:
            if question in answers or question in asked or question in unknown:
                continue
            known = cache.get(question, now)
            if known is None:
                unknown.append(question)
            else:
                answers[question] = known
        return unknown

    def _send(self, questions: Sequence[Question]) -> None:
        now = time.monotonic()
        exchange = self._exchange
        if exchange is None:
            exchange = self._exchange = self._carrier.exchange(self._carrier.servers, now, wire.FORM)
        elif not exchange.open:
            exchange.restart(now)
        for question in questions:
            self._asked[question] = now
            exchange.ask(wire.labels(question.name), [(question, wire.TAILS[question.type])], 0)

    def _receive(self, exchange: Exchange[Question]) -> None:
        for question, _purpose, reply, server in exchange.receive():
            if reply.truncated:
                self._truncated[question] = server
            else:
                self._take(question, reply, exchange.asked_at)

    def _take(self, question: Question, reply: Reply, asked_at: float) -> None:
        """Use an answer, and keep it for as long as it holds from when it was asked for."""
        self._heard = True
        self._carrier.heard()
        answer = self._answers[question] = wire.answer(question, reply)
        if answer.ttl:
            self._carrier.cache.keep(question, answer, asked_at + answer.ttl)

    def _ask_tcp(self, question: Question, left: float) -> Waits[None]:
        """Ask again over TCP what came truncated."""
        server = self._carrier.servers.addresses[self._truncated.pop(question)]
        asked = wire.labels(question.name) + wire.TAILS[question.type]
        asked_at = time.monotonic()
        reply: Reply | None = yield OverTcp(asked, server, left, wire.FORM)
        # Without an answer it fails: the time is over, as good as.
        self._take(question, reply or Reply(error="no answer over TCP in time"), asked_at)

    def _give_up(self, now: float) -> None:
        """Whatever has no answer has failed, for others too if it had its time."""
        self._given_up = True
        for question in self._needed:
            asked = self._asked.get(question, now)
            if question not in self._answers and now - asked >= SILENCE:
                self._carrier.cache.keep(question, _FAILED, now + wire.FAILED_TTL)
        if not self._heard:
            self._carrier.silent()
        self._go_on()
