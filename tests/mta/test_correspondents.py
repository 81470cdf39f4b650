"""Whom we have written to answers without delay, from where SPF proves him; what teaches that."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from faults.shared import cluster
from hybridgrey.hand.correspondents import COUNT, PREFIX
from mta.conftest import require
from mta.talk import opened, rcpt, send
from parts import sasl, sendmail
from parts.base import wait_until
from parts.commandline import run
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.postfix import Postfix
from parts.redisserver import Redis
from parts.sendmail import Sendmail
from parts.smtp import Client

pytestmark = pytest.mark.mta

HIS, LISTED, ELSEWHERE = "192.0.2.1", "192.0.2.66", "203.0.113.1"
ANN, BOB, US = "ann@own.example", "bob@bob.example", "198.51.100.7"
PASS, BLOCKED, DELAYED = "250 2.1.5 ", "554 5.7.1 ", "450 4.2.0 "
RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept", "learn": True},
    {"name": "local", "clients": ["127.0.0.0/8", "::1"], "action": "accept", "learn": True},
    {"name": "partner", "clients": ["198.51.100.99"], "action": "accept"},
    {"name": "blocklists", "dns": ["bl.test"], "action": "reject"},
    {"name": "correspondents", "correspondent": True, "action": "accept"},
    {"name": "the rest", "action": "greylist"},
]
OWN = {
    "mydestination": "local.example",
    "local_recipient_maps": "",
    "virtual_mailbox_domains": "virtual.example",
    "virtual_mailbox_maps": "static:all",
    "relay_domains": "relay.example",
    "virtual_alias_domains": "alias.example",
    "virtual_alias_maps": "inline:{x@alias.example=x@far.example}",
    "transport_maps": "inline:{lmtp.example=lmtp:inet:127.0.0.1:1}",
    # Loopback only.
    "smtpd_relay_restrictions": "check_client_access static:permit, reject",
}


def settings(url, dns, **more):
    return {
        "workers": 1,
        "store": {"url": url, "timeout": "1s", **more.pop("store", {})},
        "dns": {"nameservers": [dns.address], "timeout": "2s"},
        "greylist": {"delay": "5m", "sender_pools": False},
        "rule": RULES,
        **more,
    }


@pytest.fixture(scope="module")
def dns():
    with FakeDns() as server:
        server.record("bob.example", "TXT", '"v=spf1 ip4:192.0.2.0/24 -all"')
        server.zone("bl.test", listed={LISTED: "127.0.0.2"})
        yield server


@pytest.fixture(autouse=True)
def _empty(redis):
    with redis.client() as client:
        client.flushall()


@contextlib.contextmanager
def host(config, **more):
    """A daemon behind a Postfix that has domains of its own, and mail of its programs is seen, too."""
    with Daemon(config, unix=True) as daemon, Postfix(daemon.spec, OWN | {
        "non_smtpd_milters": daemon.spec,
    } | more) as mta:  # fmt: skip
        yield daemon, mta


@pytest.fixture(scope="module")
def standing(redis, dns, with_postfix):
    with host(settings(redis.url, dns)) as running:
        yield running


def writes(mta, *to, sender=ANN, client=US, **more):
    """A user who has logged in writes to many at once."""
    with opened(mta, client, **({"login": "ann"} | more)) as connection:
        assert connection.transaction(sender, list(to))[-1].code == 250
        connection.quit()


def all_keys(redis):
    with redis.client() as client:
        return set(client.scan_iter())


def known(redis):
    """Who is a correspondent."""
    return {key.removeprefix(PREFIX).decode() for key in all_keys(redis) if key.startswith(PREFIX)}


def learnt(redis, *wanted):
    wait_until(lambda: known(redis) == set(wanted), f"{wanted} and nobody else is known")


def settled(mta, redis, marker="marker@m.example"):
    """All that was written before has been learnt: the one worker does it in order; who is known besides."""
    writes(mta, marker)
    wait_until(lambda: marker in known(redis), "the last one is known")
    return known(redis) - {marker}


def answers(running, client, sender=BOB, to="ann@virtual.example"):
    """What he is told, and the reason."""
    daemon, mta = running
    seen = len(daemon.events("verdict"))
    answer = rcpt(mta, client, sender, to)
    wait_until(lambda: len(daemon.events("verdict")) > seen, "the verdict is logged")
    return answer[:10], daemon.events("verdict")[seen]


def test_who_was_written_to_answers_at_once(standing, redis):
    """From his own servers; from elsewhere, and others of his domain, wait; a blocklist still rejects."""
    daemon, mta = standing
    assert answers(standing, HIS)[0] == DELAYED
    writes(mta, "Bob@Bob.example")
    learnt(redis, BOB)
    answer, line = answers(standing, HIS)
    assert (answer, line["reason"], line["rule"]) == (PASS, "correspondent", "correspondents")
    assert (line["spf"], line["proved"], line["correspondent"]) == ("pass", True, True)
    answer, line = answers(standing, ELSEWHERE)
    assert (answer, line["spf"], line["proved"]) == (DELAYED, "fail", False)
    answer, line = answers(standing, HIS, "carol@bob.example")
    assert (answer, line["correspondent"]) == (DELAYED, False)
    assert answers(standing, HIS, "bob+x@bob.example")[0] == DELAYED
    assert answers(standing, HIS, "")[0] == DELAYED
    answer, line = answers(standing, LISTED)
    assert (answer, line["rule"]) == (BLOCKED, "blocklists")
    about = ("explain", "-c", daemon.config, HIS, "--to", ANN, "--from")
    said = run(*about, BOB)
    assert "correspondents" in said.output
    assert "written to" in said.output
    assert "never written to" not in said.output
    assert "never written to" in run(*about, "carol@bob.example").output
    # Once its time is over he waits.
    with redis.client() as client:
        client.pexpire(PREFIX + BOB.encode(), 1)
    learnt(redis)
    assert answers(standing, HIS)[0] == DELAYED


def test_what_teaches_nothing(standing, redis):
    """A mailing, our own people, a bounce, mail that does not end, strangers, a rule that does not learn."""
    _, mta = standing
    writes(mta, *(f"r{number}@far.example" for number in range(30)))
    writes(mta, *(f"r{number}@far.example" for number in range(21)))
    own = [f"x@{kind}.example" for kind in ("local", "virtual", "lmtp", "relay", "alias")]
    writes(mta, *own)
    writes(mta, "a@far.example", sender="")
    writes(mta, "b@far.example", client="198.51.100.99", login="")
    with opened(mta, US, login="ann") as client:
        client.mail(ANN)
        assert client.rcpt("c@far.example").code == 250
        client.rset()
        client.mail(ANN)
        assert client.rcpt("d@far.example").code == 250
        client.close()
    assert rcpt(mta, ELSEWHERE, "s@strange.example", "e@far.example")[:10] == DELAYED
    assert settled(mta, redis) == set()
    # Nor is there a count of who taught nothing.
    learning = {key for key in all_keys(redis) if key.startswith(b"hg1:wrote")}
    assert learning == {PREFIX + b"marker@m.example", COUNT + ANN.encode()}


def test_what_teaches(standing, redis):
    """Twenty at once, somebody beside our own, a client of this host, a program of it."""
    _, mta = standing
    many = {f"r{number}@far.example" for number in range(20)}
    writes(mta, *many)
    assert settled(mta, redis) == many
    writes(mta, "x@virtual.example", "y@far.example")
    with mta.connect() as client:
        client.ehlo()
        assert client.transaction(ANN, ["z@far.example"])[-1].code == 250
    command = ["/usr/sbin/sendmail", "-C", mta.config, "-f", ANN, "cron@far.example", "root@local.example"]
    subprocess.run(command, input=b"Subject: x\n\nHello\n", check=True)
    # Of a program's mail Postfix does not say by whom it is delivered, so root is known, too.
    more = {f"{name}@far.example" for name in ("y", "z", "cron")}
    learnt(redis, *many, *more, "marker@m.example", "root@local.example")


def test_what_postfix_logs_is_brought_along(standing, redis):
    """The log of a real Postfix, as if what it delivers to were elsewhere, teaches what the filter learnt."""
    daemon, mta = standing
    mta.maillog.write_text("")
    writes(mta, "log1@far.example", "x@virtual.example", "x@alias.example")
    writes(mta, *(f"many{number}@far.example" for number in range(21)))
    writes(mta, "log2@far.example", sender="")
    writes(mta, "strange@far.example", client="198.51.100.99", login="")
    command = ["/usr/sbin/sendmail", "-C", mta.config, "-f", ANN, "log3@far.example"]
    subprocess.run(command, input=b"Subject: x\n\nHello\n", check=True)
    for one in ("log1", "many20", "log2", "strange", "log3"):
        mta.sink.wait(f"{one}@far.example")
    learnt(redis, "log1@far.example", "log3@far.example")
    with redis.client() as client:
        client.flushall()

    def brought():
        log = mta.maillog.read_text()
        log = log.replace("relay=127.0.0.1[127.0.0.1]", "relay=mx.far.example[203.0.113.7]")
        return run("import", "correspondents", "-c", daemon.config, "-", text=log)

    wait_until(lambda: brought() and len(known(redis)) == 2, "both are brought along")
    assert known(redis) == {"log1@far.example", "log3@far.example"}
    assert brought().lines[2].split()[0] == "2"


def test_new_ones_of_a_sender_are_bounded(dns, redis, with_postfix):
    """So many a day; and with a secret no address is in the store."""
    config = settings(redis.url, dns, correspondents={"max_daily": 2}, store={"key_secret": "s" * 20})
    with host(config) as running:
        _, mta = running
        for number in range(4):
            writes(mta, f"r{number}@bob.example")
        writes(mta, BOB, sender="eve@own.example")
        wait_until(lambda: len(known(redis)) == 3, "three are known")
        keys = [key for key in all_keys(redis) if key.startswith(b"hg1:wrote")]
        assert not any(b"example" in key for key in keys)
        found = [answers(running, HIS, f"r{number}@bob.example")[0] for number in range(4)]
        assert found == [PASS, PASS, DELAYED, DELAYED]
        assert answers(running, HIS)[0] == PASS
        assert len(known(redis)) == 3


def test_the_store_is_away(dns, with_postfix):
    """Mail goes on, it is told once, and what is written after that is learnt again."""
    with Redis() as redis, host(settings(redis.url, dns)) as (daemon, mta):
        writes(mta, "before@far.example")
        learnt(redis, "before@far.example")
        redis.stop()

        def trouble():
            return [one for one in daemon.events() if "correspondents" in str(one.get("event"))]

        for number in range(6):
            writes(mta, f"lost{number}@far.example")
        wait_until(trouble, "it is told")
        writes(mta, "lost@far.example")
        redis.start()
        wait_until(
            lambda: (writes(mta, "after@far.example"), "after@far.example" in known(redis))[1], "learnt"
        )
        wait_until(lambda: len(trouble()) == 2, "it is told that it is over")
        assert [one["level"] for one in trouble()] == ["warning", "info"]
        assert "before@far.example" in known(redis)


def test_a_row_of_shards(dns, with_postfix):
    """In a Redis Cluster each address is where it belongs."""
    with cluster() as shards, host(settings(shards.url, dns)) as running:
        people = [f"r{number}@bob.example" for number in range(12)]
        writes(running[1], *people)
        wait_until(lambda: sum(len(known(node)) for node in shards.primaries) == 12, "all are known")
        assert all(known(node) for node in shards.primaries)
        assert {answers(running, HIS, one)[0] for one in people} == {PASS}
        assert answers(running, HIS)[0] == DELAYED
        replica = shards.replica.client()
        wait_until(lambda: not replica.info("persistence")["aof_rewrite_in_progress"], "the file is written")


def test_observe_learns(dns, redis, with_postfix):
    """From what a rule that learns has let in, not from what would be greylisted."""
    with host(settings(redis.url, dns, mode="observe")) as running:
        writes(running[1], BOB)
        assert send(running[1], ELSEWHERE, "s@strange.example", "e@far.example")[:3] == "250"
        assert settled(running[1], redis) == {BOB}
        assert answers(running, HIS)[1]["reason"] == "correspondent"


@pytest.mark.parametrize(("mailer", "wanted"), [("esmtp", {BOB}), ("relay", set())])
def test_sendmail(dns, redis, with_sendmail, mailer, wanted):
    """The same; but with a plain SMART_HOST all mail goes by the mailer relay, and teaches nothing."""
    require(sendmail.missing())
    lines = f"""define(`SMART_HOST', `{mailer}:[127.0.0.1]')
define(`ESMTP_MAILER_ARGS', `TCP $h 1')
DAEMON_OPTIONS(`Family=inet, Name=MSA, Addr=127.0.0.1, Port=587, M=Ea')"""
    with (
        Daemon(settings(redis.url, dns), unix=True) as daemon,
        Sendmail(daemon.spec, lines) as mta,
    ):
        msa = ("127.0.0.1", 587)
        user = Client(msa, sock=mta.namespace.connect_from(US, msa)).logged_in(sasl.LOGIN, sasl.PASSWORD)
        for client, to in ((user, BOB), (mta.client("127.0.0.1"), "local@far.example")):
            with client as connection:
                connection.ehlo()
                assert connection.transaction(ANN, [to])[-1].code == 250
                connection.quit()
        both = wanted | ({"local@far.example"} if wanted else set())
        if both:
            learnt(redis, *both)
        daemon.verdict("local@far.example")
    assert known(redis) == both


def test_who_does_not_learn_negotiates_the_same(dns, redis):
    """No step and no action more, with a rule that learns or without."""
    seen = []
    for rules in (RULES, [{**rule, "learn": False} for rule in RULES if rule["action"] == "accept"]):
        config = settings(redis.url, dns) | {"rule": rules}
        config["headers"] = dict.fromkeys(("greylist", "authentication_results", "remove_forged"), False)
        with Daemon(config) as daemon, MilterPeer(daemon.address) as peer:
            seen.append((peer.actions, peer.steps))
    assert seen[0] == seen[1]
