"""The page of a fresh installation, a broken world, a poisoned store, a year of data; behind a password."""

from __future__ import annotations

import json
import random
import re
import time
import zlib
from collections import Counter
from urllib.error import HTTPError

import pytest

from hybridgrey.history import chunks, layout, writer
from hybridgrey.history.layout import Step
from hybridgrey.history.records import Batch, Mark
from hybridgrey.store.connection import Store
from page.test_page import COLOURS, COLUMN, entries, named, rows, tiles
from page.world import BOTH, NOT_REPEATED, TRUSTED, host, lists
from parts.base import wait_until
from parts.browser import PHONE
from parts.redisserver import Redis

YEAR = 366


@pytest.fixture
def redis():
    with Redis() as running:
        yield running


@pytest.fixture
def dns():
    with lists() as running:
        yield running


def test_a_fresh_installation(browser, redis, dns):
    """Before the first mail the page says what to expect, in every part."""
    with host(redis, dns, "mx1.test") as one, browser.visit(one.url) as visit:
        visit.shown("day ")
        assert "No mail has been judged in this time" in visit.text("#empty")
        assert visit.page.locator("#tiles").is_hidden()
        assert visit.text("#state") == "mx1.test well"
        assert {row[0] for row in rows(visit, "#lists-body")} == {"bl.test", "dnsbl.test", "wl.test"}
        assert visit.text("#delays-body") == "No mail was greylisted in the last 24 hours."
        assert visit.text("#networks-body") == "None in this time."
        assert visit.text("#latest-summary") == "No verdicts kept."
        assert visit.faults() == []
        visit.screenshot("empty")
        one.send(BOTH, "reject")
        wait_until(
            lambda: one.totals(span="day") == {"reject": 1}, "the first verdict is counted", NOT_REPEATED
        )
        visit.page.reload()
        visit.shown("day ")
        assert tiles(visit) == named(Counter(reject=1))
        assert visit.page.locator("#empty").is_hidden()


def test_the_store_down(browser, dns):
    """What was known stays, what is wrong is said, and all is well again when the store is back."""
    with Redis() as redis, host(redis, dns, "mx1.test") as one:
        one.send(BOTH, "reject", 3)
        one.send(TRUSTED, "accept", 2)
        wait_until(lambda: sum(one.totals().values()) == 5, "all is counted", NOT_REPEATED)
        redis.stop()
        broken = lambda: one.ask("history", span="hour")["trouble"]  # noqa: E731
        wait_until(broken, "the page's data know of the trouble", NOT_REPEATED)
        with browser.visit(f"{one.url}/#span=hour", size=PHONE, scheme="dark") as visit:
            visit.shown("hour ")
            assert "The store does not answer" in visit.text("#troubles")
            assert visit.text("#state") == "mx1.test not well"
            assert tiles(visit) == named(Counter(reject=3, accept=2))
            assert entries(visit).count() == 5
            assert visit.faults() == []
            visit.screenshot("store-down")
            one.send(BOTH, "reject")
            redis.start()
            wait_until(lambda: one.totals() == {"reject": 4, "accept": 2}, "all is there again", NOT_REPEATED)
            visit.page.reload()
            visit.shown("hour ")
            assert tiles(visit) == named(Counter(reject=4, accept=2))


def test_observing(browser, redis, dns):
    """A reload with another mode is a mark with its name, and what was only observed is told apart."""
    with host(redis, dns, "mx1.test") as one:
        one.send(BOTH, "reject", 2)
        one.daemon.configure({**one.daemon.settings, "mode": "observe"})
        one.daemon.reload()
        wait_until(one.well, "the new keeper serves")

        def observed() -> bool:
            one.talk(BOTH)
            return one.daemon.events("verdict")[-1]["enforced"] is False

        wait_until(observed, "the new workers judge")
        wait_until(one.well, "the new keeper serves")
        number = len(one.daemon.events("verdict"))
        only = sum(not event["enforced"] for event in one.daemon.events("verdict"))
        wait_until(lambda: one.totals() == {"reject": number}, "all is counted", NOT_REPEATED)
        wait_until(lambda: len(one.ask("history", span="hour")["marks"]) == 2, "all is marked", NOT_REPEATED)
        with browser.visit(f"{one.url}/#span=hour") as visit:
            visit.shown("hour ")
            assert visit.text("#state") == "mx1.test well observing only"
            assert re.search(r"mode mx1.test \N{EN DASH} observe", visit.text("#marks"))
            assert f"{only} of them w" in visit.text("#summary")
            assert entries(visit).filter(has_text="rejected (observed)").count() == min(20, only)
            assert visit.faults() == []
            visit.screenshot("observing")


HURT = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script>"


def hostile(now: float) -> list[bytes | str]:
    """Verdicts, or what stands in their place."""
    return [
        b"not JSON",
        b"[]",
        b'{"t": "soon", "client": "192.0.2.1"}',
        b'{"t": 1e308, "client": "192.0.2.1"}',
        json.dumps({"t": now, "mx": HURT, "client": HURT, "sender": "\u202eevil", "lists": {HURT: [HURT]}}),
        json.dumps({"t": now, "client": "x" * 100_000, "rule": HURT, "reply": HURT, "outcome": HURT}),
        json.dumps({"t": now, "client": "192.0.2.1", "lists": "none", "wait_ms": {}, "state": []}),
    ]


