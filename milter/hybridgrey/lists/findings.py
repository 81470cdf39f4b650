"""What lists have said of one client: which answers count, their words, and for how long they hold.

A list that has died may list the world from one moment to the next, and `health` looks only every few
minutes.  So when a list has had several clients in a row, the next one's listing is *held* until the list has
been asked about an address that nobody can have; if it lists that, too, it has no vote.
"""

from __future__ import annotations

import socket
import time
from functools import lru_cache
from typing import Final

from hybridgrey.lists import question
from hybridgrey.lists.cache import Known, Record
from hybridgrey.lists.exchange import Exchange
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.zones import Zone
from hybridgrey.policy.judge import NOT_LISTED, Answer

# Seconds for which an open connection does with an answer at least, even one that is not to be kept: who
# sends MAIL after MAIL must not make us ask a hundred times a second.
LEAST_FRESH: Final = 1.0
# The same for a list that has failed; RFC 2308 section 7 allows up to five minutes.
FAILURE_FRESH: Final = 5.0
# What a question is for.
VERDICT, TEXT, CHECK = range(3)

LISTS_ANYBODY: Final = "lists any address, and so perhaps the world"


@lru_cache(maxsize=1024)
def _denial(milliseconds: int) -> Answer:
    """A denial that took so long: one for all clients, for nearly every list denies nearly every client."""
    return Answer(seconds=milliseconds / 1000)


