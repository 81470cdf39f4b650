"""One configuration, and what it does with an attempt: the rules of `policy`, the greylist as a function.

Lists are known by their zone or by the label that the log has. A return code that is an error by what is
known of its list is no vote, as when the daemon hears it (`config.known_lists`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from hybridgrey import envelope
from hybridgrey.clientaddress import ClientAddress
from hybridgrey.config.known_lists import error_of, public_label, quirk
from hybridgrey.config.load import Config
from hybridgrey.envelope import Mailbox
from hybridgrey.greylist import normalise
from hybridgrey.greylist.triplets import ADDRESS_PREFIXES, Touch
from hybridgrey.outcome import Outcome
from hybridgrey.policy.conditions import UNKNOWN, Spf, Unknown
from hybridgrey.policy.judge import (
    NO_POOL,
    NOT_LISTED,
    Action,
    Answer,
    Awaited,
    Facts,
    Policy,
    Pools,
    Verdict,
    judge,
)
from hybridgrey.policy.pattern import Pattern
from hybridgrey.replay.greylist import PureGreylist
from hybridgrey.replay.messages import Attempt, Heard
from hybridgrey.replay.unknown import Missing, without

NO_RULE: Final = "(no rule)"
NO_VOTE: Final = Answer(error="no IP address to ask about")
KEPT: Final = 65_536  # clients and mailboxes that are not read again
VARIANTS: Final = 256  # sets of missing facts that differ, each with rules of its own
ANSWERS: Final = 16_384


class Done(NamedTuple):
    """What became of an attempt, and the rule that says so."""

    outcome: Outcome
    rule: str


class Zone(NamedTuple):
    """A list: the name it goes by in the log, and its error codes."""

    label: str
    errors: tuple[Pattern, ...]


class Trial:
    """A configuration in use; `named` are the lists that a log says anything of.

    Its mode is no matter: in observe mode it is what would have been done.
    """

    def __init__(self, config: Config, named: frozenset[str] = frozenset()) -> None:
        terms = config.greylist
        self._rules = config.rules
        self._reader = config.dns.clients
        self._prefixes = terms.ipv4_prefix, terms.ipv6_prefix
        self._delay = terms.delay
        self._sender_pools = terms.sender_pools
        self._greylist = PureGreylist(terms)
        names = dict.fromkeys(entry.zone for rule in config.rules for entry in rule.lists)
        self._zones = {name: _zone(config, name) for name in names}
        self._named = {z for z, (label, _) in self._zones.items() if z in named or label.lower() in named}
        self._client = lru_cache(KEPT)(self._read_client)
        self._sender = lru_cache(KEPT)(normalise.sender)
        self._recipient = lru_cache(KEPT)(normalise.recipient)
        self._policy = lru_cache(VARIANTS)(self._made_policy)
        self._answers = lru_cache(ANSWERS)(self._made_answers)

    def attempt(self, at: Attempt, sender: Mailbox, recipient: Mailbox) -> Done:
        """What becomes of an attempt; times never go back."""
        source = self._client(at.client)[0]
        verdict = self._verdict(at, source, sender, recipient)
        name = verdict.rule.name if verdict.rule else NO_RULE
        match verdict.action:
            case Action.ACCEPT:
                return Done(Outcome.ACCEPTED, name)
            case Action.REJECT:
                return Done(Outcome.REJECTED, name)
            case Action.TEMPFAIL:
                return Done(Outcome.DEFERRED, name)
            case _ if source.packed is None:
                return Done(Outcome.ACCEPTED, name)
        delay, rule = self._delay, verdict.rule
        if verdict.delay is not None and rule is not None and not rule.unclear(sender, recipient):
            delay = verdict.delay
        touch = self._touch(at, sender, recipient, delay)
        let_in = touch.accepted or at.expected is True
        return Done(Outcome.ACCEPTED if let_in else Outcome.GREYLISTED, name)

    def _touch(self, at: Attempt, sender: Mailbox, recipient: Mailbox, delay: int) -> Touch:
        names = self.names(at.client, sender.key, recipient.key)
        if not self._sender_pools or at.proved is not True or not sender.domain:
            return self._greylist.touch(int(at.at), names, delay)
        return self._greylist.touch_both(int(at.at), names, self.domain_names(sender, recipient), delay)

    def domain_names(self, sender: Mailbox, recipient: Mailbox) -> tuple[Hashable, ...]:
        """Names of the keys of an attempt whose client is the sender's domain."""
        domain = "spf", sender.domain
        triplet = domain, self._sender(sender.key), self._recipient(recipient.key)
        return triplet, (domain,), (domain, "+"), (domain, "@", sender.domain)

    def names(self, client: str, sender: str, recipient: str) -> tuple[Hashable, ...]:
        """Names of the keys of one attempt, in the script's order: alike where its keys are."""
        _, network, address = self._client(client)
        triplet = network, self._sender(sender), self._recipient(recipient)
        return triplet, (network,), (network, "+"), (network, "@", address)

    def _read_client(self, text: str) -> tuple[ClientAddress, str, str]:
        """A client, its network, and what counts as its address."""
        source = self._reader.read(text)
        network = normalise.client_network(source.listed, *self._prefixes, self._reader)
        return source, network, normalise.client_network(source.listed, *ADDRESS_PREFIXES, self._reader)

    def _verdict(self, at: Attempt, source: ClientAddress, sender: Mailbox, recipient: Mailbox) -> Verdict:
        answers, unheard = self._answers(at.heard, at.others_none, source.packed is None)
        missing = at.host is UNKNOWN, at.helo is UNKNOWN, at.authenticated is UNKNOWN
        policy = self._policy(Missing(*missing, unheard))
        host = at.host if isinstance(at.host, str) else None
        helo = at.helo if isinstance(at.helo, str) else None
        client = policy.connect(source.packed, host, source.carried, _pools(at, policy))
        mask = policy.transaction(client, helo, sender, authenticated=at.authenticated is True)
        mask = policy.recipient(mask, recipient)
        if not policy.asking & mask:
            facts = Facts(mask, mask, answers, client.unclear)
        else:
            spf = _spf(at, sender)
            facts = Facts(mask, mask, answers, client.unclear, spf, UNKNOWN, at.correspondent, at.score)
        verdict = judge(policy, facts)
        assert not isinstance(verdict, Awaited)  # noqa: S101 (no list that is asked for is missing)
        return verdict

    def _made_policy(self, missing: Missing) -> Policy:
        return Policy([without(rule, missing) for rule in self._rules], self._reader)

    def _made_answers(
        self, heard: Heard, others_none: bool, nobody: bool
    ) -> tuple[Mapping[str, Answer], frozenset[str]]:
        """The answers of the lists, and the lists that are not known to have given one."""
        if nobody:  # a client without an IP address is in no list
            return dict.fromkeys(self._zones, NO_VOTE), frozenset()
        said = dict(heard)
        answers: dict[str, Answer] = {}
        for name, zone in self._zones.items():
            codes = said.get(name, said.get(zone.label.lower()))
            if isinstance(codes, str):
                answers[name] = Answer(error=codes)
            elif codes is not None:
                answers[name] = Answer(codes, next(_errors(codes, zone), ""))
            elif others_none and name in self._named:
                answers[name] = NOT_LISTED
        return answers, frozenset(self._zones.keys() - answers.keys())


def _pools(at: Attempt, policy: Policy) -> Pools:
    if at.pools is UNKNOWN:
        return Pools(unknown=frozenset(policy.pools))
    return Pools(frozenset(at.pools)) if at.pools else NO_POOL


def _spf(at: Attempt, sender: Mailbox) -> Spf | Unknown:
    """Whether it proves the client is unknown where the result is, and not only then."""
    if at.spf is UNKNOWN or at.proved is UNKNOWN:
        return UNKNOWN
    return Spf(at.spf, sender.domain if at.proved else "")


def _zone(config: Config, name: str) -> Zone:
    settings = config.zones.get(name)
    label = (settings.label if settings else "") or public_label(name)
    errors = tuple(map(Pattern.parse, quirk(name).errors))
    return Zone(label, errors + (settings.error_codes if settings else ()))


def _errors(codes: tuple[bytes, ...], zone: Zone) -> Iterator[str]:
    return filter(None, (error_of(code, zone.errors) for code in codes))


@lru_cache(KEPT)
def mailbox(text: str) -> Mailbox:
    """An address as records have it."""
    return envelope.read(text)
