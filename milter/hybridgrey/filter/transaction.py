"""What a session knows: its client, its current mail, and what was decided of a recipient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hybridgrey.clientaddress import ClientAddress
from hybridgrey.content.scanner import Scanned
from hybridgrey.envelope import Mailbox
from hybridgrey.filter.reply import Reply
from hybridgrey.greylist.triplets import State, Touch
from hybridgrey.lists.lookup import Lookup
from hybridgrey.lists.recall import Recalled
from hybridgrey.outcome import Outcome, Reason
from hybridgrey.policy.conditions import Spf, Unknown
from hybridgrey.policy.judge import Facts, Verdict
from hybridgrey.spf.carrier import Chain
from hybridgrey.spf.evaluate import Outcome as Checked


class Decision(NamedTuple):
    """What happens to a recipient and why.

    `reply` is None when it passes.  `touch` is the greylist's answer, None where it was not asked or, with
    `store_error`, could not be.  `waited` is the time spent in `judge`, `stored` the part of it that the
    store took, both in seconds.  `expected`: it would be delayed, but its mail is expected.  `domain`: the
    sender's, if the greylist lets it in for that and not for its network.  `spf` and `correspondent` are None
    where nobody has asked, `scanned` where nobody has scanned.  `deferred`: why it is put off, where that is
    not the rule's doing nor the greylist's.
    """

    verdict: Verdict
    reply: Reply | None = None
    touch: Touch | None = None
    store_error: str = ""
    waited: float = 0.0
    stored: float = 0.0
    expected: bool = False
    domain: str = ""
    spf: Spf | Unknown | None = None
    correspondent: bool | Unknown | None = None
    scanned: Scanned | None = None
    deferred: Reason | None = None

    @property
    def outcome(self) -> Outcome:
        """What the client gets."""
        if self.deferred is not None:
            return Outcome.DEFERRED
        if self.reply is None:
            return Outcome.ACCEPTED
        if self.reply.code[0] == "5":
            return Outcome.REJECTED
        return Outcome.GREYLISTED if self.touch is not None else Outcome.DEFERRED


class Client:
    """A connected client: what is known of it, and its look-up under way; `pools` are those that it is in.

    `zones`: how many lists are asked about it.
    """

    __slots__ = ("facts", "host", "lookup", "pools", "source", "trusted", "zones")

    def __init__(
        self, source: ClientAddress, host: str | None, facts: Facts, pools: frozenset[str] = frozenset()
    ) -> None:
        self.pools = pools
        self.zones = 0
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
    at most, in seconds; `results` are those of RFC 8904, in their order.  `spf` and `correspondent` are what
    was learnt of the sender, None where nobody has asked; `chain` is how SPF is being found out.
    `recipients` is the number of those let in, `written` those of them that are correspondents now.
    `scans`: whether its message can be scanned.
    """

    __slots__ = (
        "authenticated",
        "chain",
        "client",
        "correspondent",
        "delay",
        "helo",
        "recipients",
        "results",
        "rules",
        "scans",
        "sender",
        "spf",
        "written",
    )

    def __init__(
        self, client: Client, helo: str | None, sender: Mailbox, *, authenticated: bool, rules: int
    ) -> None:
        self.client = client
        self.helo = helo
        self.sender = sender
        self.authenticated = authenticated
        self.rules = rules
        self.delay = 0
        self.scans = False
        self.results: dict[str, None] = {}
        self.spf: Spf | Unknown | None = None
        self.correspondent: bool | None = None
        self.recipients = 0
        self.written: list[Mailbox] = []
        self.chain: Chain[Checked] | None = None

    def passes(self, touch: Touch | None, results: Iterable[str]) -> None:
        """A recipient passes: what the greylist has said of it, and what is to be said of lists."""
        self.recipients += 1
        if touch is not None and touch.state is State.PASSED:
            self.delay = max(self.delay, touch.age)
        self.results.update(dict.fromkeys(results))

    def close(self) -> None:
        """It is over; what SPF still hears reaches the cache only."""
        if self.chain is not None:
            self.chain.close()
            self.chain = None
