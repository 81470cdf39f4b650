"""What follows a verdict: its line in the log, its counts and its record, done for several at a time.

A callback of libmilter's runs in a thread that has just been switched to, with nothing of it in the CPU's
caches, and there this costs three times what it does in a loop; and a write lets another thread in.  So when
many sessions are open and verdicts follow one another quickly, a thread of its own does it a moment later.
Any other verdict is in the log and in the counts before its reply is sent.  What a killed worker had not yet
written is lost, as its sessions are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Final, NamedTuple, Protocol

from hybridgrey import logs
from hybridgrey.envelope import Mailbox
from hybridgrey.filter.reason import reason_of
from hybridgrey.filter.screen import Client, Decision
from hybridgrey.lists.zones import Zone, code_text
from hybridgrey.outcome import Outcome, Reason
from hybridgrey.policy.conditions import Spf, Unknown
from hybridgrey.policy.judge import Answer
from hybridgrey.trouble.reporter import Report

PAUSE: Final = 0.01
"""Seconds: verdicts that follow one another more quickly may be told together."""
CROWD: Final = 8
"""So many open sessions make it worth while."""

_OPENED: Final = True
_CLOSED: Final = False


class Counting(Protocol):
    """What is counted (see `counting`)."""

    records: bool
    """Whether `recorded` is of use."""

    def decided(self, client: Client, decision: Decision, outcome: Outcome, reason: Reason) -> None:
        """One recipient was judged."""

    def recorded(self, event: dict[str, object], written: bytes | None, at: float) -> None:
        """What is known of a verdict; the dictionary is the callee's.

        `written`: the members of `event` as JSON, where somebody has put them into words already.
        """

    def opened(self) -> None:
        """An MTA has connected."""

    def left(self, client: Client) -> None:
        """A client has gone; its look-up is closed, and no verdict about it follows."""

    def closed(self) -> None:
        """The MTA has gone."""


class Judged(NamedTuple):
    """A verdict and what the dialogue had said until then."""

    at: float
    """Unix seconds."""
    client: Client
    answers: Mapping[str, Answer]
    queue_id: str
    helo: str | None
    sender: Mailbox
    recipient: Mailbox
    decision: Decision


class Events:
    """One worker's; thread safe."""

    def __init__(
        self, counts: Counting, zones: Mapping[str, Zone], reports: Report, *, logged: bool, enforced: bool
    ) -> None:
        """`zones` by name; `logged`: whether verdicts go to the log."""
        self.told = logged or counts.records
        """Whether more becomes of a verdict than counts."""
        self._counts = counts
        self._zones = zones
        self._reports = reports
        self._logged = logged
        self._enforced = enforced
        self._waiting: deque[Judged | Client | bool] = deque()
        self._settling = threading.Lock()
        self._judged_at = self._closed_at = 0.0
        self._lines = logs.Lines()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._rung = False

    def start(self) -> None:
        """Let a thread tell what nobody else does; after the fork."""
        threading.Thread(target=self._attend, name="events", daemon=True).start()

    def judged(self, judged: Judged, sessions: int) -> None:
        """A recipient was judged, while so many sessions are open."""
        self._waiting.append(judged)
        slow = not 0 <= judged.at - self._judged_at < PAUSE
        self._judged_at = judged.at
        self._see_to_it(now=slow or sessions < CROWD)

    def opened(self, sessions: int) -> None:
        """An MTA has connected; so many sessions are open now."""
        self._waiting.append(_OPENED)
        self._see_to_it(now=sessions < CROWD)

    def left(self, client: Client) -> None:
        """A client has gone; its look-up is closed."""
        self._waiting.append(client)

    def closed(self, sessions: int) -> None:
        """The MTA has gone; so many sessions are open yet."""
        self._waiting.append(_CLOSED)
        # By other closes: it follows a verdict closely, and to wake a thread costs more than to settle.
        now = time.time()
        slow = not 0 <= now - self._closed_at < PAUSE
        self._closed_at = now
        self._see_to_it(now=slow or sessions < CROWD)

    def _see_to_it(self, *, now: bool) -> None:
        if not (now and self.settle(PAUSE)) and not self._rung:
            self._rung = True
            self._bell.put(None)

    def _attend(self) -> None:
        while True:
            self._bell.get()
            time.sleep(PAUSE)
            self._rung = False
            with self._settling:
                self._settle()

    def settle(self, seconds: float = 1.0) -> bool:
        """Tell all that waits; False if another thread was at it for so long."""
        if not self._settling.acquire(timeout=seconds):
            return False
        try:
            self._settle()
        finally:
            self._settling.release()
        return True

    def _settle(self) -> None:
        """Tell all that waits; by one thread at a time."""
        waiting, counts = self._waiting, self._counts
        while waiting:
            one = waiting.popleft()
            try:
                if one is _OPENED:
                    counts.opened()
                elif one is _CLOSED:
                    counts.closed()
                elif isinstance(one, Client):
                    counts.left(one)
                elif isinstance(one, Judged):
                    self._judged(one)
            except Exception as e:
                # Words about mail are never worth the mail.
                self._reports.failing("events", error=repr(e))
        self._lines.flush()

    def _judged(self, judged: Judged) -> None:
        counts, decision = self._counts, judged.decision
        outcome, reason = decision.outcome, reason_of(decision)
        counts.decided(judged.client, decision, outcome, reason)
        if self.told:
            event = self._event(judged, outcome, reason)
            written = self._lines.add("info", "verdict", event, judged.at) if self._logged else None
            if counts.records:
                counts.recorded(event, written, judged.at)

    def _event(self, judged: Judged, outcome: Outcome, reason: Reason) -> dict[str, object]:
        """The event ``verdict`` of DESIGN section 7."""
        _, client, answers, queue_id, helo, sender, recipient, decision = judged
        verdict, reply, touch = decision.verdict, decision.reply, decision.touch
        rule = verdict.rule
        fields: dict[str, object] = {
            "queue_id": queue_id or None,
            "client": client.address,
            "host": client.host,
            "helo": helo,
            "sender": sender.text,
            "recipient": recipient.text,
            "rule": rule.name if rule else None,
            # Not `value`, which is a function in Python.
            "action": verdict.action._value_,
            "outcome": outcome._value_,
            "reason": reason._value_,
            "lists": self._listings(answers),
            "state": touch.state._value_ if touch else None,
            "age": touch.age if touch else None,
            "wait_ms": round(decision.waited * 1000, 1),
            "enforced": self._enforced,
        }
        if reply is not None:
            fields["reply"] = f"{reply.code} {reply.enhanced} {reply.text}"
        if verdict.noted:
            fields["noted"] = [rule.name for rule in verdict.noted]
        if decision.store_error:
            fields["store_error"] = decision.store_error
        if client.pools:
            fields["pools"] = sorted(client.pools)
        fields.update(_learnt(decision))
        return fields

    def _listings(self, answers: Mapping[str, Answer]) -> dict[str, str | Sequence[str]]:
        """Each list that has the client, with its codes, or failed, with why."""
        return {
            self._zones[zone].label: answer.error or [code_text(c) for c in answer.codes]
            for zone, answer in answers.items()
            if answer.codes or answer.error
        }


def _learnt(decision: Decision) -> Iterator[tuple[str, object]]:
    """What was asked for, and is known."""
    if isinstance(decision.spf, Spf):
        yield "spf", decision.spf.result
        yield "proved", bool(decision.spf.proved)
    if isinstance(decision.correspondent, bool):
        yield "correspondent", decision.correspondent
    if decision.scanned is not None:
        score, error, seconds, spam = decision.scanned
        yield "score", None if isinstance(score, Unknown) else score
        yield "scan_ms", round(seconds * 1000, 1)
        if error:
            yield "scan_error", error
        if spam is not None:
            yield "spam", spam


class InTurns(Events):
    """One worker's that has one thread: with many sessions all of a turn is told at once, by `turned`.

    With few each verdict is told before its reply: who reads the log then has it.
    """

    def turned(self) -> None:
        """Tell all that has happened in a turn of the loop."""
        if self._waiting:
            self._settle()

    def opened(self, _sessions: int) -> None:
        """As in Events."""
        self._counts.opened()

    def closed(self, _sessions: int) -> None:
        """As in Events."""
        self._counts.closed()

    def _see_to_it(self, *, now: bool) -> None:
        if now:
            self._settle()
