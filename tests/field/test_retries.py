"""Whoever comes back is known at every MX host of the row, and only those who came back."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from field.post import greylisted, introduce, letter, wait_out
from parts.base import wait_until
from parts.fieldservers import DOMAIN, Resolver, SendingPostfix
from parts.mxrow import MX_HOSTS, NETWORKS
from parts.smtp import Client

pytestmark = pytest.mark.mta


def test_a_retry_at_any_other_host_passes(row):
    """First at one, too early at a second, then in time there: for all pairs, IPv4 and IPv6."""
    ways = list(itertools.product(itertools.permutations(MX_HOSTS, 2), (4, 6)))
    letters = [(letter(version=version), *pair) for pair, version in ways]
    wait_out([one.by(row, mx) for one, *hosts in letters for mx in hosts])
    for one, first, second in letters:
        assert one.by(row, second).startswith("250"), (first, second, one)
        greeting = row.sink.wait(one.recipient).header("X-Greylist")
        assert len(greeting) == 1, greeting
        assert greeting[0].endswith(f"seconds by hybridgrey at {second}.{DOMAIN}")
        verdict = row.mx[second].daemon.verdict(one.recipient)
        assert (verdict["state"], verdict["host"]) == ("passed", "mail.office.test")
        # And from now on everywhere, at once.
        for mx in MX_HOSTS:
            assert one.by(row, mx).startswith("250")
            assert row.mx[mx].daemon.verdict(one.recipient)["state"] == "known"


@pytest.mark.parametrize(
    ("version", "neighbour", "stranger"),
    [(4, "198.51.100.77", "203.0.113.10"), (6, "2001:db8:b::7:7", "2001:db8:b:1::a")],
    ids=["a /24", "a /64"],
)
def test_a_pool_of_senders_retries_from_its_network(row, version, neighbour, stranger):
    """From another address of the network a retry passes; from another network it is a first attempt."""
    one, two = letter("pool", version=version), letter("pool", version=version)
    wait_out([one.by(row, "mx1"), two.by(row, "mx2")])
    assert one.coming_from(neighbour).by(row, "mx3").startswith("250")
    assert row.mx["mx3"].daemon.verdict(one.recipient)["client"] == neighbour
    host = "elsewhere" if version == 4 else "pool"
    other = letter(host, sender=two.sender, address=stranger, version=version)
    moved = type(two)(host, two.sender, two.recipient, stranger, version)
    greylisted(other.by(row, "mx1"))
    greylisted(moved.by(row, "mx1"))
    assert row.mx["mx1"].daemon.verdict(two.recipient)["state"] == "new"
    assert two.by(row, "mx1").startswith("250")


def test_a_mailing_list_with_verp_is_one_sender(row):
    """Each member waits once; the next issues pass at any host although no two senders are alike."""

    def issue(number, members):
        return [
            type(one)(
                "pool", f"news-return-{number}-{one.recipient.replace('@', '=')}@lists.test", one.recipient
            )
            for one in members
        ]

    members = [letter() for _ in range(8)]
    introduce(row, issue(4711, members), "mx2")
    for number in range(4712, 4716):
        for mx, one in zip(itertools.cycle(MX_HOSTS), issue(number, members), strict=False):
            assert one.by(row, mx).startswith("250")
            assert row.mx[mx].daemon.verdict(one.recipient)["state"] == "known"
    stranger = type(members[0])("pool", "offers-return-1-x=y.test@lists.test", members[0].recipient)
    greylisted(stranger.by(row, "mx2"))


def test_callouts_do_no_lasting_harm(row):
    """A host that asks with MAIL FROM:<> whether addresses exist is put off, then answered, never refused.

    What it asks neither opens a way for other senders nor closes one for bounces, in one session or in many.
    """
    asked = [letter("elsewhere", sender="") for _ in range(6)]

    def ask(letters, mx):
        with row.client("elsewhere", mx) as client:
            client.ehlo("mail.elsewhere.test")
            for one in letters:
                assert client.mail("").code == 250
                yield str(client.rcpt(one.recipient))
                assert client.rset().code == 250
            client.quit()

    wait_out([answer for mx in MX_HOSTS for answer in ask(asked, mx)])
    for mx in MX_HOSTS:
        assert all(answer.startswith("250") for answer in ask(asked, mx))
    for mx, one in zip(MX_HOSTS, asked, strict=False):
        assert one.by(row, mx).startswith("250")  # a bounce, which has a message
        assert row.sink.wait(one.recipient).sender == ""
        greylisted(type(one)("elsewhere", "joe@elsewhere.test", one.recipient).by(row, mx))
    greylisted(letter("elsewhere", sender="").by(row, "mx1"))


@pytest.fixture
def office(row):
    """A Postfix of the office, which sends to whom the MX records name."""
    host, addresses = row.networks["office"], [NETWORKS["office"].address(version) for version in (4, 6)]
    with (
        host.serving(Resolver(row.names.address(), {})),
        host.serving(SendingPostfix("mail.office.test", row.sink, *addresses)) as mta,
    ):
        yield mta


def submit(row, mail):
    """Hand a letter to the office's Postfix."""
    target = ("127.0.0.1", 25)
    with Client(target, sock=row.networks["office"].connect("127.0.0.1", target)) as client:
        client.ehlo("desk.office.test")
        assert client.transaction(mail.sender, [mail.recipient])[-1].code == 250
        client.quit()


