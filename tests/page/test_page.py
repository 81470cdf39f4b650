"""What the page shows of two hosts with known traffic, in a real Chromium.

Leaving a visit fails when there was an error on the console or a request to elsewhere, so each test here is
one of that too.
"""

from __future__ import annotations

import re

import pytest

from page.world import BOTH, HELO, MARKUP, ONE
from parts.base import wait_until
from parts.browser import DESKTOP, PHONE

NONE = "\N{EN DASH}"
OUTCOMES = {"accept": "accepted", "delay": "greylisted", "reject": "rejected", "tempfail": "deferred"}


@pytest.fixture
def visit(browser, hosts):
    with browser.visit(f"{hosts.one.url}/#span=hour") as opened:
        opened.shown("hour ")
        yield opened


def tiles(visit):
    """The totals, by what they are called."""
    rows = visit.page.locator("#tiles .tile").all()
    texts = [(row.locator("dt").inner_text(), row.locator("dd b").inner_text()) for row in rows]
    return {name: int(value.replace(",", "")) for name, value in texts if name in OUTCOMES.values()}


def named(counts):
    return {name: counts[outcome] for outcome, name in OUTCOMES.items()}


def rows(visit, selector):
    """A table's rows, each a list of texts."""
    return [
        [" ".join(cell.split()) for cell in row.locator("th, td").all_inner_texts()]
        for row in visit.page.locator(f"{selector} tbody tr").all()
    ]


# -- numbers


def test_totals_of_all_hosts(visit, hosts):
    """Both hosts together, as counted while the mail was sent."""
    assert tiles(visit) == named(hosts.one.outcomes + hosts.two.outcomes)
    assert visit.text("#state") == "mx1.test well"
    total = sum((hosts.one.outcomes + hosts.two.outcomes).values())
    assert f"In the last hour {total} recipients were judged" in visit.text("#summary")


def test_one_host_or_all(visit, hosts):
    """A host can be chosen; the choice stands in the address and outlives a reload of the page."""
    select = visit.page.get_by_label("Host")
    assert select.locator("option").all_inner_texts() == ["all", "mx1.test", "mx2.test"]
    select.select_option("mx2.test")
    visit.shown("hour mx2.test")
    assert tiles(visit) == named(hosts.two.outcomes)
    visit.page.reload()
    visit.shown("hour mx2.test")
    assert tiles(visit) == named(hosts.two.outcomes)
    visit.page.get_by_label("Host").select_option("")
    visit.shown("hour ")
    assert tiles(visit) == named(hosts.one.outcomes + hosts.two.outcomes)


@pytest.mark.parametrize("span", ["Hour", "Day", "Week", "Month", "Year"])
def test_every_span_has_the_same_mail(visit, hosts, span):
    """All that happened lies in each span, for each count is kept by minute, hour and day."""
    visit.page.get_by_role("radio", name=span).check()
    visit.shown(f"{span.lower()} ")
    assert tiles(visit) == named(hosts.one.outcomes + hosts.two.outcomes)


def test_the_chart_as_a_table(visit, hosts):
    """Its columns add up to the totals."""
    visit.page.get_by_text("The chart as a table").click()
    visit.page.locator("#numbers-body table").wait_for()  # it is made after the click, not by it
    table = rows(visit, "#numbers-body")
    assert len(table) == 60
    sums = {name: sum(int(row[at + 1]) for row in table) for at, name in enumerate(OUTCOMES.values())}
    assert sums == named(hosts.one.outcomes + hosts.two.outcomes)


COLUMN = """
// The colours of one column of the chart from below, as [name, pixels], the thin lines between left out.
([step, steps, colours]) => {
  const canvas = document.querySelector("#chart canvas");
  const box = document.querySelector("#chart .u-over");
  const x = Math.round(box.offsetLeft + ((step + 0.5) / steps) * box.clientWidth);
  const found = [];
  const context = canvas.getContext("2d");
  for (let y = box.offsetTop + box.clientHeight - 2; y >= box.offsetTop; y--) {
    const [r, g, b] = context.getImageData(x, y, 1, 1).data;
    const close = ([, [cr, cg, cb]]) => Math.abs(r - cr) + Math.abs(g - cg) + Math.abs(b - cb) < 12;
    const name = Object.entries(colours).find(close)?.[0];
    if (!name) continue;
    if (found.at(-1)?.[0] === name) found.at(-1)[1]++;
    else found.push([name, 1]);
  }
  return found;
}
"""
COLOURS = """
() => Object.fromEntries(["accept", "delay", "reject"].map((name) => {
  const colour = getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();
  return [name, [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16))];
}))
"""


