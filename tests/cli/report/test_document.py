"""The report as a page of its own."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime

from hybridgrey.history.layout import key
from hybridgrey.report import graphs
from hybridgrey.report.bins import HOUR
from parts.browser import PHONE


def page_of(world, *words):
    world.document(*words, name="report.html")
    return (world.folder / "report.html").read_text()


def test_html_is_self_contained(world, logs):
    """The page's policy allows its own style sheet and nothing else, and the page needs no more."""
    text = page_of(world, *logs)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"<script|<link|<img|<iframe|\son\w+=|\sstyle=|src=|url\((?!#)", text)
    assert set(re.findall(r'https?://[^"\s<]*', text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_html_has_the_numbers(world):
    """All that is drawn stands in tables too."""
    world.write(world.switched())
    text = page_of(world)
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", text)]
    assert ["zen.spamhaus.org", f"{1700 * 240:,}", f"{1200 * 240:,}", "71%"] in rows
    summary = next(row for row in rows if row[:1] == ["Rejected"])
    assert summary[1:3] == [f"{1800 * 240:,}", "0"]
    whole = [row for row in rows if row and re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", row[0])]
    assert len(whole) in (160, 161)
    assert sum(int(row[2].replace(",", "")) for row in whole if row[2] != graphs.UNKNOWN) == 1800 * 240


def test_html_in_a_browser(world, logs, browser):
    """A real browser shows it light, dark and on a phone without a complaint, and axe-core finds no fault."""
    world.write(world.switched())
    page_of(world, *logs)
    url = (world.folder / "report.html").as_uri()
    for name, options in (("light", {}), ("dark", {"scheme": "dark"}), ("phone", {"size": PHONE})):
        with browser.visit(url, **options) as visit:
            visit.page.locator("summary").click()
            assert visit.page.locator("svg[role=img]").is_visible()
            assert visit.page.get_by_role("img", name="before and after").count() == 1
            assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert visit.faults() == []
            visit.page.locator("summary").click()
            visit.screenshot(f"report-{name}")
            assert visit.strangers in ([], [url])


def test_hostile_history(world):
    """Names that are markup or a formula, absurd counts and damage are shown as text or passed over."""
    hour = world.now - 2 * HOUR
    labels = [
        "<script>alert(1)</script>",
        "$x^2$ \\frac",
        "a" * 300,
        "\x1b[31m",
        '"onload=x',
        "\N{RIGHT-TO-LEFT OVERRIDE}x",
    ]
    names = [label.replace(":", "%3A").replace("\x1b", "%1B") for label in labels]
    world.write((hour, f"list_reject:{name}:sole", number + 5) for number, name in enumerate(names))
    world.write([(hour, "outcome:accept:enforced", 2**52), (hour, "outcome:reject:enforced", 3)])
    with world.redis.client() as client:
        for one in client.scan_iter("*:hour:*"):
            client.hset(one, "99 outcome:accept:enforced", "nan")
            client.hset(one, b"\xff\xff", b"\xff")
        moment = datetime.fromtimestamp(world.now, UTC)
        client.set(key("minute", "mx1.example.org", f"{moment:%Y-%m-%dT%H}"), "x")
        client.zadd(key("marks"), {b"{": hour, b"[1]": hour})
    text = page_of(world)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    for name in ("report.svg", "report.png"):
        assert world.document(name=name)["per_second"]["rejected"]["total"] == 3
