"""``hybridgrey report`` on the log of a real Postfix: before with postgrey, after with the daemon."""

from __future__ import annotations

import json
import os

import pytest

from parts.base import wait_until
from parts.commandline import run
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.greylisters import Postgrey
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = pytest.mark.usefixtures("with_postfix")

LISTED = "192.0.2.66"
LISTS = ("bl.mailspike.net", "zen.spamhaus.org", "rep.mailspike.net", "list.dnswl.org")
RECIPIENTS = "/^bad@/ REJECT\n/^slow@/ 450 try later\n/^warn@/ WARN look at this\n"


def send(mta, client, *recipients, sender="a@example.org"):
    """One connection with one message; the codes of its recipients and, if any passed, of the message."""
    with mta.client(client, "mail.example.org") as connection:
        connection.ehlo()
        return [answer.code for answer in connection.transaction(sender, list(recipients))]


def logged(mta):
    """The mail log so far; Postfix makes the file with its first line."""
    return mta.maillog.read_text() if mta.maillog.exists() else ""


def whole(mta, taken):
    """The mail log, when the messages that were taken have left the queue."""
    wait_until(lambda: logged(mta).count(": removed\n") == taken, f"{taken} messages delivered")
    return mta.maillog.read_text()


def report(config, *words):
    """What the report on a log says, by series."""
    done = run("report", "-c", config, "--json", *words)
    assert done.status == 0, done
    return json.loads(done.output)


def totals(document):
    return {name: row["total"] for name, row in document["per_second"].items() if row["total"]}


@pytest.fixture
def config(tmp_path):
    """A configuration whose store is not there: only logs count."""
    path = tmp_path / "hg.toml"
    path.write_text('[store]\nurl = "redis://127.0.0.1:9/0"\n')
    return path


def test_postgrey_before(config, tmp_path):
    """Accepted, rejected, greylisted by postgrey and put off otherwise are told apart in real lines."""
    (tmp_path / "map").write_text(RECIPIENTS)
    tmp_path.chmod(0o755)
    with Postgrey() as postgrey:
        os.chmod(postgrey.address, 0o666)  # noqa: PTH101, S103 (a socket for the user postfix)
        restrictions = (
            f"check_recipient_access regexp:{tmp_path}/map, check_policy_service unix:{postgrey.address}"
        )
        with Postfix(settings={"smtpd_recipient_restrictions": restrictions}) as mta:
            assert send(mta, "192.0.2.1", "b@example.net", "c@example.net") == [450, 450]
            assert send(mta, "2001:db8::1", "b@example.net", "bad@example.net") == [450, 554]
            wait_until(lambda: send(mta, "192.0.2.1", "b@example.net")[0] == 250, "postgrey lets it pass")
            retries = mta.maillog.read_text().count("Greylisted, see") - 3
            assert send(mta, "192.0.2.1", "b@example.net", "c@example.net") == [250, 250, 250]
            assert send(mta, "192.0.2.1", "slow@example.net", sender="greylisted@example.org") == [450]
            assert send(mta, "192.0.2.1", "bad@example.net", "b@example.net") == [554, 250, 250]
            # A client that goes away after RCPT, as a callout does, has handed over nothing.
            with mta.client("192.0.2.1", "mail.example.org") as connection:
                connection.ehlo()
                connection.mail("a@example.org")
                assert connection.rcpt("b@example.net").code == 250
            text = whole(mta, 3)
    log = tmp_path / "mail.log"
    log.write_text(text)
    document = report(config, "--mail-log", log, "-o", tmp_path / "report.svg")
    assert totals(document) == {"accepted": 3, "rejected": 2, "greylisted": 3 + retries, "deferred": 1}
    assert document["switched_on"] is None