def test_the_chart_is_drawn_to_scale(visit, hosts):
    """In the column of each minute the colours are stacked in order, as high as the counts have it."""
    answer = hosts.one.ask("history", span="hour")
    counts = answer["outcomes"]
    drawn = 0
    for step in range(60):
        want = [(name, counts[name][step]) for name in ("accept", "delay", "reject") if counts[name][step]]
        column = visit.page.evaluate(COLUMN, [step, 60, visit.page.evaluate(COLOURS)])
        if not want:
            assert not column
            continue
        drawn += 1
        assert [name for name, _ in column] == [name for name, _ in want]
        pixels, number = sum(height for _, height in column), sum(count for _, count in want)
        for (_, height), (_, count) in zip(column, want, strict=True):
            assert abs(height - pixels * count / number) <= 4
    assert drawn >= 1


def test_lists(visit):
    """Hits, rejects that a list had a part in, and those that only it had."""
    found = {row[0]: row for row in rows(visit, "#lists-body")}
    heads = visit.page.locator("#lists-body thead th").all_inner_texts()
    columns = {head: at for at, head in enumerate(heads)}
    health, had, alone = (
        columns["Health"],
        columns["Rejects with this list"],
        columns["Rejects by this list alone"],
    )
    assert (found["bl.test"][had], found["bl.test"][alone]) == ("11 (92 %)", "3 (25 %)")
    assert (found["dnsbl.test"][had], found["dnsbl.test"][alone]) == ("9 (75 %)", "1 (8.3 %)")
    assert found["wl.test"][had] == NONE
    # Once asked by a worker, the list is not asked again by it while its answer holds.
    assert found["wl.test"][columns["Hits"]] in ("1", "2")
    assert {row[health] for row in found.values()} == {"votes"}


def test_delays(visit):
    """The one greylisted mail that came back was delayed by a second or more."""
    summary = visit.text("#delays-summary")
    assert summary.startswith("1 recipient of greylisted mail came back and passed")
    (row,) = rows(visit, "#delays-body")
    assert row[0] in ("up to 1 s", "1 s to 5 s", "5 s to 15 s", "15 s to 1 min")
    assert row[1:] == ["", "1", "100 %"]


def test_tops(visit):
    """Networks and sender domains with what their recipients got."""
    networks = {row[0]: row[1:] for row in rows(visit, "#networks-body")}
    # accepted, greylisted, rejected, deferred, all
    assert networks["198.51.100.0/24"] == ["8", NONE, NONE, NONE, "8"]
    assert networks["192.0.2.0/24"] == [NONE, NONE, "12", NONE, "12"]
    domains = {row[0]: row[1:] for row in rows(visit, "#domains-body")}
    assert domains["example.org"][0] == "9"
    assert domains[f"<{MARKUP}@evil.example>"][1] == "1"


def test_by_hand(visit):
    """Entries by hand are shown with who and why, on each host, as text; nothing here changes them."""
    found = {row[0]: row[1:] for row in rows(visit, "#hand-body")}
    assert found["192.0.2.0/24"][0] == "allowed"
    assert found["192.0.2.0/24"][2:] == ["unlisted", "ann on mx1.test", MARKUP]
    assert found["sender spam@example.org"][0] == "blocked"
    assert found["sender spam@example.org"][2] not in ("unlisted", "")
    assert visit.page.locator("#hand button, #hand input, #hand form, #hand img").count() == 0


# -- marks


def test_marks(visit, hosts):
    """The starts of both hosts are on the chart and in words."""
    marks = [" ".join(text.split()) for text in visit.page.locator("#marks li").all_inner_texts()]
    for name in ("mx1.test", "mx2.test"):
        assert any(re.match(rf"\d+ \d\d:\d\d start {name}", mark) for mark in marks), marks
    assert visit.page.evaluate(DASHES) > 20


DASHES = """
// Pixels of the marks' colour in the upper half of the plot, where nothing else is of it.
() => {
  const canvas = document.querySelector("#chart canvas");
  const box = document.querySelector("#chart .u-over");
  const colour = getComputedStyle(document.body).getPropertyValue("--mark").trim();
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const { data } = canvas.getContext("2d").getImageData(box.offsetLeft, 0, box.clientWidth, box.offsetTop);
  let found = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b) < 12) found++;
  }
  return found;
}
"""


