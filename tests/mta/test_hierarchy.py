"""The hierarchy through Postfix and Sendmail: accept the trusted, reject the listed, greylist the rest."""

from __future__ import annotations

import re

import pytest

from mta.cases import (
    ALLOWLISTS,
    AUTHENTICATED,
    BLOCK,
    BLOCKLISTS,
    CASES,
    FILES,
    KEYED,
    LABEL,
    MANUAL,
    PASS,
    REST,
    RULES,
    Case,
    settings,
)
from mta.talk import rcpt
from parts.daemon import Daemon
from parts.postfix import Postfix

pytestmark = pytest.mark.mta


@pytest.fixture(scope="module")
def daemon(redis, resolver, engine):
    with Daemon(settings(redis, resolver, RULES), files=FILES, unix=True) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_case(case: Case, mta, daemon):
    """The answer at RCPT is the one of the table, whichever the MTA, and the log names the rule."""
    client = {"name": case.host, "forged": case.forged, "login": case.login}
    for _ in range(3):
        answer = rcpt(mta, case.address, case.sender, case.recipient, **client)
        # A list's text that comes late is left out; by the next time the resolver knows it.
        if re.fullmatch(case.wanted, answer) or not answer.endswith((BLOCK, LABEL)):
            break
    assert re.fullmatch(case.wanted, answer), answer
    verdict = daemon.verdict(case.recipient)
    assert (verdict["rule"], verdict["client"]) == (case.rule, case.address)
    assert verdict["enforced"] is True


def test_a_list_key_is_never_shown(mta, daemon):
    """The name of a zone that holds a key is in no reply and no log line."""
    assert LABEL in rcpt(mta, "192.0.2.11", "a@sender.example", "key@rcpt.example")
    assert KEYED.split(".")[0] not in daemon.log_text()


def test_the_order_of_the_rules_decides(redis, resolver, with_postfix):
    """With allowlists before blocklists a client on both is accepted, but not at a low level."""
    swapped = [AUTHENTICATED, MANUAL, ALLOWLISTS, BLOCKLISTS, REST]
    with Daemon(settings(redis, resolver, swapped), files=FILES) as daemon, Postfix(daemon.spec) as mta:
        for address, wanted in (("192.0.2.12", PASS), ("192.0.2.17", "554 ")):
            answer = rcpt(mta, address, "a@sender.example", "swapped@rcpt.example")
            assert re.match(wanted, answer), answer
