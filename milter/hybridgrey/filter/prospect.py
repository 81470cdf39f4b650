"""What would become of a recipient if nobody asked for the score of its message.  Pure."""

from __future__ import annotations

from typing import NamedTuple

from hybridgrey.policy import conditions
from hybridgrey.policy.conditions import UNKNOWN
from hybridgrey.policy.judge import REFUSING, Action, Awaited, Facts, Policy, Verdict, judge


class Prospect(NamedTuple):
    """`verdict`: the one without a score; None while other facts can change it.

    `settled`: no other fact can, or else it stands for who is known to the greylist (`Awaited.standing`).
    `refuses`: a score might have the recipient refused.
    """

    verdict: Verdict | None
    settled: bool
    refuses: bool

    @property
    def greylists(self) -> bool:
        """Whether the verdict is to greylist."""
        return self.verdict is not None and self.verdict.action is Action.GREYLIST

    @property
    def lenient(self) -> bool:
        """Whether it is accepted or greylisted, whatever the score."""
        return self.greylists and not self.refuses


def without_score(policy: Policy, facts: Facts) -> Prospect:
    """The prospect of a recipient whose score could be asked for."""
    outcome = judge(policy, facts._replace(score=UNKNOWN))
    settled = isinstance(outcome, Verdict)
    verdict = outcome.standing if isinstance(outcome, Awaited) else outcome
    return Prospect(verdict, settled, verdict is not None and _may_refuse(policy, facts, verdict))


def _may_refuse(policy: Policy, facts: Facts, verdict: Verdict) -> bool:
    """Whether a rule before the one that decides may yet refuse by score."""
    for at, rule in enumerate(policy.rules):
        if rule is verdict.rule:
            return False
        by_score = rule.score is not None and rule.action in REFUSING and facts.maybe >> at & 1
        if by_score and not rule.state(facts) & conditions.FALSE:
            return True
    return False
