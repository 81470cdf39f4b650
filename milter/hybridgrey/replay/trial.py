"""One configuration, and what it does with an attempt: the rules of `policy`, the greylist as a function.

Lists are known by their zone or by the label that the log has. A return code that is an error by what is
known of its list is no vote, as when the daemon hears it (`config.known_lists`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from hybridgrey import envelope
from hybridgrey.clientaddress import ClientAddress
from hybridgrey.config.known_lists import error_of, public_label, quirk
from hybridgrey.config.load import Config
from hybridgrey.envelope import Mailbox
from hybridgrey.outcome import Outcome
from hybridgrey.policy.conditions import UNKNOWN
from hybridgrey.policy.judge import NO_POOL, NOT_LISTED, Action, Answer, Facts, Policy, Pools
from hybridgrey.policy.pattern import Pattern
from hybridgrey.replay.greylist import PureGreylist
from hybridgrey.replay.judgement import Judgement, Parts
from hybridgrey.replay.messages import Attempt, Heard
from hybridgrey.replay.names import KEPT, Names
from hybridgrey.replay.unknown import Missing, without

NO_RULE: Final = "(no rule)"
NO_VOTE: Final = Answer(error="no IP address to ask about")
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
        self.names = Names(terms, self._reader)
        self._parts = Parts(PureGreylist(terms), self.names, terms.delay, terms.sender_pools)
        names = dict.fromkeys(entry.zone for rule in config.rules for entry in rule.lists)
        self._zones = {name: _zone(config, name) for name in names}
        self._named = {z for z, (label, _) in self._zones.items() if z in named or label.lower() in named}
        self._policy = lru_cache(VARIANTS)(self._made_policy)
        self._answers = lru_cache(ANSWERS)(self._made_answers)

    def attempt(self, at: Attempt, sender: Mailbox, recipient: Mailbox) -> Done:
        """What becomes of an attempt; times never go back."""
        source = self.names.client(at.client)
        judgement = self._judgement(at, source, sender, recipient)
        verdict = judgement.verdict(has_address=source.packed is not None)
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
            case _:
                let_in = judgement.lets_in(verdict)
                return Done(Outcome.ACCEPTED if let_in else Outcome.GREYLISTED, name)

    def _judgement(
        self, at: Attempt, source: ClientAddress, sender: Mailbox, recipient: Mailbox
    ) -> Judgement:
        answers, unheard = self._answers(at.heard, at.others_none, source.packed is None)
        missing = at.host is UNKNOWN, at.helo is UNKNOWN, at.authenticated is UNKNOWN
        policy = self._policy(Missing(*missing, unheard))
        host = at.host if isinstance(at.host, str) else None
        helo = at.helo if isinstance(at.helo, str) else None
        client = policy.connect(source.packed, host, source.carried, _pools(at, policy))
        mask = policy.transaction(client, helo, sender, authenticated=at.authenticated is True)
        mask = policy.recipient(mask, recipient)
        # Entries by hand are in no record.
        facts = Facts(mask, mask, answers, client.unclear, by_hand=UNKNOWN, score=at.score)
        return Judgement(self._parts, policy, facts, at, sender, recipient)

    def _made_policy(self, missing: Missing) -> Policy:
        return Policy([made for rule in self._rules for made in without(rule, missing)], self._reader)

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
