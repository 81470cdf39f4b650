"""The sequence for one recipient: judge, wait for lists, ask the greylist, and find the words of the reply.

`Screen.connect` looks a client up, `Screen.judge` answers for one recipient with a `Decision`.  It is a
generator, which yields what it waits for (see `awaited`) and blocks nowhere; nothing here knows an engine, so
that mail goes the same way with each, and `explain` too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from hybridgrey.clientaddress import Carried, ClientAddress
from hybridgrey.config.load import Config
from hybridgrey.content.scanner import Scanned, Scanner
from hybridgrey.envelope import Mailbox
from hybridgrey.filter.awaited import Steps
from hybridgrey.filter.judgement import Correspondents, Judgement, Parts, Said, Triplets
from hybridgrey.filter.proof import Carrier
from hybridgrey.filter.reply import DENIED, LATER, STORE_DOWN, Reply, blocked, worded
from hybridgrey.filter.scored import ScoredJudgement
from hybridgrey.filter.transaction import Client, Decision, Transaction
from hybridgrey.hand.expected import Expected
from hybridgrey.lists import lookup
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.zones import Zone, code_text
from hybridgrey.policy.judge import Action, Facts, Policy, Pools, Rule, Verdict

__all__ = ["Client", "Decision", "InPools", "Said", "Screen", "Transaction", "Triplets"]

# Which rules may match a client at all differs little between clients; beyond this it is worked out anew.
MOST_PLANS = 4096

InPools = Callable[[bytes | None, Carried | None], Pools]
"""The pools that a client is in (`spf.poolindex.PoolIndex.of`)."""


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
        by_hand: Said | None = None,
        *,
        spf: Carrier | None = None,
        correspondents: Correspondents | None = None,
        pools: InPools | None = None,
        scanner: Scanner | None = None,
    ) -> None:
        """`by_hand` is asked for each recipient, so what it knows may change meanwhile.

        `pools` is asked for each client; without it nothing is known of any pool.
        """
        self.policy = policy
        self.zones = {z.name: z for z in zones}
        self.scanner = scanner if any(rule.score is not None for rule in policy.rules) else None
        """What gives scores, if a rule wants one."""
        self._plans: dict[int, tuple[Verdict | None, tuple[str, ...]]] = {}
        self._resolver = resolver
        self._parts = Parts(
            policy,
            greylist,
            delay=config.greylist.delay,
            timeout=config.store.timeout,
            sender_pools=config.greylist.sender_pools,
            accept_without_store=config.store.on_failure == "accept",
            remembered={},
            expected=expected,
            by_hand=by_hand,
            spf=spf,
            correspondents=correspondents,
        )
        # What is known where nobody is asked: nothing, if rules name pools.
        self._no_pool = Pools(unknown=frozenset(policy.pools))
        self._pools = pools if policy.pools else None
        self._code = config.greylist.code
        self._text = config.greylist.text

    def connect(self, text: str, host: str | None) -> Client:
        """A client has connected: its address, and its host name if that is verified. Starts the look-up."""
        source = self.policy.clients.read(text)
        pools = self.within(source)
        facts = self.policy.connect(source.packed, host, source.carried, pools)
        return self._looked_up(Client(source, host, facts, pools.within))

    def within(self, source: ClientAddress) -> Pools:
        """The pools that a client is in."""
        return self._pools(source.packed, source.carried) if self._pools else self._no_pool

    def _looked_up(self, client: Client) -> Client:
        client.trusted, zones = self._plan(client.facts)
        asked = client.source.asked
        if zones and asked is not None:
            client.lookup = lookup.ask(self._resolver, asked, zones)
            client.zones = len(zones)
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
        return self._looked_up(Client(client.source, client.host, client.facts, client.pools))

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

    def judge(self, transaction: Transaction, recipient: Mailbox) -> Steps[Decision | ScoredJudgement]:
        """Judge a recipient; its judgement if that is pending. Never raises for a bad world."""
        client = transaction.client
        if client.trusted is not None:
            return Decision(client.trusted)
        started = time.monotonic()
        if transaction.scans and self.scanner is not None and not self.scanner.down:
            scored = ScoredJudgement(self._parts, transaction, recipient)
            verdict = yield from scored.verdict()
            return scored if scored.pending else (yield from self._decided(scored, verdict, started))
        judgement = Judgement(self._parts, transaction, recipient)
        verdict = yield from judgement.verdict()
        return (yield from self._decided(judgement, verdict, started))

    def decide(self, judgement: ScoredJudgement, scanned: Scanned) -> Steps[Decision]:
        """Judge a pending recipient by its score."""
        started = time.monotonic()
        verdict = yield from judgement.scored(scanned.score)
        return (yield from self._decided(judgement, verdict, started))._replace(scanned=scanned)

    def delay(self, judgement: ScoredJudgement) -> Steps[Decision]:
        """Judge a pending recipient whose score is not to be known, as if it could not be."""
        return (yield from self._decided(judgement, judgement.unscored(), time.monotonic()))

    def _decided(self, judgement: Judgement, verdict: Verdict, started: float) -> Steps[Decision]:
        transaction = judgement.mail
        client, reply = transaction.client, None
        match verdict.action:
            case Action.ACCEPT:
                pass
            case Action.REJECT:
                reply = yield from self._refusal(client, verdict)
            case Action.TEMPFAIL:
                reply = worded("451", _rule_text(verdict) or LATER)
            case _ if client.source.packed is None:
                # A process of this host, or a client the MTA cannot name: no network to remember it by.
                return Decision(verdict)
            case _:
                return (yield from self._greylisted(judgement, verdict, started))
        spf, correspondent = transaction.spf, transaction.correspondent
        waited = time.monotonic() - started
        return Decision(verdict, reply, waited=waited, spf=spf, correspondent=correspondent)

    def _greylisted(self, judgement: Judgement, verdict: Verdict, started: float) -> Steps[Decision]:
        yield from judgement.greylist(verdict)
        touch, reply = judgement.touch, None
        if touch is None and not self._parts.accept_without_store:
            reply = worded("451", STORE_DOWN)
        elif touch is not None and not touch.accepted and not judgement.expected:
            text = (_rule_text(verdict) or self._text).replace("{seconds}", str(touch.seconds_left))
            reply = worded(self._code, text)
        mail = judgement.mail
        return Decision(
            verdict,
            reply,
            touch,
            judgement.store_error,
            time.monotonic() - started,
            judgement.stored,
            judgement.expected,
            judgement.domain,
            mail.spf,
            mail.correspondent,
        )

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
