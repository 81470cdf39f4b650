"""Rules for a record in which facts are missing: the same rules, without the conditions on these facts.

Conditions are three-valued, and in the end unknown makes greylist match and all else not: never a refusal out
of it, and never a way in. So a rule with the action greylist is kept where it may match, whatever the missing
facts are; any other where it does match, whatever they are. What is made here are rules of the usual kind,
which `policy` judges as it judges all: it is never left waiting.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from hybridgrey.policy.judge import Action, Rule
from hybridgrey.policy.match import Entry


class Missing(NamedTuple):
    """What a record has not: the client's name, its HELO, whether it has logged in, and these lists."""

    host: bool = False
    helo: bool = False
    authenticated: bool = False
    zones: frozenset[str] = frozenset()


def without(rule: Rule, missing: Missing) -> tuple[Rule, ...]:
    """Rules that hold for the facts that are there as `rule` does in the end, the first that does.

    A rule that greylists only for want of knowledge does so with the plain delay, not with its own.
    """
    if rule.action is not Action.GREYLIST:
        return (_judged(rule, missing, lenient=False),)
    made = _judged(rule, missing, lenient=True)
    if made == rule or rule.delay is None:
        return (made,)
    return _judged(rule, missing, lenient=False), replace(made, delay=None)


def _judged(rule: Rule, missing: Missing, *, lenient: bool) -> Rule:
    """What holds where `rule` may (`lenient`), or where it does whatever the missing facts are."""
    clients, helo, rdns = rule.clients, rule.helo, rule.rdns
    authenticated = rule.authenticated
    if missing.host and clients is not None:
        clients = _nameless(clients, lenient=lenient)
    if missing.host and rdns is not None:
        rdns = None if lenient else frozenset()
    if missing.helo and helo:  # an empty condition holds for nobody, whatever was said
        helo = None if lenient else ()
    if missing.authenticated and authenticated is not None:
        authenticated = None
        helo = helo if lenient else ()
    made = replace(rule, clients=clients, helo=helo, rdns=rdns, authenticated=authenticated)
    return _without_lists(made, missing.zones, lenient=lenient) if missing.zones and rule.lists else made


def _nameless(clients: tuple[Entry, ...], *, lenient: bool) -> tuple[Entry, ...] | None:
    """A condition on clients without its names."""
    kept = tuple(entry for entry in clients if not isinstance(entry.key, str))
    names = [entry for entry in clients if isinstance(entry.key, str)]
    included = any(not entry.excluded for entry in clients)
    if not lenient:
        if any(entry.excluded for entry in names):
            return ()
        # Where all that was included is gone, exclusions alone would mean everybody else.
        return kept if not included or any(not entry.excluded for entry in kept) else ()
    if any(not entry.excluded for entry in names):
        kept = tuple(entry for entry in kept if entry.excluded)
        return kept or None
    return kept if kept or not clients else None


def _without_lists(rule: Rule, zones: frozenset[str], *, lenient: bool) -> Rule:
    """A rule with a threshold that allows for what the missing lists can add or take away."""
    known = tuple(entry for entry in rule.lists if entry.zone not in zones)
    weights = [entry.weight for entry in rule.lists if entry.zone in zones]
    added = sum(max(w, 0) for w in weights) if lenient else sum(min(w, 0) for w in weights)
    threshold = rule.threshold - added
    if not known and threshold > 0:
        return replace(rule, lists=(), helo=())
    return replace(rule, lists=known, threshold=threshold)
