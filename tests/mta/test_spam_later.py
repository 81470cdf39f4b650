"""Mail let in early by a real daemon behind a real Postfix, and what Postfix's log says of it later."""

from __future__ import annotations

import json
import re

import pytest

from mta.talk import opened, plain
from parts.base import LOOPBACK, free_port, wait_until
from parts.daemon import Daemon
from parts.forked import run
from parts.postfix import Postfix
from parts.redisserver import Redis
from parts.smtp import Client

pytestmark = pytest.mark.mta

HIS = "192.0.2.1"
CHECKS = "header_checks = regexp:{{/^X-Spam-Flag: YES/ REJECT spam} {/^Subject: virus/ REJECT virus}}\n"


def mail(subject, *fields):
    return "\r\n".join([f"Subject: {subject}", f"Message-ID: <{subject}@x.example>", *fields, "", "text", ""])


def say(mta, recipients, content, client=HIS):
    with opened(mta, client) as connection:
        answers = connection.transaction("a@x.example", recipients, content)
        connection.quit()
    return plain(answers[-1])[:3]


def expected(daemon, *recipients):
    for one in recipients:
        done = run("expect", one, "-c", daemon.config)
        assert done.returncode == 0, done


def imported(daemon, *logs, text=""):
    done = run("import", "spam", "--json", "-c", daemon.config, *logs, input=text)
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    return found["told"], found["spam"], found["spam_first"]


def kept(daemon, number):
    """All verdicts are in the store."""

    def known():
        done = run("log", "--json", "-c", daemon.config)
        return done.stdout.count('"reason":"expected"') == number

    wait_until(known, "the store has the verdicts", 60.0)


def queue_id(mta, subject):
    """Of the message with a subject."""
    return re.search(rf"cleanup\[\d+\]: (\w+): message-id=<{subject}@", mta.maillog.read_text())[1]


@pytest.fixture
def daemon(redis):
    settings = {
        "store": {"url": redis.unix_url},
        "workers": 1,
        "greylist": {"sender_pools": False},
        "rule": [{"name": "the rest", "action": "greylist"}],
    }
    with Daemon(settings, unix=True) as running:
        yield running


@pytest.fixture
def redis():
    with Redis() as running:
        yield running


def test_a_log_of_postfix(daemon, tmp_path):
    """What was let in early and refused as spam at its end, or called so by amavis, is found by the log."""
    with Postfix(daemon.spec, more=CHECKS) as mta:
        expected(daemon, "bob@b.example", "eve@b.example", "dan@b.example", "joe@b.example")
        assert say(mta, ["bob@b.example", "eve@b.example"], mail("one")) == "250"
        assert say(mta, ["dan@b.example"], mail("two", "X-Spam-Flag: YES")) == "550"
        assert say(mta, ["joe@b.example"], mail("virus")) == "550"
        # Who is not expected waits; what is no mail in the end is told of by nobody.
        assert say(mta, ["sue@b.example"], mail("three")) == "450"
        with opened(mta, HIS) as connection:
            connection.mail("a@x.example")
            assert connection.rcpt("bob@b.example").code == 250
        mta.sink.wait("bob@b.example")
        wait_until(lambda: mta.maillog.read_text().count("removed") == 1, "the message has left the queue")
        kept(daemon, 5)
        assert imported(daemon, mta.maillog) == (4, 1, 1)
        found = (
            f"amavis[7]: (1-1) Passed SPAM {{RelayedTaggedInbound}}, [{HIS}]:4 [{HIS}] <a@x.example> -> "
            f"<bob@b.example>,<eve@b.example>, Queue-ID: {queue_id(mta, 'one')}, Hits: 9, size: 7, 9 ms"
        )
        head = mta.maillog.read_text().splitlines()[-1].partition(" postfix/")[0]
        log = tmp_path / "mail.log"
        log.write_text(f"{mta.maillog.read_text()}{head} {found}\n")
        assert imported(daemon, log) == (4, 3, 2)
        assert imported(daemon, log, mta.maillog) == (4, 3, 0)


@pytest.mark.parametrize("told", [True, False], ids=["XFORWARD", "plain"])
def test_through_a_content_filter(daemon, tmp_path, told):
    """A message that a content filter has given back under another queue id is followed into the folder."""
    port = free_port()
    back = (
        f"{LOOPBACK}:{port} inet n - n - - smtpd -o content_filter= -o smtpd_milters= "
        "-o myhostname=f.example.test -o smtpd_authorized_xforward_hosts=127.0.0.0/8"
    )
    settings = {
        "content_filter": f"smtp:[{LOOPBACK}]:{port}",
        "smtp_send_xforward_command": "yes" if told else "no",
    }
    with Postfix(daemon.spec, settings, services=[back]) as mta:
        expected(daemon, "bob@b.example")
        assert say(mta, ["bob@b.example"], mail("one")) == "250"
        mta.sink.wait("bob@b.example")
        wait_until(lambda: mta.maillog.read_text().count("removed") == 2, "it has left both queues")
        kept(daemon, 1)
        text = mta.maillog.read_text()
        assert ("orig_queue_id=" in text) == told
        assert imported(daemon, mta.maillog) == (1, 0, 0)
        head = text.splitlines()[-1].partition(" postfix/")[0]
        junk = "dovecot: lmtp(bob@b.example): sieve: msgid=<one@x.example>: stored mail into mailbox 'Junk'"
        (tmp_path / "log").write_text(f"{text}{head} {junk}\n")
        assert imported(daemon, tmp_path / "log") == (1, 1, 1)


def test_a_helo_that_looks_like_a_log(daemon):
    """What a client says in HELO, and in the message id, is no word of amavis."""
    with Postfix(daemon.spec) as mta:
        expected(daemon, "bob@b.example")
        assert say(mta, ["bob@b.example"], mail("one")) == "250"
        name = queue_id(mta, "one")
        said = (
            f"amavis[7]: (1-1) Passed SPAM {{X}}, [{HIS}]:4 [{HIS}] <a@x> -> <b@x>, Queue-ID: {name}, Hits: 9"
        )
        with Client((LOOPBACK, mta.port)) as connection:
            for line in (f"EHLO {said}", "MAIL FROM:<a@x.example>", f"RCPT TO:<{said}>", said):
                connection.command(line)
        assert say(mta, ["bob@b.example"], mail("two", f"Message-ID: <{said}>")) == "250"
        wait_until(lambda: mta.maillog.read_text().count("removed") == 2, "both have left the queue")
        assert "Passed SPAM" in mta.maillog.read_text()
        kept(daemon, 2)
        assert imported(daemon, mta.maillog) == (2, 0, 0)