def poison(server: Redis) -> None:
    """What somebody else might write to the store."""
    now = time.time()
    with server.client() as client:
        lines = b"\n".join(one if isinstance(one, bytes) else one.encode() for one in hostile(now))
        (ours,) = chunks.cut([json.dumps({"t": now, "client": "192.0.2.9"}).encode()])
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=chunks._DICTIONARY)
        forged = b"1 7 1.0 9999999999.0 " + squeeze.compress(lines) + squeeze.flush()
        client.zadd(layout.verdict_keys("mx1.test")[0], {forged: now, b"not a chunk": now, ours.data: now})
        client.zadd(layout.key("hosts"), {HURT: now, "mx1.test": now, b"\xff\xfe": now})
        mark = [now - 60, HURT, HURT, "\x1b[31m" + HURT]
        client.zadd(layout.key("marks"), {json.dumps(mark): now - 60, b"\xff": now - 50, "[1]": now - 40})
        day = layout.day(now)
        client.zadd(layout.key("top", "network/reject", "mx1.test", day), {HURT: 5, b"\xff": float("inf")})
        client.set(layout.key("top", "domain/reject", "mx1.test", day), "no sorted set")
        chapter = layout.chapter(Step.MINUTE, now)
        fields = {
            layout.field(Step.MINUTE, now, f"list:{HURT}:listed"): 7,
            layout.field(Step.MINUTE, now, f"rule:{HURT}:reject"): 7,
            layout.field(Step.MINUTE, now, "outcome:reject:enforced"): "9" * 400,
            layout.field(Step.MINUTE, now, "outcome:accept:enforced"): "many",
            b"\xff\xff": 1,
            b"": 2,
        }
        client.hset(chapter.key("mx1.test"), mapping=fields)


def test_a_poisoned_store(browser, redis, dns):
    """Whatever is in the store, the page shows what it can, as text."""
    poison(redis)
    with host(redis, dns, "mx1.test") as one, browser.visit(f"{one.url}/#span=hour") as visit:
        visit.shown("hour ")
        assert visit.page.evaluate("window.hurt") is None
        assert visit.page.locator("img, iframe, main script").count() == 0
        assert HURT in visit.text("#latest-body")
        assert HURT in visit.text("#marks")
        assert HURT in visit.text("#rules-body")
        assert "\\u202eevil" in visit.text("#latest-body")
        for entry in entries(visit).all()[:3]:
            entry.locator("summary").click()
            entry.locator(".way table").first.wait_for()
        assert visit.page.evaluate("window.hurt") is None
        assert visit.faults() == []
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not one.daemon.events("page failed")


def test_password(browser, redis, dns):
    """With a password nothing but the health is told without it; the browser's own question is enough."""
    with host(redis, dns, "mx1.test", password="geheim") as one:
        for path in ("/", "/metrics", "/api/latest"):
            with pytest.raises(HTTPError, match="401"):
                one.get(path)
        assert one.get("/healthz") == b"ok\n"
        credentials = {"username": "", "password": "geheim"}
        with browser.visit(one.url, http_credentials=credentials) as visit:
            visit.shown("day ")
            assert visit.text("#state") == "mx1.test well"
        assert "geheim" not in one.daemon.log_text()


def test_a_year_of_data(browser, redis, dns):
    """A year of two hosts is on the screen within seconds, with every day in its place."""
    now = time.time()
    days = [int(now) // Step.DAY * Step.DAY - n * Step.DAY for n in range(YEAR)]
    random.seed(1)
    totals: Counter[str] = Counter()
    for name in ("mx1.test", "mx2.test"):
        batch = Batch()
        for day in days:
            counts = {f"outcome:{one}:enforced": random.randint(1, 9000) for one in layout.OUTCOMES}
            totals.update({one: counts[f"outcome:{one}:enforced"] for one in layout.OUTCOMES})
            counts |= {f"rule:rule{n}:reject": n for n in range(20)} | {
                f"list:l{n}.test:listed": n for n in range(20)
            }
            batch.counts[Step.DAY, day] = counts
        batch.marks = [Mark(day, name, "reload", f"of day {day}") for day in days[::9]]
        store = Store.open(redis.unix_url, 5.0)
        writer.Writer(store, name, f"test {name}").write(1, batch, now)
        store.close()
    with host(redis, dns, "mx1.test") as one, browser.visit(f"{one.url}/#span=year") as visit:
        began = time.monotonic()
        one.ask("history", span="year")
        # Generous: this machine may be busy. On an idle one it takes some 50 ms.
        assert time.monotonic() - began < 10
        visit.shown("year ")
        assert tiles(visit) == named(totals)
        drawn = [
            visit.page.evaluate(COLUMN, [step, YEAR, visit.page.evaluate(COLOURS)]) for step in (3, 180, 363)
        ]
        assert all([name for name, _ in column][:3] == ["accept", "delay", "reject"] for column in drawn)
        visit.page.locator("#marks summary").click()
        assert len(rows(visit, "#marks")) == 2 * len(days[::9]) + 1 - 5
        assert visit.faults() == []
        visit.screenshot("year")