# -- the latest verdicts


def entries(visit):
    return visit.page.locator("#latest-body > li")


def searched(visit, text, words):
    visit.page.get_by_label("Search").fill(text)
    wait_until(lambda: words in visit.text("#latest-summary"), f"{words!r} for {text!r}", 30.0)


def test_search(visit, hosts):
    """Words, networks and outcomes find verdicts; nothing found is said."""
    both = hosts.one.outcomes + hosts.two.outcomes
    assert visit.text("#latest-summary").startswith(f"20 of {sum(both.values())} verdicts")
    searched(visit, "192.0.2.2", "3 verdicts that match “192.0.2.2”")
    assert entries(visit).count() == 3
    assert all(ONE in text for text in entries(visit).all_inner_texts())
    searched(visit, "dnsbl.test mx2", "3 verdicts that match")
    searched(visit, "198.51.100.0/24 accepted", "8 verdicts that match")
    searched(visit, "nowhere.example", "No verdicts that match “nowhere.example”.")
    assert entries(visit).count() == 0
    visit.page.reload()
    visit.shown("hour ")
    assert visit.page.get_by_label("Search").input_value() == "nowhere.example"


def test_more(visit, hosts):
    """The button brings the rest, and goes when all are there."""
    visit.page.get_by_role("button", name="Show more").click()
    number = sum((hosts.one.outcomes + hosts.two.outcomes).values())
    wait_until(lambda: entries(visit).count() == number, "all verdicts are listed", 30.0)
    assert visit.page.get_by_role("button", name="Show more").is_hidden()


def test_the_way_of_a_verdict(visit):
    """An entry opens what the client got and the way through the rules, as `explain` would tell it."""
    searched(visit, f"{BOTH} mx1", "6 verdicts that match")
    entries(visit).first.locator("summary").click()
    way = entries(visit).first.locator(".way")
    way.locator("table").first.wait_for()
    assert [row[:3] for row in rows(visit, "#latest-body li:first-child .way .scroll:first-of-type")] == [
        ["1. blocklists", "reject", "matches"],
        ["2. allowlists", "accept", "not reached"],
        ["3. the rest", "greylist", "not reached"],
    ]
    text = " ".join(way.inner_text().split())
    assert "554 5.7.1 Service unavailable; client [192.0.2.1] blocked using" in text
    assert "dns: bl.test + dnsbl.test = 2 of 1" in text
    assert "bl.test 127.0.0.2" in text
    assert "With the rules" not in text


def test_an_open_entry_stays_open(visit, hosts):
    """When the page brings itself up to date, what is open, chosen and in focus stays so."""
    searched(visit, ONE, "3 verdicts that match")
    summary = entries(visit).first.locator("summary")
    summary.focus()
    visit.page.keyboard.press("Enter")
    entries(visit).first.locator(".way table").first.wait_for()
    with visit.page.expect_response(lambda one: "/api/latest" in one.url):
        visit.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert entries(visit).first.locator("details").evaluate("one => one.open")
    assert summary.evaluate("one => one === document.activeElement")


def test_what_clients_say_is_text(visit, hosts):
    """Markup and steering characters of a client's are shown, and do nothing."""
    searched(visit, "img onerror", "1 verdict that")
    entry = entries(visit).first
    assert f"{MARKUP}@evil.example" in entry.inner_text()
    assert "first attempt" in entry.inner_text(), "the reason"
    entry.locator("summary").click()
    entry.locator(".way dl").wait_for()
    assert HELO.replace("\u202e", "\\u202e") in entry.inner_text()
    assert visit.page.evaluate("window.hurt") is None
    assert visit.page.locator("main img, main script, main iframe").count() == 0


# -- for everybody


FOCUSED = """
(() => {
  const { ariaLabel, innerText, name, id } = document.activeElement;
  return ariaLabel || innerText || name || id;
})()
"""


