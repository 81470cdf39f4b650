"""What was spam later of the mail let in early: its counts, its sentence, its column, in a real browser."""

from __future__ import annotations

import json
import time

import pytest

from cli.test_import_spam import keep, lines, record
from hybridgrey.history.layout import Step
from hybridgrey.page import flow
from page import test_look
from page.test_look import CUT
from page.test_page import rows
from page.world import Host, host, lists, settings
from parts.base import LOOPBACK, accepts, free_port, wait_until
from parts.browser import DESKTOP, PHONE
from parts.daemon import Daemon
from parts.forked import run
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis
from parts.spamd import ScriptedSpamd

MONTH = {
    "reason:pool:accept": 300,
    "reason:domain:accept": 100,
    "reason:expected:accept": 12,
    "reason:list:accept": 50,
    "reason:pool:reject": 7,
    "rule:pools:accept": 462,
    "outcome:accept:enforced": 462,
}
LOGGED = {"later:pool:told:log": 290, "later:pool:spam:log": 2, "later:domain:told:log": 100}
LOGGED |= {"later:domain:spam:log": 1, "later:list:told:log": 9, "later:list:spam:log": 9}
SCANNED = {"later:pool:told:scanner": 40, "later:pool:spam:scanner": 4}


def test_counts():
    """Of each reason, and of all; reasons that are not early, and those that let in nothing, are none."""
    made = flow.later(MONTH | LOGGED | SCANNED | {"later:correspondent:told:log": 3})
    nothing = {"told": 0, "spam": 0}
    assert made == {
        "early": 412,
        "log": {"told": 390, "spam": 3},
        "scanner": {"told": 40, "spam": 4},
        "reasons": {
            "domain": {"early": 100, "log": {"told": 100, "spam": 1}, "scanner": nothing},
            "expected": {"early": 12, "log": nothing, "scanner": nothing},
            "pool": {"early": 300, "log": {"told": 290, "spam": 2}, "scanner": {"told": 40, "spam": 4}},
        },
    }
    assert flow.later({}) == {"early": 0, "log": nothing, "scanner": nothing, "reasons": {}}


def test_logs():
    """The oldest first; what no calendar has is none."""
    assert flow.logs({"b": 5, "a\x1b": 9, "c": 10**12}) == [
        {"host": "b", "until": 5},
        {"host": "a\\x1b", "until": 9},
        {"host": "c", "until": 4e9},
    ]


@pytest.fixture(scope="module")
def redis():
    with Redis() as running:
        yield running


@pytest.fixture(scope="module")
def dns():
    with lists() as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(redis):
    with redis.client() as client:
        client.flushall()


def counted(redis, counts):
    hour = (int(time.time()) - 7200) // 3600 * 3600
    test_look.record(redis, "mx1.test", {(Step.HOUR, hour): counts})


def read(redis, **until):
    with redis.client() as client:
        for mx, at in until.items():
            client.hset("hg1:history:{history}:logs", f"{mx}.test", at)


DASH = "\u2013"
TODAY = int(time.time()) // 86400 * 86400
WORDS = [
    # counts, up to when logs have been read; the sentences
    (
        {},
        {},
        "Whether any of the 412 mails let in early were spam later is not known. hybridgrey import spam",
    ),
    (
        {},
        {"mx1": TODAY},
        "is not known: the mail log (read until 00:00) has none of them. hybridgrey import spam",
    ),
    (
        LOGGED,
        {"mx1": TODAY + 60},
        "Of 412 let in early, the mail log tells of 390 (read until 00:01): 3 of them were spam later.",
    ),
    (
        LOGGED | {"later:pool:told:log": 312, "later:pool:spam:log": 0},
        {"mx1": TODAY + 60},
        "Of 412 let in early, 1 was spam later by the mail log (read until 00:01).",
    ),
    (SCANNED, {}, "The scanner has seen 40 of 412 let in early, and took 4 for spam."),
    (
        LOGGED | SCANNED,
        {"mx1": TODAY + 120, "mx2": TODAY},
        "(read until 00:00 for mx2.test, 00:02 for mx1.test): 3 of them were spam later. The scanner has",
    ),
]


@pytest.mark.parametrize(("counts", "until", "said"), WORDS)
def test_in_words(browser, redis, dns, counts, until, said):
    """By the log, by the scanner, by both; and where neither is there, what would tell."""
    counted(redis, MONTH | counts)
    test_look.record(redis, "mx2.test", {(Step.HOUR, TODAY): {"sessions": 1}})
    read(redis, **until)
    with host(redis, dns, "mx1.test") as one, browser.visit(f"{one.url}/#span=week") as visit:
        visit.shown("week ")
        wait_until(lambda: said in visit.text("#later-summary"), f"{said}: {visit.text('#later-summary')}")
        assert visit.faults() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_table(browser, redis, dns, scheme, size):
    """Beside each reason how much was spam, where it is known; all of it fits."""
    counted(redis, MONTH | LOGGED | SCANNED)
    with (
        host(redis, dns, "mx1.test") as one,
        browser.visit(f"{one.url}/#span=week", scheme=scheme, size=size) as visit,
    ):
        visit.shown("week ")
        visit.screenshot(f"later-{scheme}-{size[0]}")
        assert rows(visit, "#later-body") == [
            ["in the pool of a big sender", "300", "2 of 290", "4 of 40"],
            ["the sender's domain passes as a whole", "100", "1 of 100", DASH],
            ["mail for the recipient was expected", "12", DASH, DASH],
        ]
        wide, cut = visit.page.evaluate(CUT)
        assert (cut, "What was spam later of mail let in early" in wide) == ([], False)
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.faults() == []


