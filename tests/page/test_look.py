"""How the page looks and leads on: labels, units, times, tables, in a real Chromium."""

from __future__ import annotations

import base64
import contextlib
import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from hybridgrey.history import chunks, chunkwriter, writer
from hybridgrey.history.layout import Step
from hybridgrey.history.records import Batch
from hybridgrey.metrics.ring import packed
from hybridgrey.page import spans, verdicts
from hybridgrey.store.connection import Store
from page.test_page import entries, rows, searched
from page.world import BOTH, TRUSTED, host, lists
from parts.base import wait_until
from parts.browser import DESKTOP, PHONE, SCREENSHOTS
from parts.redisserver import Redis


@pytest.fixture
def redis() -> Iterator[Redis]:
    with Redis() as running:
        yield running


@pytest.fixture
def visit(browser, hosts):
    with browser.visit(f"{hosts.one.url}/#span=hour") as opened:
        opened.shown("hour ")
        yield opened


# -- the chart


WRITTEN = """
// Notes every text that is written on a canvas, with its edges and the canvas's, in the canvas's pixels.
(() => {
  const written = (window.written = []);
  const write = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    const width = this.measureText(text).width;
    const before = { center: width / 2, right: width, end: width }[this.textAlign] ?? 0;
    const ends = [x - before, x - before + width];
    const points = ends.map((end) => this.getTransform().transformPoint({ x: end, y }));
    const across = points.map((one) => [one.x, one.y]);
    written.push({ text, across, width: this.canvas.width, height: this.canvas.height });
    return write.apply(this, arguments);
  };
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_label_is_clipped(browser, hosts, scheme, size):
    """Each label of the chart is on its canvas as a whole, and none on another, in every span."""
    with browser.visit("about:blank", scheme=scheme, size=size) as visit:
        visit.origin = hosts.one.url
        visit.strangers.clear()
        visit.page.add_init_script(WRITTEN)
        for span in spans.SPANS:
            visit.page.goto("about:blank")
            visit.page.goto(f"{hosts.one.url}/#span={span}")
            visit.strangers.clear()
            visit.shown(f"{span} ")
            visit.page.evaluate(
                "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
            )
            written = visit.page.evaluate("window.written")
            assert len(written) > 5
            for one in written:
                for x, y in one["across"]:
                    assert 0 <= x <= one["width"], (span, one)
                    assert 0 <= y <= one["height"], (span, one)
            times = [one for one in written if one["across"][0][1] == written[0]["across"][0][1]]
            for left, right in pairwise(sorted(times, key=lambda one: one["across"][0][0])):
                if left["across"] != right["across"]:  # drawn twice
                    assert left["across"][1][0] < right["across"][0][0], (span, left, right)
            visit.page.locator("#figure").screenshot(path=_picture(f"chart-{scheme}-{size[0]}-{span}"))


def _picture(name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS / f"{name}.png"


def record(redis: Redis, name: str, counts: dict[tuple[Step, int], dict[str, int]]) -> None:
    """Write what a host has counted to the store."""
    batch = Batch()
    batch.counts.update(counts)
    store = Store.open(redis.unix_url, 5.0)
    writer.Writer(store, name, f"test {name}").write(1, batch, time.time())
    store.close()


def evenly(each: int, seconds: int) -> dict[tuple[Step, int], dict[str, int]]:
    """`each` recipients all `seconds`: the last day by minute, and thirty days by hour."""
    now = int(time.time())
    hourly = max(seconds, Step.HOUR)
    found = {(Step.MINUTE, at // 60 * 60): each for at in range(now - 86400, now - 600, seconds)}
    hours = range((now - 30 * 86400) // hourly * hourly, now - Step.HOUR, hourly)
    found |= {(Step.HOUR, at): each * hourly // seconds for at in hours}
    return {at: {"outcome:accept:enforced": number} for at, number in found.items()}


SIZES = [
    # what comes, and in how many seconds; the unit in a day and in a month
    ("busy", 300, 60, "second", "second"),
    ("medium", 30, 60, "minute", "minute"),
    ("small", 2, 600, "hour", "hour"),
    ("tiny", 1, 6 * 3600, "hour", "day"),
]


@pytest.mark.parametrize(("name", "each", "seconds", "day", "month"), SIZES, ids=[one[0] for one in SIZES])
def test_the_unit_goes_by_the_rate(browser, redis, name, each, seconds, day, month):
    """Heading, axis, legend, sentence, table and what the cursor says: one unit, and no dust of numbers."""
    record(redis, "mx1.test", evenly(each, seconds))
    with lists() as dns, host(redis, dns, "mx1.test") as one:
        for span, unit in (("day", day), ("month", month)):
            with browser.visit("about:blank") as visit:
                visit.origin = one.url
                visit.strangers.clear()
                visit.page.add_init_script(WRITTEN)
                visit.page.goto(f"{one.url}/#span={span}")
                visit.shown(f"{span} ")
                assert visit.text("#verdicts-title") == f"Verdicts per {unit}"
                most = re.search(r"Most at .*: ([\d.,]+) per (\w+)\.", visit.text("#summary"))
                assert most is not None
                assert float(most[1].replace(",", "")) >= 1
                assert most[2] == unit
                assert f"per {unit}" in [text["text"] for text in visit.page.evaluate("window.written")]
                visit.page.get_by_text("The chart as a table").click()
                visit.page.locator("#numbers-body table").wait_for()
                heads = visit.page.locator("#numbers-body thead th").all_inner_texts()
                assert (heads[0], heads[-1]) == ("From (UTC)", f"per {unit}")
                numbers = [float(row[-1].replace(",", "")) for row in rows(visit, "#numbers-body")]
                assert max(numbers) == float(most[1].replace(",", ""))
                chart = visit.page.get_by_role("slider", name="Moment in the chart")
                chart.focus()
                visit.page.keyboard.press("ArrowLeft")
                assert chart.get_attribute("aria-valuetext").endswith(f" deferred per {unit}")
                assert visit.text("#legend .when").startswith(f"per {unit} at ")
                assert visit.faults() == []
                visit.page.get_by_text("The chart as a table").click()
                visit.screenshot(f"{name}-{span}")


# -- times


def test_times_are_those_of_the_log(visit, hosts):
    """The browser is in Berlin, the page says UTC and means it: verdicts, marks, rows and its own state."""
    assert visit.text(".zone") == "Times are UTC"
    newest = hosts.one.ask("latest")["verdicts"][0]["t"]
    assert entries(visit).first.locator("time").inner_text().endswith(clock(newest, "%H:%M:%S"))
    entries(visit).first.locator("summary").click()
    assert f"{clock(newest, '%H:%M:%S')} UTC" in visit.text("#latest-body li:first-child .record")
    answer = hosts.one.ask("history", span="hour")
    marks = [f"{clock(mark['t'], '%H:%M')} {mark['kind']}" for mark in answer["marks"]]
    shown = visit.text("#marks")
    assert all(mark in shown for mark in marks)
    assert re.search(r"at (\d+ \w+ )?\d\d:\d\d:\d\d UTC", visit.text("#about"))
    visit.page.get_by_text("The chart as a table").click()
    visit.page.locator("#numbers-body table").wait_for()
    times = [row[0] for row in rows(visit, "#numbers-body")]
    assert clock(newest // 60 * 60, "%H:%M") in times


def clock(moment, form):
    return time.strftime(form, time.gmtime(moment))


# -- from tables to verdicts


LINKS = [
    # where; the name; what it looks for, and the number of verdicts
    ("#lists-body", "bl.test", "list:bl.test", 11),
    ("#lists-body", "wl.test", "list:wl.test", 8),
    ("#rules-body", "blocklists", "rule:blocklists", 12),
    ("#rules-body", "allowlists", "rule:allowlists", 8),
    ("#networks-body", "192.0.2.0/24", "client:192.0.2.0/24", 12),
    ("#networks-body", "2001:db8::/64", "client:2001:db8::/64", 2),
    ("#domains-body", "(bounces)", "domain:<>", 1),
    ("#marks", "mx1.test", "host:mx1.test", None),
]


@pytest.mark.parametrize(("where", "name", "words", "number"), LINKS, ids=[one[2] for one in LINKS])
def test_a_name_opens_its_verdicts(browser, visit, hosts, where, name, words, number):
    """With the keyboard: the search is filled, its result in focus, the address has it, and back is back."""
    number = sum(hosts.one.outcomes.values()) if number is None else number
    link = visit.page.locator(where).get_by_role("link", name=name, exact=True).first
    link.focus()
    visit.page.keyboard.press("Enter")
    wait_until(lambda: f"“{words}”" in visit.text("#latest-summary"), f"{words} is looked for", 30.0)
    found = visit.text("#latest-summary")
    assert re.match(rf"(\d+ of )?{number} verdicts? that match", found), found
    assert visit.page.get_by_label("Search").input_value() == words
    wait_until(lambda: visit.page.evaluate("document.activeElement.id") == "latest-summary", "focus", 30.0)
    assert visit.page.evaluate(
        "document.getElementById('latest-summary').getBoundingClientRect().top < innerHeight"
    )
    address = visit.page.url
    with browser.visit(address) as other:
        other.shown("hour ")
        assert other.text("#latest-summary") == found
    visit.page.go_back()
    wait_until(lambda: "that match" not in visit.text("#latest-summary"), "all verdicts are back", 30.0)
    assert visit.page.get_by_label("Search").input_value() == ""


def test_names_that_need_quotes(visit, hosts):
    """A name with blanks is quoted; what the page writes is read as it was meant, whatever is in the name."""
    visit.page.locator("#rules-body").get_by_role("link", name="the rest").click()
    want = sum(one.outcomes["delay"] for one in (hosts.one, hosts.two)) + 1
    wait_until(lambda: 'rule:"the rest"' in visit.text("#latest-summary"), "the rule is looked for", 30.0)
    assert f"{want} verdicts that match" in visit.text("#latest-summary")
    module = visit.page.locator('link[href$="/find.js"]').get_attribute("href")
    names = ['a "b" c', "back\\slash", "plain", '"', "\\", "ü b", "a:b", '\\" x', "x" * 100, "<>", "rule:x y"]
    words = visit.page.evaluate(
        "async ([path, names]) => { const { wordFor } = await import(new URL(path, document.baseURI));"
        "return names.map((name) => wordFor('rule', name)); }",
        [module, names],
    )
    assert [verdicts.words(word) for word in words] == [[("rule", name.lower())] for name in names]


def test_names_in_a_verdict_lead_on(visit):
    """Host, rules and lists of an opened verdict are links, too; an outcome can be asked for."""
    searched(visit, "outcome:rejected host:mx2.test", "3 verdicts that match")
    entries(visit).last.locator("summary").click()
    way = entries(visit).last.locator(".way")
    way.locator("table").first.wait_for()
    names = way.locator("a.find").all_inner_texts()
    assert names[:4] == ["mx2.test", "blocklists", "allowlists", "the rest"]
    assert set(names[4:]) <= {"bl.test", "dnsbl.test"}
    assert names[4:]
    way.get_by_role("link", name=names[4], exact=True).click()
    wait_until(lambda: f"“list:{names[4]}”" in visit.text("#latest-summary"), "the list is looked for", 30.0)
    assert visit.faults() == []


def test_skipping_keeps_what_is_chosen(visit):
    """The link over the head takes the focus along and leaves the address as it is."""
    before = visit.page.url
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("document.activeElement.id") == "main"
    assert visit.page.url == before
    assert visit.page.get_by_role("radio", name="Hour").is_checked()


def test_the_help_of_the_search(visit):
    """Every field that there is stands in it."""
    visit.page.get_by_text("How to search").click()
    said = visit.text("#help")
    assert all(f"{field}:" in said for field in verdicts.FIELDS)


def test_searching_further_back(browser, redis):
    """What is before the latest 2,000 is found on demand, opened, told how far it goes, and kept in sight."""
    now = time.time()
    events = [
        {
            "t": now - 30 * number,
            "client": "192.0.2.1",
            "sender": f"s{number}@example.org",
            "outcome": "rejected",
        }
        for number in range(5000)
    ]
    for number in range(2100, 5000, 100):
        events[number]["sender"] = "joe@example.org"
    record(redis, "mx1.test", evenly(1, 600))
    with contextlib.closing(Store.open(redis.unix_url, 5.0)) as store:
        made = chunks.cut([packed(one | {"mx": "mx1.test", "recipient": "b@example.net"}) for one in events])
        while made:
            made = made[chunkwriter.ChunkWriter(store, "mx1.test", 7 * 86400).write(made, now)[0] :]
    with lists() as dns, host(redis, dns, "mx1.test") as one, browser.visit(f"{one.url}/#span=hour") as visit:
        visit.shown("hour ")
        visit.page.get_by_label("Search").fill("joe@example.org")
        wait_until(
            lambda: "No verdicts that match" in visit.text("#latest-summary"), "none of the latest", 30.0
        )
        assert "Searched back to" in visit.text("#latest-summary")
        button = visit.page.get_by_role("button", name="Search further back")
        button.click()
        wait_until(lambda: "That is all of the 7 days" in visit.text("#latest-summary"), "all", 60.0)
        assert "29 verdicts that match “joe@example.org”" in visit.text("#latest-summary")
        assert entries(visit).count() == 29
        assert button.is_hidden()
        entries(visit).last.locator("summary").click()
        entries(visit).last.locator(".way table").first.wait_for()
        visit.screenshot("further-back")
        visit.page.get_by_label("Search").fill("")
        wait_until(lambda: "20 of 2,000 verdicts" in visit.text("#latest-summary"), "all again", 30.0)
        assert visit.faults() == []


# -- on a phone


SHADES = """
// How far the right edge of a picture of a table differs from its left one, by the middle of all pixels of
// each, so that lines and texts do not count.
async (picture) => {
  const image = new Image();
  image.src = `data:image/png;base64,${picture}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixel = (x, y) => context.getImageData(x, y, 1, 1).data[0];
  const column = (x) => Array.from({ length: image.height }, (_, y) => pixel(x, y));
  const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  const ground = middle(column(0));
  return middle(column(image.width - 2).map((value) => Math.abs(value - ground)));
}
"""
CUT = """
// Tables that are wider than their box, by what they are called; and texts that are cut anywhere else.
() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const larger = (one) => one.scrollWidth > one.clientWidth + 2;
  const apart = ".scroll, #chart, .quiet, .skip, select, input, .bar";
  const cut = all("main *, header *, footer *").filter((one) => {
    if (one.closest(apart) || !one.checkVisibility()) return false;
    const { left, right } = one.getBoundingClientRect();
    const hides = one.clientWidth && getComputedStyle(one).overflowX !== "visible";
    return (larger(one) && hides) || right > innerWidth + 1 || left < -1;
  });
  const boxes = all(".scroll").filter(larger);
  return [boxes.map((one) => one.getAttribute("aria-label")), cut.map((one) => one.outerHTML.slice(0, 100))];
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_goes_on_beside_is_shaded(browser, hosts, scheme):
    """On a phone wide tables have a shade where there is more, none where they end, and keep the names."""
    with browser.visit(f"{hosts.one.url}/#span=hour", scheme=scheme, size=PHONE) as visit:
        visit.shown("hour ")
        wide, cut = visit.page.evaluate(CUT)
        assert cut == []
        assert {"What the lists said", "Recipients by the rule that decided"} <= set(wide)
        for name in wide:
            box = visit.page.get_by_role("group", name=name)
            name_at = box.locator("tbody th").first.bounding_box()["x"]
            assert shade(visit, box) > 20, name
            box.focus()
            for _ in range(30):
                visit.page.keyboard.press("ArrowRight")
            wait_until(
                lambda box=box: box.evaluate(
                    "(one) => one.scrollLeft + one.clientWidth > one.scrollWidth - 2"
                ),
                "its end is reached",
                30.0,
            )
            assert shade(visit, box) < 5, name
            assert box.locator("tbody th").first.bounding_box()["x"] == pytest.approx(name_at, abs=1)


def shade(visit, box):
    return visit.page.evaluate(SHADES, base64.b64encode(box.screenshot()).decode())


# -- a store that is silent


def test_the_first_load_with_a_silent_store(browser, redis):
    """What this host knows is shown, and what it does not know is said to be that, not to be nothing."""
    with lists() as dns, host(redis, dns, "mx1.test") as one:
        one.send(BOTH, "reject", 3)
        one.send(TRUSTED, "accept", 2)
        redis.freeze()
        try:
            wait_until(lambda: not one.well(), "the health knows", 60.0)
            with browser.visit(f"{one.url}/#span=week") as visit:
                visit.shown("week ")
                assert visit.text("#state") == "mx1.test not well"
                assert re.search(r"The store (has not answered yet|does not answer)", visit.text("#troubles"))
                assert "its history cannot be shown" in visit.text("#troubles")
                assert visit.page.locator("#empty").is_hidden()
                assert "0 recipients" not in visit.text("#lists-summary")
                wait_until(lambda: entries(visit).count() == 5, "its own verdicts are shown", 60.0)
                assert {row[0] for row in rows(visit, "#lists-body")} == {"bl.test", "dnsbl.test", "wl.test"}
                assert visit.faults() == []
                visit.screenshot("store-silent")
        finally:
            redis.thaw()


def test_no_answer_at_all(browser, hosts):
    """Where nothing comes back to the first question, the page says so at once and goes on asking."""
    with browser.visit("about:blank", expected=["Failed to load resource"]) as visit:
        visit.origin = hosts.one.url
        visit.strangers.clear()
        visit.page.route("**/api/**", lambda route: route.abort())
        visit.page.goto(f"{hosts.one.url}/#span=hour")
        visit.page.locator("#troubles .trouble").wait_for()
        assert visit.text("#state") == "no answer yet"
        visit.page.unroute("**/api/**")
        visit.shown("hour ")
        assert visit.text("#state") == "mx1.test well"
        assert visit.text("#troubles") == ""
