"""The sequence for one recipient: judge, wait for lists, ask the greylist, and find the words of the reply.

`Screen.connect` looks a client up, `Screen.judge` answers for one recipient with a `Decision`.  Nothing
here knows libmilter, so that `explain` goes the same way as the mail does.
"""

from __future__ import annotations

import string
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from hybridgrey.clientaddress import ClientAddress
from hybridgrey.config.load import Config
from hybridgrey.envelope import Mailbox
from hybridgrey.greylist.triplets import Touch
from hybridgrey.lists import lookup
from hybridgrey.lists.lookup import Lookup, Resolver
from hybridgrey.lists.recall import Recalled
from hybridgrey.lists.zones import Zone, code_text
from hybridgrey.outcome import Outcome
from hybridgrey.policy.judge import Action, Facts, Policy, Rule, Verdict, judge
from hybridgrey.store.connection import StoreError

# RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets, its code and line end included.
MAX_TEXT = 480
MAX_REASON = 250

# Which rules may match a client at all differs little between clients; beyond this it is worked out anew.
MOST_PLANS = 4096

REFUSED = "5.7.1 Service unavailable; client [{client}] blocked"
DENIED = "5.7.1 Access denied"
LATER = "4.7.1 Service unavailable, please try again later"
STORE_DOWN = "4.3.0 Temporary failure, please try again later"

_PRINTABLE = frozenset(string.printable) - frozenset("\t\n\r\v\f")


class Triplets(Protocol):
    """The greylist, as far as a verdict needs it."""

    def touch(self, client: str, sender: str, recipient: str, delay: int) -> Touch:
        """Note an attempt; raises StoreError."""


class Reply(NamedTuple):
    """An SMTP reply: code, enhanced code (RFC 3463) and text, printable ASCII of bounded length."""

    code: str
    enhanced: str
    text: str


class Decision(NamedTuple):
    """What happens to a recipient and why.

    `reply` is None when it passes.  `touch` is the greylist's answer, None where it was not asked or, with
    `store_error`, could not be.  `waited` is the time spent in `judge`, `stored` the part of it that the
    store took, both in seconds.
    """

    verdict: Verdict
    reply: Reply | None = None
    touch: Touch | None = None
    store_error: str = ""
    waited: float = 0.0
    stored: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """What the client gets."""
        if self.reply is None:
            return Outcome.ACCEPTED
        if self.reply.code[0] == "5":
            return Outcome.REJECTED
        return Outcome.GREYLISTED if self.touch is not None else Outcome.DEFERRED


class Client:
    """A connected client: what is known of it, its look-up under way, and how many recipients it had."""

    __slots__ = ("facts", "host", "judged", "lookup", "refused", "source", "trusted")

    def __init__(self, source: ClientAddress, host: str | None, facts: Facts) -> None:
        self.source = source
        self.host = host
        self.facts = facts
        self.trusted: Verdict | None = None
        self.lookup: Lookup | Recalled | None = None
        # Recipients judged, and those of them that were rejected for what lists said: for `counting`.
        self.judged = self.refused = 0

    @property
    def address(self) -> str:
        """The address as the MTA has it, for the log."""
        return self.source.text

    def close(self) -> None:
        """End the look-up."""
        if self.lookup is not None:
            self.lookup.close()


