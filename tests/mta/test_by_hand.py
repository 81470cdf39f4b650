"""Entries by hand and expected mail through real MTAs, on two hosts with one store."""

from __future__ import annotations

import re

import pytest

from hybridgrey.process import byhand
from hybridgrey.process.worker import Terms
from mta.talk import rcpt, send
from parts.base import wait_until
from parts.commandline import run
from parts.daemon import Daemon
from parts.postfix import Postfix
from parts.rbldnsd import Rbldnsd, ip4set
from parts.redisserver import Redis

pytestmark = pytest.mark.mta

RULES = [
    {"name": "allowed by hand", "by_hand": "allow", "action": "accept"},
    {"name": "blocked by hand", "by_hand": "block", "action": "reject"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "rest", "action": "greylist"},
]
LISTED, NEW = "192.0.2.66", "192.0.2.7"
PASS, BLOCKED, DELAYED = "250 ", "554 5.7.1 ", "450 4.2.0 "


@pytest.fixture(scope="module")
def dns():
    with Rbldnsd({"bl.test": ip4set(LISTED)}) as running:
        yield running


@pytest.fixture(scope="module")
def settings(redis, dns):
    return {
        "store": {"url": redis.url, "timeout": "1s"},
        "dns": {"nameservers": [dns.address]},
        "greylist": {"delay": "5m"},
        "rule": RULES,
    }


@pytest.fixture(scope="module")
def hosts(settings, with_postfix):
    """Two MX hosts."""
    with Daemon(settings) as one, Daemon(settings) as two, Postfix(one.spec) as mx1, Postfix(two.spec) as mx2:
        yield (one, mx1), (two, mx2)


@pytest.fixture(autouse=True)
def empty(redis):
    """No triplets left of the test before."""
    yield
    with redis.client() as client:
        for key in client.scan_iter("hg1:{*"):
            client.delete(key)


def said(hosts, *words):
    """A command at the first host."""
    done = run(words[0], "-c", hosts[0][0].config, *words[1:])
    assert done.status == 0, done


def answers(hosts, client, sender="a@sender.example", to="b@rcpt.example"):
    """What each host says."""
    return [rcpt(mx, client, sender, to)[:10] for _, mx in hosts]


def all_say(hosts, wanted, *about):
    """All hosts come to say it; how soon is `test_all_follow_within_two_seconds`."""
    wait_until(
        lambda: all(one.startswith(wanted.strip()) for one in answers(hosts, *about)), f"{wanted}{about}"
    )


def _rule(hosts, client):
    """The rule that decides at the last host."""
    answers(hosts, client)
    return hosts[-1][0].verdict("b@rcpt.example")["rule"]


def test_all_follow_within_two_seconds():
    """The keeper's pause and the worker's together leave time for the reading."""
    assert byhand.SECONDS + Terms().tick <= 1.8


def test_allow_and_block_hold_on_all_hosts(hosts):
    """Within two seconds, for a client on a list too; and what is taken back no longer holds."""
    all_say(hosts, BLOCKED, LISTED)
    said(hosts, "allow", LISTED, "--for", "1h", "--comment", "partner")
    all_say(hosts, PASS, LISTED)
    for daemon, _ in hosts:
        verdict = daemon.verdict("b@rcpt.example")
        assert (verdict["rule"], verdict["reason"]) == ("allowed by hand", "allowed by hand")
    said(hosts, "block", LISTED)
    all_say(hosts, BLOCKED, LISTED)
    verdict = hosts[1][0].verdict("b@rcpt.example")
    assert (verdict["rule"], verdict["outcome"]) == ("blocked by hand", "rejected")
    said(hosts, "unlist", LISTED)
    wait_until(lambda: _rule(hosts, LISTED) == "blocklists", "the list decides again")


