"""One client's questions to all lists: what is asked, and how long answers are waited for.

At CONNECT `ask` sends all questions at once and returns.  `Lookup.peek` reads what is there; at RCPT
`Lookup.collect` waits for what the verdict still needs.  How questions and answers travel is the affair of
`exchange`, what they mean that of `findings`; waits are those of `awaited`: nothing here blocks.

The wait for one client ends `timeout` seconds after CONNECT, retransmissions included.  Lists and nameservers
that do not answer are taken out by `upstream` after a few clients.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from hybridgrey.lists import question
from hybridgrey.lists.awaited import Answers, OverTcp, Steps
from hybridgrey.lists.exchange import RETRY_AFTER
from hybridgrey.lists.findings import LEAST_FRESH, TEXT, VERDICT, Findings
from hybridgrey.lists.recall import Recalled, first_text, recall
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.zones import Zone
from hybridgrey.policy.judge import Answer

# The longest wait (seconds) for a refusal's TXT record, where it is waited for at all (see `texts`).
TEXT_WAIT: Final = 0.1
# A list whose TCP was silent gets this little time (seconds) to show that it is back.
TCP_SECOND_CHANCE: Final = 0.1
# What stands for the answers about a client without an IP address: no list can have it.
NO_ADDRESS: Final = Answer(error="no IP address")
SUSPENDED: Final = Answer(error="suspended")


def ask(resolver: Resolver, client: bytes, zones: Iterable[str]) -> Lookup | Recalled:
    """Ask lists about a client, 4 or 16 bytes, without waiting; what the cache knows is not asked."""
    record = resolver.cache.get(client)
    wanted = [resolver.zones[name] for name in zones]
    suspended = resolver.suspended()
    if record and not any(suspended[zone.index] for zone in wanted):
        recalled = recall(record, wanted, time.monotonic(), suspended)
        if recalled is not None:
            return recalled
    lookup = Lookup(resolver, client, suspended)
    lookup.begin(wanted)
    return lookup


def is_fresh(resolver: Resolver, lookup: Lookup | Recalled) -> bool:
    """Whether what a look-up has will do for another transaction of its client.

    It does while no answer is older than its time to live, and no list has lost its vote or got it back.
    """
    return (
        lookup.is_fresh(time.monotonic())
        and lookup.started >= resolver.forgot_at
        and lookup.suspended == resolver.suspended()
    )


class Lookup(Findings):
    """The questions of one client and the answers that are in; used by one thread at a time."""

    __slots__ = ("_deadline",)

    def begin(self, zones: Iterable[Zone]) -> None:
        """Take from the cache what it has, and ask the other lists."""
        record, now, suspended = self._record, self.started, self.suspended
        self._deadline = now + self._resolver.timeout
        wanted = []
        quoted: Zone | None = None
        for zone in zones:
            name = zone.name
            if suspended[zone.index]:
                self.answers[name] = SUSPENDED
            elif (known := record.get(name)) is not None and known[0] > now:
                self.answers[name] = known[1]
                self._expires(known[0])
                if known[2] is not None:
                    self.texts[name] = known[2]
                elif zone.wants_text and known[1].codes:
                    quoted = quoted or zone
            else:
                wanted.append((zone, zone.tail))
        if wanted:
            self._exchange.ask(question.reversed_name(self._client), wanted, VERDICT)
            self._exchange.when_whole(self.peek)
        if quoted and not self.texts:
            self._find_text(quoted)

    def tell(self, zone: str, text: str) -> None:
        """The words of a list for the client, from somebody who has them already."""
        self.texts[zone] = text

    def is_fresh(self, now: float) -> bool:
        """Whether no answer has expired; reads those that have come long ago."""
        if now < self._look_at:
            return True
        if self._exchange.open:
            self.peek()
        self._look_at = min(self._expiry, now + LEAST_FRESH) if self._exchange.open else self._expiry
        return now < self._expiry

    def peek(self) -> None:
        """Use the answers that have come, without waiting; ask again when it is time to."""
        exchange = self._exchange
        if exchange.open:
            self._receive()
            now = time.monotonic()
            if exchange.open and now >= exchange.due:
                self._repeat(now)
            if not exchange.open:
                exchange.release()

    def collect(self, zones: frozenset[str]) -> Steps[None]:
        """Wait until one of these lists has answered or the client's time is up.

        `zones` have no answer yet.  Afterwards at least one of them has; those that let the time pass have
        failed.
        """
        exchange, answers, lists = self._exchange, self.answers, self._resolver.lists
        self.peek()
        while zones.isdisjoint(answers):
            if self._truncated:
                yield from self._ask_tcp(zones)
                if not zones.isdisjoint(answers):
                    break
            now = time.monotonic()
            done = not exchange.open or exchange.deaf
            if done or now >= self._deadline or not any(map(lists.waits_for, zones)):
                self._give_up(zones, now)
                break
            yield Answers(exchange, min(self._deadline, exchange.due))
            self.peek()

    def await_text(self, zones: Sequence[str]) -> Steps[tuple[str, str]]:
        """One of these lists, which have the client, with its TXT record, "" if that has not come.

        It is waited for shortly, and only if that is worth it (see `texts`).
        """
        self.peek()
        if self._text_of not in zones and self.texts.keys().isdisjoint(zones):
            # Another list's text was asked for, one whose code matches no entry.
            self._find_text(self._resolver.zones[zones[0]])
        if self._expects_text(zones):
            yield from self._wait_for_text(self._text_of)
        return first_text(zones, self.texts)

    def close(self) -> None:
        """End the lookup; answers that have come meanwhile still reach the cache."""
        exchange = self._exchange
        exchange.ended = True
        if exchange.open:
            self._receive()
        exchange.close()

    def _receive(self) -> None:
        for zone, purpose, reply, server in self._exchange.receive():
            self.take(zone, purpose, reply, server)

    def _repeat(self, now: float) -> None:
        """Ask again what is open."""
        self._exchange.repeat(now)
        if self._exchange.tries == 1 and now >= self._deadline:
            # A slow dialogue: nobody has looked at the answers until now.  That one datagram was lost must
            # not cost a list its vote, and this client has not been made to wait yet.
            self._deadline = now + min(RETRY_AFTER, self._resolver.timeout)

    def _expects_text(self, zones: Sequence[str]) -> bool:
        """Whether a text from one of these lists is on its way and worth the wait."""
        zone = self._text_of
        if zone not in zones or not self._exchange.expects(TEXT):
            return False
        return self._resolver.reasons.worth_waiting(
            zone, self.answers[zone].codes, self._name(), time.monotonic()
        )

    def _wait_for_text(self, zone: str) -> Steps[None]:
        reasons = self._resolver.reasons
        started = now = time.monotonic()
        limit = started + min(TEXT_WAIT, self._resolver.timeout)
        while zone not in self.texts and not self._exchange.deaf and now < limit:
            yield Answers(self._exchange, limit)
            self.peek()
            now = time.monotonic()
        reasons.waited(zone, now - started)
        if zone not in self.texts:
            reasons.learn(zone, self.answers[zone].codes, self._name(), "", now)

    def _ask_tcp(self, zones: frozenset[str]) -> Steps[None]:
        """Ask again over TCP what came truncated (RFC 1035 section 4.2.1)."""
        for name in self._truncated.keys() & zones:
            zone, server = self._truncated.pop(name)
            left = self._deadline - time.monotonic()
            if not self._resolver.lists.waits_for(name):
                left = min(left, TCP_SECOND_CHANCE)
            where = self._resolver.servers.addresses[server]
            asked = question.reversed_name(self._client) + zone.tail
            reply: question.Reply | None = yield OverTcp(asked, where, max(left, 0.0))
            if reply is not None:
                self.take(zone, VERDICT, reply, server)
                continue
            self._silent(zone, "no answer over TCP in time", time.monotonic())
            self._resolver.lists.silent(zone)

    def _give_up(self, zones: frozenset[str], now: float) -> None:
        """Lists that have not answered have no vote on this recipient; a late answer has one on the next."""
        for name in zones:
            if name not in self.answers:
                zone = self._resolver.zones[name]
                self._silent(zone, "no answer in time", now)
                if now >= self._deadline:
                    self._resolver.lists.silent(zone)