class Screen:
    """The filter of one configuration; thread safe."""

    def __init__(
        self, config: Config, policy: Policy, zones: Sequence[Zone], resolver: Resolver, greylist: Triplets
    ) -> None:
        self.policy = policy
        self.zones = {z.name: z for z in zones}
        self._plans: dict[int, tuple[Verdict | None, tuple[str, ...]]] = {}
        self._resolver = resolver
        self._greylist = greylist
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
            client.lookup = self._resolver.ask(asked, zones)
        return client

    def renew(self, client: Client) -> Client:
        """The client as a new connection would find it: itself, unless what lists said of it is too old.

        To be called when a transaction begins.  If another one is returned, the look-up of the first has
        ended; to count what it has heard is the caller's part.
        """
        if client.lookup is None or self._resolver.is_fresh(client.lookup):
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

    def judge(self, client: Client, transaction: int, sender: Mailbox, recipient: Mailbox) -> Decision:
        """Judge a recipient; `transaction` is `Policy.transaction`'s mask. Never raises for a bad world."""
        if client.trusted is not None:
            return Decision(client.trusted)
        started = time.monotonic()
        verdict = self._verdict(client, self.policy.recipient(transaction, recipient))
        match verdict.action:
            case Action.ACCEPT:
                return Decision(verdict, waited=time.monotonic() - started)
            case Action.REJECT:
                reply = self._refusal(client, verdict)
                return Decision(verdict, reply, waited=time.monotonic() - started)
            case Action.TEMPFAIL:
                reply = _reply("451", _rule_text(verdict) or LATER)
                return Decision(verdict, reply, waited=time.monotonic() - started)
            case _ if client.source.packed is None:
                # A process of this host, or a client the MTA cannot name: no network to remember it by.
                return Decision(verdict)
            case _:
                return self._greylisted(client, verdict, sender, recipient, started)

    def _verdict(self, client: Client, mask: int) -> Verdict:
        answers = client.lookup.answers if client.lookup else {}
        if client.lookup:
            client.lookup.peek()
        while True:
            outcome = judge(self.policy, Facts(mask, mask, answers))
            if isinstance(outcome, Verdict):
                return outcome
            if client.lookup is None:
                # A client without an IP address is in no list.
                answers = dict.fromkeys(outcome.zones, lookup.NO_ADDRESS)
            else:
                client.lookup.collect(outcome.zones)

    def _greylisted(
        self, client: Client, verdict: Verdict, sender: Mailbox, recipient: Mailbox, started: float
    ) -> Decision:
        rule = verdict.rule
        delay = self._delay
        if rule is not None and rule.delay is not None and not rule.unclear(sender, recipient):
            delay = rule.delay
        asked = time.monotonic()
        reply = touch = None
        error = ""
        try:
            touch = self._greylist.touch(client.source.listed, sender.key, recipient.key, delay)
        except StoreError as e:
            error = str(e)
            if not self._accept_without_store:
                reply = _reply("451", STORE_DOWN)
        if touch is not None and not touch.accepted:
            text = (_rule_text(verdict) or self._text).replace("{seconds}", str(touch.seconds_left))
            reply = _reply(self._code, text)
        now = time.monotonic()
        return Decision(verdict, reply, touch, error, waited=now - started, stored=now - asked)

    def _refusal(self, client: Client, verdict: Verdict) -> Reply:
        text = _rule_text(verdict)
        if text is None:
            hits = [h.zone for h in verdict.hits if h.weight > 0]
            text = self._listed(client, hits) if hits else DENIED
        return _reply("554", text)

    def _listed(self, client: Client, zones: Sequence[str]) -> str:
        """The words for a client on blocklists: one of them, and its reason if one has come in time."""
        zone, reason = zones[0], ""
        if client.lookup is not None:
            zone, reason = client.lookup.await_text(zones)
        listed = self.zones[zone]
        text = f"{REFUSED.format(client=client.source.listed)} using {listed.label}"
        # Many a list's reason names the zone that was asked, with the customer's key in it.
        return f"{text}; {plain(listed.without_key(reason))[:MAX_REASON]}" if reason else text

    def dnswl(self, verdict: Verdict) -> Iterator[str]:
        """RFC 8904 results for the allowlists that let a client in, without the authserv-id."""
        if verdict.action is Action.ACCEPT:
            for hit in verdict.hits:
                if hit.weight > 0:
                    zone = self.zones[hit.zone].label
                    yield f"dnswl=pass dns.zone={zone} policy.ip={code_text(hit.codes[0])}"


def plain(text: str) -> str:
    """Text of somebody else's as printable ASCII, anything else as "?"."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in _PRINTABLE else "?" for c in text)


def _rule_text(verdict: Verdict) -> str | None:
    rule: Rule | None = verdict.rule
    return rule.text if rule is not None else None


def _reply(code: str, text: str) -> Reply:
    """A reply; an enhanced code at the head of the text is taken from there."""
    enhanced, _, rest = text.partition(" ")
    fields = enhanced.split(".")
    if len(fields) == 3 and fields[0] == code[0] and all(f.isdigit() for f in fields) and rest:
        return Reply(code, enhanced, plain(rest)[:MAX_TEXT])
    return Reply(code, f"{code[0]}.7.1", plain(text)[:MAX_TEXT])