class Findings:
    """What is known of one client, and the questions about it that are under way.

    `answers` is by zone, as `Facts` wants it; `texts` has TXT records of lists that have the client.
    An answer's `seconds` go from CONNECT to when it was read, so they are the list's own time only if we
    had to wait for it, or somebody read it at once; those of a denial are whole milliseconds.  `heard` is
    what came in answer to these questions, not from the cache.
    """

    __slots__ = (
        "_client",
        "_exchange",
        "_expiry",
        "_held",
        "_kept",
        "_look_at",
        "_record",
        "_resolver",
        "_text_of",
        "_truncated",
        "answers",
        "heard",
        "started",
        "suspended",
        "texts",
    )

    def __init__(self, resolver: Resolver, client: bytes, suspended: bytes) -> None:
        """`suspended`: the resolver's flags as they are now."""
        self.started = now = time.monotonic()
        self.suspended = suspended
        # When the first of the answers expires; and until when nobody need look, for what lies in the socket
        # expires, too.
        self._expiry = float("inf")
        self._look_at = now + LEAST_FRESH
        self.answers: dict[str, Answer] = {}
        self.texts: dict[str, str] = {}
        self.heard: list[tuple[Zone, Answer]] = []
        self._record: Record = resolver.cache.get(client) or {}
        self._kept = False
        self._resolver = resolver
        self._client = client
        self._exchange: Exchange[Zone] = resolver.exchange(resolver.servers, now)
        # Listings that wait for the list's check, and for how many seconds they hold, by list.
        self._held: dict[str, tuple[Answer, int]] = {}
        # Lists to be asked over TCP, and at which nameserver.
        self._truncated: dict[str, tuple[Zone, int]] = {}
        # The list that has been asked for its text; one reason is enough for a refusal.
        self._text_of = ""

    def take(self, zone: Zone, purpose: int, reply: question.Reply, server: int) -> None:
        """Use a reply to a question that was asked for a purpose, given by a nameserver."""
        if purpose == VERDICT:
            if reply.truncated:
                self._truncated[zone.name] = zone, server
            elif reply.codes:
                self._take_listing(zone, reply)
            else:
                self._take_denial(zone, reply.ttl, reply.error)
        elif purpose == CHECK:
            self._take_check(zone, reply)
        else:
            # One that came truncated is done without: it would be cut to fit the reply anyway.
            self._take_text(zone, reply)

    def _take_listing(self, zone: Zone, reply: question.Reply) -> None:
        now = time.monotonic()
        answer = zone.answer(reply.codes, now - self.started)
        if not answer.error and self._resolver.lists.doubts(zone):
            self._hold(zone, answer, reply.ttl)
        else:
            self._use(zone, answer, reply.ttl, now)

    def _take_denial(self, zone: Zone, ttl: int, error: str) -> None:
        """Use what nearly every list says of nearly every client, or the error that it has instead."""
        now, name, lists = time.monotonic(), zone.name, self._resolver.lists
        answer = Answer((), error, now - self.started) if error else _denial(int((now - self.started) * 1000))
        self.answers[name] = answer
        self.heard.append((zone, answer))
        lists.run[name] = 0
        if error or lists.troubled:
            lists.heard(zone, answer)
        if error:
            self._expires(now + FAILURE_FRESH)
            return
        expiry = self._expires_in(ttl)
        if ttl:
            # One answer for all denials: the cache is nearly all of them.
            self._remember(name, (expiry, NOT_LISTED, None))

    def _hold(self, zone: Zone, answer: Answer, ttl: int) -> None:
        """Keep a listing back until the list has been asked about an address that it cannot have."""
        if not self._exchange.ended:
            self._held[zone.name] = answer, ttl
            nobody = question.reversed_name(zone.nobody(ipv6=len(self._client) == 16))
            self._exchange.ask(nobody, [(zone, zone.tail)], CHECK)

    def _take_check(self, zone: Zone, reply: question.Reply) -> None:
        """Use the listing that was held, or tell that the list has no vote."""
        now = time.monotonic()
        lists = self._resolver.lists
        answer, ttl = self._held.pop(zone.name)
        if reply.codes or reply.error or reply.truncated:
            error = reply.error or zone.answer(reply.codes).error or LISTS_ANYBODY
            if zone.name not in lists.failing:
                # What it said of the clients before this one is worth no more.
                self._resolver.forget(zone.name, now)
            answer, ttl = Answer(error=error, seconds=now - self.started), 0
        else:
            lists.checked(zone)
        self._use(zone, answer, ttl, now)

    def _use(self, zone: Zone, answer: Answer, ttl: int, now: float) -> None:
        """Use a listing, or the error that it turned out to be."""
        self.answers[zone.name] = answer
        self.heard.append((zone, answer))
        if answer.error or self._resolver.lists.troubled:
            self._resolver.lists.heard(zone, answer)
            if answer.error:
                self._expires(now + FAILURE_FRESH)
                return
        expiry = self._expires_in(ttl)
        if ttl:
            self._remember(zone.name, (expiry, answer, None))
        if zone.wants_text and not self._text_of and not self._exchange.ended:
            self._find_text(zone)

    def _remember(self, zone: str, known: Known) -> None:
        self._record[zone] = known
        if not self._kept:
            self._kept = True
            self._resolver.cache.keep(self._client, self._record, len(self._resolver.zones))

    def _take_text(self, zone: Zone, reply: question.Reply) -> None:
        self.texts[zone.name] = reply.text
        answer, now = self.answers.get(zone.name), time.monotonic()
        if answer is not None and not reply.error:
            self._resolver.reasons.learn(zone.name, answer.codes, self._name(), reply.text, now)
        known = self._record.get(zone.name)
        if reply.ttl and known is not None:
            self._remember(zone.name, (min(now + reply.ttl, known[0]), known[1], reply.text))

    def _silent(self, zone: Zone, error: str, now: float) -> None:
        answer = self.answers[zone.name] = Answer(error=error, seconds=now - self.started, silent=True)
        self.heard.append((zone, answer))
        self._expires(now + FAILURE_FRESH)

    def _find_text(self, zone: Zone) -> None:
        """Find the words of a list that has the client: those that it has for others too, or ask it."""
        name = self._text_of = zone.name
        codes, now = self.answers[name].codes, time.monotonic()
        text = self._resolver.reasons.guess(name, codes, self._name(), now)
        if text is None:
            self._exchange.ask(question.reversed_name(self._client), [(zone, zone.text_tail)], TEXT)
            return
        self.texts[name] = text
        known = self._record.get(name)
        if known is not None and known[0] > now:
            self._record[name] = known[0], known[1], text

    def _name(self) -> str:
        """The client's address as lists write it."""
        return socket.inet_ntop(socket.AF_INET if len(self._client) == 4 else socket.AF_INET6, self._client)

    def _expires(self, at: float) -> None:
        """Note when an answer does."""
        # Compared by hand, for it comes with each answer; one always looks before the expiry.
        if at < self._expiry:
            self._expiry = at
            if at < self._look_at:
                self._look_at = at

    def _expires_in(self, ttl: int) -> float:
        """Note an answer's time to live, from when it was asked for; when it ends.

        It may have lain in the socket for minutes.
        """
        asked_at = self._exchange.asked_at
        self._expires(asked_at + max(ttl, LEAST_FRESH))
        return asked_at + ttl
