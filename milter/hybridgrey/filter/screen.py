"""The sequence for one recipient: judge, wait for lists, ask the greylist, and find the words of the reply.

`Screen.connect` looks a client up, `Screen.judge` answers for one recipient with a `Decision`.  It is a
generator, which yields what it waits for (see `awaited`) and blocks nowhere; nothing here knows an engine, so
that mail goes the same way with each, and `explain` too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from hybridgrey.clientaddress import ClientAddress
from hybridgrey.config.load import Config
from hybridgrey.envelope import Mailbox
from hybridgrey.filter.awaited import Call, Steps
from hybridgrey.filter.reply import DENIED, LATER, STORE_DOWN, Reply, blocked, worded
from hybridgrey.greylist.triplets import State, Touch
from hybridgrey.hand.expected import Expected
from hybridgrey.lists import lookup
from hybridgrey.lists.lookup import Lookup
from hybridgrey.lists.recall import Recalled
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.zones import Zone, code_text
from hybridgrey.outcome import Outcome
from hybridgrey.policy.conditions import NO_ENTRY, UNKNOWN
from hybridgrey.policy.judge import Action, Facts, Policy, Rule, Verdict, judge
from hybridgrey.store.connection import StoreError

# Which rules may match a client at all differs little between clients; beyond this it is worked out anew.
MOST_PLANS = 4096


class Triplets(Protocol):
    """The greylist, as far as a verdict needs it."""

    def attempt(self, client: str, sender: str, recipient: str, delay: int) -> Call:
        """The call of an attempt; `Touch.read` takes the reply."""


class Decision(NamedTuple):
    """What happens to a recipient and why.

    `reply` is None when it passes.  `touch` is the greylist's answer, None where it was not asked or, with
    `store_error`, could not be.  `waited` is the time spent in `judge`, `stored` the part of it that the
    store took, both in seconds.  `expected`: it would be delayed, but its mail is expected.
    """

    verdict: Verdict
    reply: Reply | None = None
    touch: Touch | None = None
    store_error: str = ""
    waited: float = 0.0
    stored: float = 0.0
    expected: bool = False

    @property
    def outcome(self) -> Outcome:
        """What the client gets."""
        if self.reply is None:
            return Outcome.ACCEPTED
        if self.reply.code[0] == "5":
            return Outcome.REJECTED
        return Outcome.GREYLISTED if self.touch is not None else Outcome.DEFERRED


class Client:
    """A connected client: what is known of it, and its look-up under way."""

    __slots__ = ("facts", "host", "lookup", "source", "trusted")

    def __init__(self, source: ClientAddress, host: str | None, facts: Facts) -> None:
        self.source = source
        self.host = host
        self.facts = facts
        self.trusted: Verdict | None = None
        self.lookup: Lookup | Recalled | None = None

    @property
    def address(self) -> str:
        """The address as the MTA has it, for the log."""
        return self.source.text

    def close(self) -> None:
        """End the look-up."""
        if self.lookup is not None:
            self.lookup.close()


class Transaction:
    """One mail of a client: what MAIL has said, the rules that may hold for it, what its header is to say.

    `rules` is `Policy.transaction`'s mask.  `delay` is how long greylisting has held up one of its recipients
    at most, in seconds; `results` are those of RFC 8904, in their order.
    """

    __slots__ = ("authenticated", "client", "delay", "helo", "results", "rules", "sender")

    def __init__(
        self, client: Client, helo: str | None, sender: Mailbox, *, authenticated: bool, rules: int
    ) -> None:
        self.client = client
        self.helo = helo
        self.sender = sender
        self.authenticated = authenticated
        self.rules = rules
        self.delay = 0
        self.results: dict[str, None] = {}

    def passes(self, touch: Touch | None, results: Iterable[str]) -> None:
        """A recipient passes: what the greylist has said of it, and what is to be said of lists."""
        if touch is not None and touch.state is State.PASSED:
            self.delay = max(self.delay, touch.age)
        self.results.update(dict.fromkeys(results))


class Screen:
    """The filter of one configuration; thread safe."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        zones: Sequence[Zone],
        resolver: Resolver,
        greylist: Triplets,
        expected: Expected | None = None,
    ) -> None:
        self.policy = policy
        self.zones = {z.name: z for z in zones}
        self._plans: dict[int, tuple[Verdict | None, tuple[str, ...]]] = {}
        self._resolver = resolver
        self._greylist = greylist
        self._expected = expected
        self._delay = config.greylist.delay
        self._code = config.greylist.code
        self._text = config.greylist.text
        self._accept_without_store = config.store.on_failure == "accept"

    def connect(self, text: str, host: str | None) -> Client:
        """A client has connected: its address, and its host name if that is verified. Starts the look-up."""
        source = self.policy.clients.read(text)
        facts = self.policy.connect(source.packed, host, source.carried)
        return self._looked_up(Client(source, host, facts))

    def _looked_up(self, client: Client) -> Client:
        client.trusted, zones = self._plan(client.facts)
        asked = client.source.asked
        if zones and asked is not None:
            client.lookup = lookup.ask(self._resolver, asked, zones)
        return client

    def renew(self, client: Client) -> Client:
        """The client as a new connection would find it: itself, unless what lists said of it is too old.

        To be called when a transaction begins.  If another one is returned, the look-up of the first has
        ended; to count what it has heard is the caller's part.
        """
        if client.lookup is None or lookup.is_fresh(self._resolver, client.lookup):
            return client
        # First: what has come late then is in the cache, and is not asked for again.
        client.close()
        return self._looked_up(Client(client.source, client.host, client.facts))

    def _plan(self, facts: Facts) -> tuple[Verdict | None, tuple[str, ...]]:
        """What follows from CONNECT alone: the verdict, or the lists to ask; alike for most clients."""
        plan = self._plans.get(facts.maybe)
        if plan is None:
            trusted = self.policy.trusted(facts)
            plan = trusted, () if trusted else self.policy.questions(facts)
            if len(self._plans) < MOST_PLANS:
                self._plans[facts.maybe] = plan
        return plan

    def mail(self, client: Client, helo: str | None, sender: Mailbox, *, authenticated: bool) -> Transaction:
        """A transaction begins; `helo` is None where the client has not said it, or nobody has told."""
        rules = self.policy.transaction(client.facts, helo, sender, authenticated=authenticated)
        return Transaction(client, helo, sender, authenticated=authenticated, rules=rules)

    def judge(self, transaction: Transaction, recipient: Mailbox) -> Steps[Decision]:
        """Judge a recipient. Never raises for a bad world."""
        client = transaction.client
        if client.trusted is not None:
            return Decision(client.trusted)
        started = time.monotonic()
        verdict = yield from self._verdict(client, self.policy.recipient(transaction.rules, recipient))
        match verdict.action:
            case Action.ACCEPT:
                return Decision(verdict, waited=time.monotonic() - started)
            case Action.REJECT:
                reply = yield from self._refusal(client, verdict)
                return Decision(verdict, reply, waited=time.monotonic() - started)
            case Action.TEMPFAIL:
                reply = worded("451", _rule_text(verdict) or LATER)
                return Decision(verdict, reply, waited=time.monotonic() - started)
            case _ if client.source.packed is None:
                # A process of this host, or a client the MTA cannot name: no network to remember it by.
                return Decision(verdict)
            case _:
                return (yield from self._greylisted(transaction, verdict, recipient, started))

    def _verdict(self, client: Client, mask: int) -> Steps[Verdict]:
        answers = client.lookup.answers if client.lookup else {}
        if client.lookup:
            client.lookup.peek()
        while True:
            # What nobody can ask about yet is unknown for good.
            facts = Facts(mask, mask, answers, client.facts.unclear, UNKNOWN, NO_ENTRY, UNKNOWN, UNKNOWN)
            outcome = judge(self.policy, facts)
            if isinstance(outcome, Verdict):
                return outcome
            if client.lookup is None:
                # A client without an IP address is in no list.
                answers = dict.fromkeys(outcome.zones, lookup.NO_ADDRESS)
            else:
                yield from client.lookup.collect(outcome.zones)

    def _greylisted(
        self, transaction: Transaction, verdict: Verdict, recipient: Mailbox, started: float
    ) -> Steps[Decision]:
        sender, listed = transaction.sender, transaction.client.source.listed
        rule = verdict.rule
        delay = self._delay
        if rule is not None and verdict.delay is not None and not rule.unclear(sender, recipient):
            delay = verdict.delay
        asked = time.monotonic()
        reply = touch = None
        error, expected = "", False
        try:
            call = self._greylist.attempt(listed, sender.key, recipient.key, delay)
            touch = Touch.read((yield call))
            if not touch.accepted and self._expected is not None:
                expected = self._expected.read((yield self._expected.ask(recipient)))
        except StoreError as e:
            error = str(e)
            if not self._accept_without_store:
                reply = worded("451", STORE_DOWN)
        if expected:
            reply = None
        elif touch is not None and not touch.accepted:
            text = (_rule_text(verdict) or self._text).replace("{seconds}", str(touch.seconds_left))
            reply = worded(self._code, text)
        now = time.monotonic()
        return Decision(verdict, reply, touch, error, now - started, now - asked, expected)

    def _refusal(self, client: Client, verdict: Verdict) -> Steps[Reply]:
        text = _rule_text(verdict)
        if text is None:
            hits = [h.zone for h in verdict.hits if h.weight > 0]
            text = (yield from self._listed(client, hits)) if hits else DENIED
        return worded("554", text)

    def _listed(self, client: Client, zones: Sequence[str]) -> Steps[str]:
        """The words for a client on blocklists: one of them, and its reason if one has come in time."""
        zone, reason = zones[0], ""
        if client.lookup is not None:
            zone, reason = yield from client.lookup.await_text(zones)
        return blocked(client.source.listed, self.zones[zone], reason)

    def dnswl(self, verdict: Verdict) -> Iterator[str]:
        """RFC 8904 results for the allowlists that let a client in, without the authserv-id."""
        if verdict.action is Action.ACCEPT:
            for hit in verdict.hits:
                if hit.weight > 0:
                    zone = self.zones[hit.zone].label
                    yield f"dnswl=pass dns.zone={zone} policy.ip={code_text(hit.codes[0])}"


def _rule_text(verdict: Verdict) -> str | None:
    rule: Rule | None = verdict.rule
    return rule.text if rule is not None else None
