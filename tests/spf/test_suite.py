"""The RFC 7208 test suite: each case with its zone."""

from __future__ import annotations

import socket

import pytest

from hybridgrey.spf.evaluate import MAX_QUESTIONS, Identity, evaluate
from spf.zone import Zone, resolve, suite

CASES = list(suite())


def identity(case):
    family = socket.AF_INET6 if ":" in case["host"] else socket.AF_INET
    local, _, domain = case["mailfrom"].rpartition("@")
    return Identity.of(socket.inet_pton(family, case["host"]), domain, local, case["helo"])


@pytest.mark.parametrize(("case", "records"), [one[1:] for one in CASES], ids=[one[0] for one in CASES])
def test_case(case, records):
    """The result is (one of) the wanted; a pass names its term, an error its reason."""
    zone = Zone(records)
    outcome = resolve(evaluate(identity(case)), zone)
    wanted = case["result"]
    assert outcome.result.value in ([wanted] if isinstance(wanted, str) else wanted), outcome
    assert bool(outcome.error) is (outcome.result.value in ("temperror", "permerror")) or not zone.asked
    assert len(zone.asked) <= MAX_QUESTIONS


def test_all_cases_are_there():
    """The file has not been cut."""
    assert len(CASES) == 203