def test_a_real_sender_comes_through(row, office):
    """A Postfix tries one MX host after the other, is put off by each, comes back, and delivers once."""
    mails = [letter(sender=f"desk{number}@office.test") for number in range(3)]
    for one in mails:
        submit(row, one)
    for one in mails:
        assert len(row.sink.wait(one.recipient).header("X-Greylist")) == 1
    log = office.log_text()
    put_off = {mx for mx in MX_HOSTS if f"host {mx}.{DOMAIN}[" in log}
    assert put_off >= {"mx1", "mx2"}, log
    wait_until(lambda: log_says_removed(office, 3), "the sender's queue is empty")
    assert [len(deliveries(row, one)) for one in mails] == [1, 1, 1]


def log_says_removed(mta, number):
    """Whether so many messages have left the queue."""
    return mta.log_text().count(": removed\n") >= number


def deliveries(row, mail):
    """What arrived for a letter's recipient."""
    return [one for one in row.sink.mails if mail.recipient in one.recipients]


def test_the_backup_host_loses_nothing_and_is_not_greylisted(row, office):
    """mx1 and mx2 away: senders go to mx3, it judges, keeps, and passes on to hosts that ask it nothing."""
    known = [letter(sender="news@office.test") for _ in range(4)]
    introduce(row, known, "mx2")
    for one in known:
        row.sink.wait(one.recipient)  # else it would be in mx2's queue when that is cut off
    trusted = [letter("bank") for _ in range(4)]
    for mx in ("mx1", "mx2"):
        row.mx[mx].host.cut("front")
    try:
        new = letter(sender="desk@office.test")
        submit(row, new)  # by MX records
        for one in (*known, *trusted):
            assert one.by(row, "mx3").startswith("250")
        backup = row.mx["mx3"].daemon
        # The sender tries the four addresses of the better hosts in vain before, each time.
        wait_until(lambda: backup.verdict(new.recipient)["state"] == "passed", "a retry at mx3", 60)
        before = {one: len(deliveries(row, one)) for one in (*known, *trusted, new)}
        assert before == dict.fromkeys(known, 1) | dict.fromkeys((*trusted, new), 0)
    finally:
        for mx in ("mx1", "mx2"):
            row.mx[mx].host.heal("front")
    for one, number in before.items():
        row.sink.wait(one.recipient, number + 1)
    relayed = [event for mx in ("mx1", "mx2") for event in relays(row, mx)]
    assert {event["recipient"] for event in relayed} >= {one.recipient for one in before}
    assert {(event["rule"], event["action"]) for event in relayed} == {("manual", "accept")}
    wait_until(lambda: not list(row.mx["mx3"].mta.queue.glob("qf*")), "mx3's queue is empty")
    assert {one: len(deliveries(row, one)) - number for one, number in before.items()} == dict.fromkeys(
        before, 1
    )


def relays(row, mx):
    """The verdicts of a host on what mx3 passed on to it."""
    backup = row.mx["mx3"].host
    addresses = {backup.address(4), backup.address(6)}
    return [event for event in row.mx[mx].daemon.events("verdict") if event["client"] in addresses]


def test_the_graphs_of_all_hosts_add_up(row):
    """Every host's page shows the same: all hosts together are the sum of each, and of what they counted."""
    for mx, network in itertools.product(MX_HOSTS, ("office", "bank", "botnet")):
        letter(network).by(row, mx)
    outcomes = ("accept", "reject", "delay", "tempfail")

    def drawn(mx, host):
        graph = json.loads(row.mx[mx].get(f"/api/history?span=hour&host={host}"))
        return {outcome: sum(graph["outcomes"][outcome]) for outcome in outcomes}

    def counted(*hosts):
        total = sum((row.mx[mx].counted("outcomes", "outcome") for mx in hosts), Counter())
        return {outcome: total[outcome,] for outcome in outcomes}

    def same():
        wanted = {f"{mx}.{DOMAIN}": counted(mx) for mx in MX_HOSTS} | {"": counted(*MX_HOSTS)}
        return all(drawn(mx, host) == numbers for mx in MX_HOSTS for host, numbers in wanted.items())

    assert all(counted(*MX_HOSTS)[outcome] >= 3 for outcome in ("accept", "reject", "delay"))
    # Hosts write what is new every quarter of a minute, and pages keep an answer some seconds.
    wait_until(same, "the graphs have what was counted", 90)