def test_postgrey_with_a_text_of_its_own(config, tmp_path):
    """A greylister whose reply does not say the word is known by its name, in real lines too."""
    with Postgrey("--greylist-text=Delayed by Postgrey") as postgrey:
        os.chmod(postgrey.address, 0o666)  # noqa: PTH101, S103 (a socket for the user postfix)
        restrictions = f"check_policy_service unix:{postgrey.address}"
        with Postfix(settings={"smtpd_recipient_restrictions": restrictions}) as mta:
            assert send(mta, "192.0.2.1", "b@example.net") == [450]
            wait_until(lambda: "Delayed by Postgrey" in logged(mta), "the refusal in the log")
            text = mta.maillog.read_text()
    log = tmp_path / "mail.log"
    log.write_text(text)
    document = report(config, "--mail-log", log, "-o", tmp_path / "report.svg")
    assert totals(document) == {"greylisted": 1}


def test_the_daemon_after(tmp_path):
    """What the daemon refused is in Postfix's log as it is in the history."""
    with Redis() as redis, FakeDns() as dns:
        for name in LISTS:
            dns.zone(name, listed={LISTED: "127.0.0.4"} if name == "zen.spamhaus.org" else {})
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
            "hostname": "mx1",
        }
        with Daemon(settings) as daemon, Postfix(daemon.spec) as mta:
            assert send(mta, LISTED, "b@example.net", "c@example.net") == [554, 554]
            assert send(mta, "198.51.100.1", "b@example.net") == [450]
            wait_until(
                lambda: send(mta, "198.51.100.1", "b@example.net")[0] == 250, "the greylist lets it pass"
            )
            text = whole(mta, 1)
            daemon.await_events("verdict", 4)
        delays = text.count("Greylisted, please")
        log = tmp_path / "mail.log"
        log.write_text(text)
        document = report(daemon_config(tmp_path, redis), "--mail-log", log, "-o", tmp_path / "report.svg")
        assert totals(document) == {"accepted": 1, "rejected": 2, "greylisted": delays}
        assert document["switched_on"] is not None
        # The daemon has ended and written what it had; the history alone says the same.
        document = report(daemon_config(tmp_path, redis), "-o", tmp_path / "report.html")
        assert document["sources"] == ["the store's history"]
        assert totals(document) == {"accepted": 1, "rejected": 2, "greylisted": delays}
        assert document["lists"] == {"zen.spamhaus.org": {"sole": 2, "shared": 0}}
        assert document["switched_on"] == pytest.approx(document["start"], abs=3600)
        done = run("report", "-c", tmp_path / "hg.toml", "observed", "--json")
    observed = json.loads(done.output)
    assert (observed["source"], observed["enforced"]) == ("history", observed["verdicts"])
    assert observed["outcomes"] == {"rejected": 2, "greylisted": delays, "deferred": 0, "accepted": 1}
    assert observed["lists"]["zen.spamhaus.org"]["listed"] == 1
    assert observed["clients"]["rejected"] == {"192.0.2.0/24": 2}
    assert observed["senders"]["rejected"] == {"example.org": 2}


def daemon_config(folder, redis):
    path = folder / "hg.toml"
    path.write_text(f'[store]\nurl = "{redis.unix_url}"\n')
    return path


def test_filters_of_content(config, tmp_path):
    """A message refused by its header is rejected; one through a filter before the queue is accepted once."""
    checks = tmp_path / "checks"
    checks.write_text("/^Subject:/ REJECT no subjects\n")
    tmp_path.chmod(0o755)
    with Postfix(settings={"header_checks": f"regexp:{checks}"}) as mta:
        assert send(mta, "192.0.2.1", "b@example.net") == [250, 550]
        wait_until(lambda: "reject: header" in logged(mta), "the refusal in the log")
        text = mta.maillog.read_text()
        with Postfix(settings={"smtpd_proxy_filter": f"127.0.0.1:{mta.sink.port}"}) as before:
            assert send(before, "192.0.2.1", "b@example.net") == [250, 250]
            wait_until(lambda: "proxy-accept" in logged(before), "the message in the log")
            text += before.maillog.read_text()
    log = tmp_path / "mail.log"
    log.write_text(text)
    document = report(config, "--mail-log", log, "-o", tmp_path / "report.svg")
    assert totals(document) == {"accepted": 1, "rejected": 1}