def test_keyboard(visit):
    """Everything can be reached and used with keys alone; the chart's cursor tells what is under it."""
    reached = []
    for _ in range(12):
        visit.page.keyboard.press("Tab")
        reached.append(visit.page.evaluate(FOCUSED))
    assert reached[0] == "Skip to the verdicts"
    assert {"span", "Moment in the chart"} <= set(reached)
    chart = visit.page.get_by_role("slider", name="Moment in the chart")
    chart.focus()
    last = chart.get_attribute("aria-valuetext")
    visit.page.keyboard.press("ArrowLeft")
    assert chart.get_attribute("aria-valuenow") == "58"
    assert chart.get_attribute("aria-valuetext") != last
    visit.page.keyboard.press("Home")
    assert re.fullmatch(
        r"\d\d:\d\d: 0 accepted, 0 greylisted, 0 rejected, 0 deferred per (second|minute)",
        chart.get_attribute("aria-valuetext"),
    )
    assert visit.page.locator("#legend .when").count() == 1
    visit.page.get_by_role("radio", name="Hour").focus()
    visit.page.keyboard.press("ArrowRight")
    visit.shown("day ")


VIEWS = [
    ("light", DESKTOP, "day"),
    ("dark", DESKTOP, "week"),
    ("light", PHONE, "hour"),
    ("dark", PHONE, "year"),
]


@pytest.mark.parametrize(("scheme", "size", "span"), VIEWS, ids=lambda value: str(value))
def test_accessible_and_fitting(browser, hosts, scheme, size, span):
    """axe-core finds nothing, with everything opened; nothing is wider than the window. Keeps a picture."""
    with browser.visit(f"{hosts.one.url}/#span={span}", scheme=scheme, size=size) as visit:
        visit.shown(f"{span} ")
        visit.page.get_by_text("The chart as a table").click()
        entries(visit).first.locator("summary").click()
        entries(visit).first.locator(".way table").first.wait_for()
        assert visit.faults() == []
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        visit.page.get_by_text("The chart as a table").click()
        visit.screenshot(f"{'phone' if size == PHONE else 'desktop'}-{scheme}-{span}")


def test_the_colours_follow_the_system(browser, hosts):
    """Switched to dark while it is open, page and chart are drawn anew."""
    with browser.visit(f"{hosts.one.url}/#span=hour") as visit:
        visit.shown("hour ")
        light = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        before = visit.page.evaluate(COLOURS)
        visit.page.emulate_media(color_scheme="dark")
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        after = visit.page.evaluate(COLOURS)
        assert after != before
        drawn = [visit.page.evaluate(COLUMN, [step, 60, after]) for step in range(60)]
        assert any(drawn)


# -- while it is open


def test_it_brings_itself_up_to_date(browser, hosts):
    """Each 15 s while it is seen, not while it is hidden, and at once when it is seen again."""
    with browser.visit("about:blank") as visit:
        visit.origin = hosts.one.url
        visit.strangers.clear()
        visit.page.clock.install()
        visit.page.goto(f"{hosts.one.url}/#span=hour")
        visit.shown()
        asked = visit.strangers

        def rounds():
            return sum("/api/history" in url for url in asked)

        assert rounds() == 1
        with visit.page.expect_response(lambda one: "/api/latest" in one.url):
            visit.page.clock.run_for(16_000)
        assert rounds() == 2
        visit.page.evaluate(
            "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        visit.page.clock.run_for(120_000)
        assert rounds() == 2
        with visit.page.expect_response(lambda one: "/api/latest" in one.url):
            visit.page.evaluate(
                "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))"
            )
        assert rounds() == 3


def test_the_daemon_gone(browser, hosts):
    """With no answer the page says so and keeps what it has."""
    with browser.visit(f"{hosts.one.url}/#span=hour", expected=["Failed to load resource"]) as visit:
        visit.shown("hour ")
        before = tiles(visit)
        visit.page.route("**/api/**", lambda route: route.abort())
        visit.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        visit.page.locator("#troubles .trouble").wait_for()
        assert "No answer about the last hour" in visit.text("#troubles")
        assert "What you see is of" in visit.text("#troubles")
        assert tiles(visit) == before
        visit.page.unroute("**/api/**")
        visit.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        wait_until(lambda: not visit.text("#troubles"), "the trouble is over", 30.0)


def test_without_the_chart_library(browser, hosts):
    """Where it is not installed there is a table instead, and a word about it."""
    with browser.visit("about:blank") as visit:
        visit.origin = hosts.one.url
        visit.strangers.clear()
        nothing = {"body": "", "content_type": "text/javascript"}
        visit.page.route("**/vendor/*.js", lambda route: route.fulfill(**nothing))
        visit.page.goto(f"{hosts.one.url}/#span=hour")
        visit.shown("hour ")
        assert "contrib/setup/page" in visit.text("#troubles")
        assert visit.page.locator("#chart").is_hidden()
        assert len(rows(visit, "#numbers-body")) == 60
        assert visit.faults() == []