def test_senders_and_recipients_are_blocked(hosts):
    """As the MTA delivers them, in whatever form they are written."""
    said(hosts, "block", "--from", "Spammer@sender.example")
    said(hosts, "block", "--to", "left@rcpt.example")
    said(hosts, "allow", "--to", "open@rcpt.example")
    try:
        all_say(hosts, BLOCKED, NEW, "sPAMMER@SENDER.example")
        all_say(hosts, BLOCKED, NEW, '"spammer"@sender.example')
        all_say(hosts, DELAYED, NEW, "spammer2@sender.example")
        all_say(hosts, BLOCKED, NEW, "a@sender.example", "LEFT@rcpt.example")
        all_say(hosts, PASS, LISTED, "a@sender.example", "open@rcpt.example")
    finally:
        said(hosts, "unlist", "--from", "spammer@sender.example")
        said(hosts, "unlist", "--to", "left@rcpt.example")
        said(hosts, "unlist", "--to", "open@rcpt.example")


def test_a_block_inside_what_is_allowed(hosts):
    """The most specific counts."""
    said(hosts, "allow", "192.0.2.0/24")
    said(hosts, "block", "192.0.2.9")
    all_say(hosts, PASS, LISTED)
    all_say(hosts, BLOCKED, "192.0.2.9")
    said(hosts, "unlist", "192.0.2.0/24", "192.0.2.9")


def test_entries_end_by_themselves(hosts):
    """On all hosts, a moment after their time at most."""
    said(hosts, "block", NEW, "--for", "4s")
    all_say(hosts, BLOCKED, NEW)
    all_say(hosts, DELAYED, NEW)


def test_expected_mail_passes_at_once(hosts):
    """For its recipient and its time, on the other host too; lists still reject, and it earns nothing."""
    all_say(hosts, DELAYED, NEW)
    said(hosts, "expect", "B@rcpt.example")
    assert re.match(PASS, send(hosts[1][1], NEW, "a@sender.example", "b@rcpt.example"))
    verdict = hosts[1][0].verdict("b@rcpt.example")
    assert (verdict["outcome"], verdict["reason"], verdict["state"]) == ("accepted", "expected", "early")
    assert (
        answers(hosts, "198.51.100.1", "new@sender.example")
        == [PASS.strip() + answers(hosts, NEW)[0][3:]] * 2
    )
    assert answers(hosts, NEW, to="other@rcpt.example") == [DELAYED] * 2
    assert answers(hosts, LISTED) == [BLOCKED] * 2
    said(hosts, "expect", "--end", "b@rcpt.example")
    assert answers(hosts, NEW) == [DELAYED] * 2


def test_expected_mail_ends(hosts):
    """When its time is over."""
    said(hosts, "expect", "b@rcpt.example", "--for", "2s")
    wait_until(lambda: answers(hosts, NEW) == [DELAYED] * 2, "expected mail ends")


@pytest.mark.parametrize("embedded", [False, True])
def test_entries_hold_without_a_store(settings, with_postfix, tmp_path, embedded):
    """Over a restart too, until their time is over; a damaged copy is refused with a line in the log."""
    state = tmp_path / "state"
    with Redis() as redis:
        url = f"embedded:{state}" if embedded else redis.url
        more = {} if embedded else {"pid_file": str(tmp_path / "hg.pid")}
        mine = settings | {"store": {"url": url, "timeout": "300ms"}, **more}
        copy = (state if embedded else tmp_path) / byhand.FILE
        with Daemon(mine) as daemon, Postfix(daemon.spec) as mx:
            said([(daemon, mx)], "block", NEW)
            all_say([(daemon, mx)], BLOCKED, NEW)
            wait_until(copy.exists, "the copy")
            assert copy.stat().st_mode & 0o777 == 0o600
            if embedded:
                return
            redis.stop()
            all_say([(daemon, mx)], BLOCKED, NEW)
            daemon.stop()
            daemon.start()
            assert answers([(daemon, mx)], NEW) == [BLOCKED]
            assert run("block", "-c", daemon.config, LISTED).status == 69
            daemon.stop()
            copy.write_bytes(b"\xff{" * 99)
            daemon.start()
            assert answers([(daemon, mx)], NEW)[0].startswith(PASS)  # on_failure
            assert daemon.events("the copy of the entries by hand is of no use")
            redis.start()
            wait_until(lambda: answers([(daemon, mx)], NEW) == [BLOCKED], "the store's entries hold again")
