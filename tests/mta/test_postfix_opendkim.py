"""Together with another milter: OpenDKIM before ours and after it in one smtpd_milters."""

from __future__ import annotations

import time

import pytest

from mta.conftest import require
from mta.talk import opened, plain
from parts import opendkim
from parts.base import LOOPBACK
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.opendkim import DOMAIN, OpenDkim
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

BLOCKED, ALLOWED, UNKNOWN = "192.0.2.66", "192.0.2.77", "192.0.2.88"
GREY = "450 4.2.0 Greylisted, please try again in"
RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept"},
    {"name": "local", "clients": ["127.0.0.0/8"], "action": "accept"},
    {"name": "open", "recipients": ["open@x.example"], "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "allowlists", "dns": ["wl.test"], "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]
SENDER = f"a@{DOMAIN}"
MESSAGE = f"From: <{SENDER}>\r\nTo: <b@x.example>\r\nSubject: signed\r\n\r\nHello.\r\n"


@pytest.fixture(scope="module")
def dkim():
    require(opendkim.missing())
    with OpenDkim() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(engine):
    with Redis() as redis, FakeDns() as dns:
        dns.zone("bl.test", listed={BLOCKED: "127.0.0.2"})
        dns.zone("wl.test", listed={ALLOWED: "127.0.5.2"})
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
            "greylist": {"delay": "1s", "auto_allow_after": 0},
            "rule": RULES,
        }
        with Daemon(settings, unix=True) as running:
            yield running


@pytest.fixture(scope="module", params=["before", "after"])
def mta(request, dkim, daemon):
    """Postfix with OpenDKIM before or after ours."""
    order = [dkim.spec, daemon.spec]
    if request.param == "after":
        order.reverse()
    with Postfix(settings={"smtpd_milters": ", ".join(order)}) as running:
        running.order = request.param
        yield running


@pytest.fixture(scope="module")
def signed(mta):
    """A message of the host's own, as it left it: with a signature and no header of ours."""
    with mta.connect() as client:
        client.ehlo()
        assert client.transaction(SENDER, [f"sign-{mta.order}@x.example"], MESSAGE)[-1].code == 250
    mail = mta.sink.wait(f"sign-{mta.order}@x.example")
    assert len(mail.header("DKIM-Signature")) == 1
    assert not mail.header("X-Greylist")
    return mail.data.decode().replace("\r\n", "\n").replace("\n", "\r\n")


def test_the_hosts_own_mail_is_signed(signed):
    """OpenDKIM signs what comes from 127.0.0.1, and ours lets it pass."""
    assert f"d={DOMAIN}" in signed


def test_rejects_are_ours_wherever_it_stands(mta, daemon):
    """A listed client and an unknown one get our replies, with our texts, recipient by recipient."""
    with opened(mta, BLOCKED) as client:
        client.mail(SENDER)
        answer = plain(client.rcpt(f"no-{mta.order}@x.example"))
        assert answer.startswith(f"554 5.7.1 Service unavailable; client [{BLOCKED}] blocked using bl.test")
        assert client.rcpt("open@x.example").code == 250
        assert plain(client.rcpt(f"no-{mta.order}@x.example"))[:3] == "554"
    with opened(mta, UNKNOWN) as client:
        client.mail(SENDER)
        assert plain(client.rcpt(f"grey-{mta.order}@x.example")).startswith(GREY)
    assert daemon.verdict(f"no-{mta.order}@x.example")["action"] == "reject"


FORGED = "Authentication-Results: mx.example.test; dkim=pass header.d=bank.example\r\n"
ELSEWHERE = "Authentication-Results: mx.other.example; dkim=pass header.d=other.example\r\n"


def results(mta, person, message):
    """The results that a message of an allowlisted client is delivered with, other hosts' apart."""
    with opened(mta, ALLOWED) as client:
        assert client.transaction(SENDER, [person], message)[-1].code == 250
    found = mta.sink.wait(person).header("Authentication-Results")
    others = [one for one in found if one.startswith("mx.other.example;")]
    return [one for one in found if one not in others], others


def test_both_add_their_headers_where_ours_stands_first(mta, signed):
    """An allowlisted client's signed mail has dnswl=pass, and dkim=pass of a filter that stands behind ours.

    What a filter before ours adds under the same id cannot be told from what a client has forged: it goes.
    """
    here, others = results(mta, f"both-{mta.order}@x.example", signed)
    assert all(one.startswith("mx.example.test;") for one in here)
    assert sum("dkim=pass" in one for one in here) == (mta.order == "after")
    assert sum("dnswl=pass dns.zone=wl.test" in one for one in here) == 1
    assert len(here) == (2 if mta.order == "after" else 1)
    assert others == []


def test_forged_results_are_gone_and_theirs_arrive(mta, signed):
    """Whatever a client says about bank.example is not said by us; another host's header stays."""
    here, others = results(mta, f"forged-{mta.order}@x.example", FORGED + ELSEWHERE + FORGED + signed)
    assert not [one for one in here if "bank.example" in one]
    assert [one for one in here if f"header.d={DOMAIN}" in one] == here[: mta.order == "after"]
    assert len(others) == 1


def test_forged_results_of_who_has_logged_in(mta, signed):
    """A user's own mail is from outside too, as far as its headers go."""
    person = f"user-{mta.order}@x.example"
    with opened(mta, UNKNOWN, login="somebody") as client:
        assert client.transaction(SENDER, [person], FORGED + signed)[-1].code == 250
    found = mta.sink.wait(person).header("Authentication-Results")
    assert not [one for one in found if "bank.example" in one]


def test_a_retried_message_says_so_and_its_signature_holds(mta, signed):
    """X-Greylist is added, and does not break the signature that OpenDKIM looks at."""
    person = f"retry-{mta.order}@x.example"
    with opened(mta, UNKNOWN) as client:
        client.mail(SENDER)
        assert plain(client.rcpt(person)).startswith(GREY)
        client.rset()
        time.sleep(1.1)
        assert client.transaction(SENDER, [person], signed)[-1].code == 250
    mail = mta.sink.wait(person)
    assert len(mail.header("X-Greylist")) == 1
    if mta.order == "after":
        assert [one for one in mail.header("Authentication-Results") if "dkim=pass" in one]


def test_one_milter_away_leaves_the_other(mta, dkim, daemon):
    """With OpenDKIM's socket gone, and milter_default_action accept, ours goes on judging."""
    gone = "unix:/nowhere/opendkim"
    order = [gone, daemon.spec] if mta.order == "before" else [daemon.spec, gone]
    with Postfix(settings={"smtpd_milters": ", ".join(order)}) as lonely, opened(lonely, BLOCKED) as client:
        client.mail(SENDER)
        assert plain(client.rcpt(f"lonely-{mta.order}@x.example"))[:3] == "554"
        assert lonely.connect(LOOPBACK).greeting.code == 220