PRIVATE = [
    ({"store": {"key_secret": "0123456789abcdef0123"}}, "with [store] key_secret no verdict is in the store"),
    ({"metrics": {"keep_verdicts": "0"}}, '[metrics] keep_verdicts is "0"'),
]


@pytest.mark.parametrize(("more", "why"), PRIVATE)
def test_where_no_log_can_tell(browser, redis, dns, more, why):
    """It says so, and names the other way."""
    counted(redis, MONTH)
    port = free_port()
    given = settings(redis, dns, "mx1.test", port, "")
    merged = {name: given[name] | more.get(name, {}) if name in more else given[name] for name in given}
    with Daemon(merged):
        wait_until(lambda: accepts((LOOPBACK, port)), "the page is served")
        with browser.visit(f"http://{LOOPBACK}:{port}/#span=week") as visit:
            visit.shown("week ")
            wait_until(lambda: why in visit.text("#later-summary"), "it says why")
            assert "no mail log can tell" in visit.text("#later-summary")
            assert "A scanner of messages ([content]) would." in visit.text("#later-summary")


def test_from_a_log_to_the_page(browser, redis, dns, tmp_path):
    """What the command finds is on the page, for all hosts and for each."""
    now = int(time.time()) // 60 * 60 - 1800
    keep(redis, record(1), record(2), record(3, mx="mx2.test"))
    for mx, number in (("mx1.test", 2), ("mx2.test", 1)):
        names = ("rule:pools:accept", "reason:pool:accept", "outcome:accept:enforced")
        test_look.record(redis, mx, {(Step.MINUTE, now): dict.fromkeys(names, number)})
    log = tmp_path / "mail.log"
    log.write_text(lines(1, spam=True) + lines(2) + lines(3, spam=True, mx="mx2"))
    with host(redis, dns, "mx1.test") as one:
        done = run("import", "spam", "--json", "-c", one.daemon.config, log)
        assert json.loads(done.stdout)["spam_first"] == 2
        with browser.visit(f"{one.url}/#span=day") as visit:
            visit.shown("day ")
            said = "Of 3 let in early, 2 were spam later by the mail log (read until"
            wait_until(
                lambda: said in visit.text("#later-summary"), f"{said}: {visit.text('#later-summary')}"
            )
        with browser.visit(f"{one.url}/#span=day&host=mx2.test") as visit:
            visit.shown("day mx2.test")
            said = "Of 1 let in early, 1 was spam later by the mail log (read until"
            wait_until(
                lambda: said in visit.text("#later-summary"), f"{said}: {visit.text('#later-summary')}"
            )


SCANS = [
    # what is said of the message of each recipient; whether it is expected
    (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 20.0 / 5.0\r\n\r\n", "a", True),
    (b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 4.0 / 5.0\r\n\r\n", "b", True),
    (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 20.0 / 5.0\r\n\r\n", "c", False),
]


@pytest.mark.parametrize("engine", ["libmilter", "native"])
def test_from_the_scanner_to_the_page(redis, dns, engine):
    """What it says of mail let in early is in the record, in metrics and in the history, by reason."""
    port = free_port()
    with ScriptedSpamd() as scanner:
        given = settings(redis, dns, "mx1.test", port, "") | {
            "engine": engine,
            "content": {"scanner": scanner.spec},
            "rule": [{"name": "spam", "score": ">=3", "action": "greylist"}],
        }
        with Daemon(given) as daemon:
            wait_until(lambda: accepts((LOOPBACK, port)), "the page is served")
            for answer, name, is_expected in SCANS:
                scanner.answer = answer
                if is_expected:
                    assert run("expect", f"{name}@x.test", "-c", daemon.config).returncode == 0
                with MilterPeer(daemon.address) as peer:
                    peer.connect("unknown", "192.0.2.77")
                    peer.helo("h.test")
                    peer.mail("<s@x.test>")
                    assert peer.rcpt(f"<{name}@x.test>").passes
                    assert (peer.content(body=b"x\r\n").reply.kind == "continue") == is_expected
            assert [daemon.verdict(f"{name}@x.test").get("spam") for name in "abc"] == [True, False, True]
            one = Host("mx1.test", daemon, f"http://{LOOPBACK}:{port}")
            metrics = one.get("/metrics").decode()
            for spam in ("true", "false"):
                assert f'scanned_early_total{{reason="expected",spam="{spam}"}} 1' in metrics
            wanted = {"told": 2, "spam": 1}
            wait_until(
                lambda: one.ask("history", span="hour")["later"]["scanner"] == wanted, "its history", 60.0
            )
            assert one.ask("history", span="hour")["later"]["reasons"]["expected"]["scanner"] == wanted
