"""Why a recipient got what it got: one word for the record of a verdict (`outcome.Reason`)."""

from __future__ import annotations

from typing import Final

from hybridgrey.filter.screen import Decision
from hybridgrey.greylist.triplets import State
from hybridgrey.outcome import Reason
from hybridgrey.policy.conditions import Hand
from hybridgrey.policy.judge import Action, Verdict

_FOUND: Final = {
    State.NEW: Reason.NEW,
    State.EARLY: Reason.EARLY,
    State.FULL: Reason.FULL,
    State.PASSED: Reason.PASSED,
    State.KNOWN: Reason.KNOWN,
    State.NETWORK: Reason.NETWORK,
}


def reason_of(decision: Decision) -> Reason:
    """Why a decision is what it is."""
    if decision.deferred is not None:
        return decision.deferred
    if decision.expected:
        return Reason.EXPECTED
    if decision.domain and decision.touch is not None and decision.touch.state is State.NETWORK:
        return Reason.DOMAIN
    if decision.touch is not None:
        return _FOUND[decision.touch.state]
    if decision.store_error:
        return Reason.STORE_DOWN
    verdict = decision.verdict
    if verdict.action is Action.GREYLIST:
        return Reason.NO_ADDRESS
    return _of_rule(verdict)


def _of_rule(verdict: Verdict) -> Reason:
    rule = verdict.rule
    if rule is None:
        return Reason.NO_RULE
    if rule.by_hand is not None:
        return Reason.BLOCKED if rule.by_hand is Hand.BLOCK else Reason.BY_HAND
    if any(hit.weight > 0 for hit in verdict.hits):
        return Reason.LIST
    if rule.action is Action.ACCEPT and rule.authenticated:
        return Reason.LOGGED_IN
    if rule.action is Action.ACCEPT and rule.clients is not None:
        return Reason.BY_HAND
    if rule.action is Action.ACCEPT and rule.correspondent:
        return Reason.CORRESPONDENT
    if rule.action is Action.ACCEPT and rule.pools is not None:
        return Reason.POOL
    return Reason.RULE
