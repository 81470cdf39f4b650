"""What is told of pools that cannot be resolved: each by its domain, or all of them in one line.

A domain that has lost its record is its own trouble.  Where no domain at all can be resolved it is the way to
DNS that is broken, and 48 lines about 48 domains would hide it: then one line says so, and another when it is
over.  Which of the two it is shows when a round of questions is over, so nothing is told before.

No I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hybridgrey.address import endpoint_text
from hybridgrey.trouble.reporter import Report

NONE_RESOLVES: Final = "none of the domains can be resolved: ask them through another nameserver"
"""The likely cause, as of lists of which none is well."""
_ALL: Final = "pools"


def none_resolves(problems: int, domains: int) -> bool:
    """Whether so many problems are one: that of the way to DNS.  One domain alone says nothing of the way."""
    return 1 < domains == problems


class Trouble:
    """The keeper's; a *round* goes from one `settle` to the next."""

    def __init__(self, report: Report, nameservers: Sequence[tuple[str, int]]) -> None:
        self._report = report
        self._nameservers = " ".join(endpoint_text(*server) for server in nameservers)
        self.problems: dict[str, str] = {}
        """What is wrong with each domain whose last answer was a failure or a bad record."""
        # Failures of this round, with what is used meanwhile.
        self._new: dict[str, str] = {}
        self._told: set[str] = set()
        self._well = self._all = False

    def answered(self, domain: str, problem: str, *, use: str) -> None:
        """Take an answer; `use`: which networks hold meanwhile, if there is a problem."""
        if problem:
            self.problems[domain] = problem
            self._new[domain] = use
            return
        self.problems.pop(domain, None)
        self._well = True
        self._told.discard(domain)
        self._report.recovered(_kind(domain))

    @property
    def doubtful(self) -> bool:
        """Whether another domain should be asked now: in this round none has worked, and there is news."""
        return not self._well and not self._all and not self._told.issuperset(self._new)

    def settle(self, domains: int) -> bool:
        """End the round and tell of it; whether the way to DNS works again.  `domains`: how many in all."""
        new, self._new = self._new, {}
        self._well, over = False, False
        if none_resolves(len(self.problems), domains):
            self._all = True
            error = next(iter(self.problems.values()))
            self._report.failing(
                _ALL, reason=NONE_RESOLVES, error=error, domains=domains, nameservers=self._nameservers
            )
        elif self._all:
            # What failed while nothing worked says nothing of a domain: each is asked again.
            self._all, over = False, True
            self._report.recovered(_ALL)
        else:
            self._tell(new)
        return over

    def _tell(self, new: dict[str, str]) -> None:
        for domain, use in new.items():
            self._told.add(domain)
            self._report.failing(_kind(domain), error=self.problems[domain], use=use)


def _kind(domain: str) -> str:
    return f"pool:{domain}"
