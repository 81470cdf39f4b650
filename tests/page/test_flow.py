"""What became of the mail, as one picture: each mail once, by the rules in their order, to scale."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.history.layout import Step
from hybridgrey.outcome import Reason
from hybridgrey.page import flow
from hybridgrey.page.flow import Bucket
from page.test_look import CUT, record
from page.test_page import rows
from page.world import host, lists
from parts.base import wait_until
from parts.browser import DESKTOP, PHONE
from parts.redisserver import Redis

ORDER = [("local", "accept"), ("blocklists", "reject"), ("allowlists", "accept"), ("the rest", "greylist")]
MONTH = {
    "rule:local:accept": 900,
    "rule:blocklists:reject": 7200,
    "rule:allowlists:accept": 1400,
    "rule:the rest:accept": 1190,
    "rule:the rest:delay": 1530,
    "greylist:known": 700,
    "greylist:network": 280,
    "greylist:passed": 200,
    "greylist:new": 1380,
    "greylist:early": 150,
    "reason:authenticated:accept": 900,
    "reason:list:accept": 1400,
    "reason:known:accept": 700,
    "reason:network:accept": 200,
    "reason:domain:accept": 80,
    "reason:store down:accept": 10,
    "reason:passed:accept": 200,
    "reason:list:reject": 7200,
    "reason:new:delay": 1380,
    "reason:early:delay": 150,
    "delay_le:300": 10,
    "delay_within:300": 10,
    "delay_le:420": 90,
    "delay_le:900": 60,
    "delay_le:3600": 40,
    "delay_sum": 120_000,
    "outcome:accept:enforced": 3490,
    "outcome:reject:enforced": 7200,
    "outcome:delay:enforced": 1530,
}
KINDS = [
    ("local", "accept", 900),
    ("blocklists", "reject", 7200),
    ("allowlists", "accept", 1400),
    ("known", "accept", 700),
    ("network", "accept", 200),
    ("domain", "accept", 80),
    ("other", "accept", 10),
]


def found(made):
    return [(row["rule"] or row["kind"], row["outcome"], row["count"]) for row in made["rows"]]


def test_each_mail_once_in_order():
    """What came back is not counted twice; what greylisting let in is told apart by why."""
    made = flow.flow(MONTH, ORDER)
    assert found(made) == KINDS
    assert (made["put_off"], made["back"], made["never"], made["early"]) == (1380, 200, 1180, 150)
    assert made["mails"] == 900 + 7200 + 1400 + 990 + 1380


CASES = [
    # totals; rows, put off, back, never
    ({}, [], 0, 0, 0),
    ({"rule:x:accept": 3, "rule:(none):accept": 2}, [("x", "accept", 3), ("(none)", "accept", 2)], 0, 0, 0),
    # A rule of then stands after those of now, one that greylisted after all that did not.
    (
        {"rule:old:delay": 5, "rule:old:tempfail": 1, "rule:gone:reject": 2, "rule:local:accept": 1},
        [("local", "accept", 1), ("gone", "reject", 2), ("old", "tempfail", 1)],
        5,
        0,
        5,
    ),
    # A history of version 0.1 has no reasons.
    (
        {"rule:the rest:accept": 9, "rule:the rest:delay": 4, "greylist:known": 5, "greylist:passed": 3},
        [("known", "accept", 5), ("other", "accept", 1)],
        4,
        3,
        1,
    ),
    # Put off before the time that is shown.
    ({"rule:the rest:accept": 7, "greylist:passed": 7}, [], 7, 7, 0),
    # Expected mail was first attempts, too.
    (
        {
            "rule:the rest:accept": 2,
            "rule:the rest:delay": 3,
            "greylist:new": 4,
            "greylist:early": 1,
            "reason:expected:accept": 2,
            "reason:new:delay": 3,
        },
        [("expected", "accept", 2)],
        3,
        0,
        3,
    ),
    # More in the states than the rules have: damage, or other hosts' rules.
    (
        {"rule:the rest:accept": 1, "greylist:known": 50, "greylist:early": 9},
        [("known", "accept", 1)],
        0,
        0,
        0,
    ),
]


@pytest.mark.parametrize(("totals", "wanted", "put_off", "back", "never"), CASES)
def test_flows(totals, wanted, put_off, back, never):
    """Whatever the history has, it is a flow."""
    made = flow.flow(totals, ORDER)
    assert (found(made), made["put_off"], made["back"], made["never"]) == (wanted, put_off, back, never)


NAMES = [
    f"rule:{rule}:{outcome}"
    for rule in ("local", "the rest", "x")
    for outcome in ("accept", "delay", "reject")
]
NAMES += [f"greylist:{state}" for state in ("new", "early", "passed", "known", "network", "full")]
NAMES += [f"reason:{reason}:{outcome}" for reason in Reason for outcome in ("accept", "delay")]


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 1000)))
def test_nothing_comes_or_goes(totals):
    """All parts are counts, and together what came; what rules took for good is all there."""
    made = flow.flow(totals, ORDER)
    parts = [row["count"] for row in made["rows"]]
    assert all(part > 0 for part in parts)
    assert min(made["put_off"], made["back"], made["never"], made["early"]) >= 0
    assert made["back"] + made["never"] == made["put_off"]
    assert sum(parts) + made["put_off"] == made["mails"]
    judged = sum(count for name, count in totals.items() if name.startswith("rule:"))
    assert made["mails"] <= judged


def test_many_rules_are_one_row():
    """However many rules there were, the picture has an end."""
    made = flow.flow({f"rule:r{number}:reject": 1 for number in range(100)}, ())
    assert len(made["rows"]) == flow.MOST_ROWS + 1
    assert found(made)[-1] == (flow.OTHERS, "reject", 60)


WAITS = [
    # accepted, buckets; median, 95 of 100, over ten minutes
    (0, [], None, None, 0),
    (100, [], 0.0, 0.0, 0),
    (100, [(300, 420, 4)], 0.0, 0.0, 0),
    (100, [(300, 420, 10)], 0.0, 360.0, 0),
    (10, [(300, 600, 10)], 450.0, 600.0, 0),
    (10, [(0, 60, 5), (600, 900, 5)], 60.0, 900.0, 5),
    (2, [(86400, float("inf"), 2)], None, None, 2),
    (1, [(0, 60, 4)], 30.0, 60.0, 0),
]


@pytest.mark.parametrize(("accepted", "buckets", "median", "p95", "over"), WAITS)
def test_what_accepted_mail_waited(accepted, buckets, median, p95, over):
    """By nearest rank, what was not delayed as no wait."""
    made = flow.waits(accepted, [Bucket(*one) for one in buckets])
    assert (made["median"], made["p95"], made["over"]) == (median, p95, over)


def test_thanks():
    """What let mail in at once, the most frequent first."""
    assert [(one["reason"], one["count"]) for one in flow.thanks(MONTH)][:3] == [
        ("list", 1400),
        ("authenticated", 900),
        ("known", 700),
    ]
    assert "passed" not in [one["reason"] for one in flow.thanks(MONTH)]


# -- in a browser


@pytest.fixture(scope="module")
def shown() -> Iterator[str]:
    """A host's page, with a month behind it."""
    now = int(time.time())
    with Redis() as redis:
        record(redis, "mx1.test", {(Step.HOUR, (now - 7200) // 3600 * 3600): MONTH})
        with lists() as dns, host(redis, dns, "mx1.test") as one:
            yield one.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_picture(browser, shown, scheme, size):
    """Strips as wide as their counts, which end where their words stand; nothing cut, no fault."""
    with browser.visit(f"{shown}/#span=week", scheme=scheme, size=size) as visit:
        visit.shown("week ")
        visit.screenshot(f"flow-{scheme}-{size[0]}")
        words = [" ".join(one.split()) for one in visit.page.locator("#flow-rows > li").all_inner_texts()]
        assert words[0] == "11,870 mails came"
        assert words[1] == "1,400 13 % let in by allowlists" or "7,200" in words[1]
        assert any(one.startswith("1,380 12 % put off by greylisting") for one in words)
        assert words[-2].startswith("200 1.7 % came back and was let in, half of it within")
        assert words[-1] == "1,180 9.9 % has not come back so far"
        areas = visit.page.evaluate(STRIPS)
        assert len(areas) == len(words) - 2
        counts = [int(one.split()[0].replace(",", "")) for one in words[1:] if "put off by grey" not in one]
        for (wide, at, row), number in zip(areas, counts, strict=True):
            assert wide == pytest.approx(
                max(2, number / 11870 * sum(one[0] for one in areas)), rel=0.06, abs=0.6
            )
            assert at == pytest.approx(row, abs=2)
        wide, cut = visit.page.evaluate(CUT)
        assert cut == []
        assert visit.faults() == []
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


STRIPS = """
// Of each strip: how wide it ends, the height at which it does, and that of its words.
() => {
  const picture = document.getElementById("flow-picture");
  const rows = [...document.querySelectorAll("#flow-rows > li:not(.all, .put-off)")];
  return [...picture.querySelectorAll("a path")].map((path, at) => {
    const box = rows[at].getBoundingClientRect();
    const drawn = path.getAttribute("d");
    const [left, right] = drawn.match(/^M([\\d.]+) [\\d.]+H([\\d.]+)/).slice(1).map(Number);
    const below = Number(drawn.match(/V([\\d.]+)H[\\d.]+Q/)[1]);
    const wide = right - left;
    return [wide, below - wide / 2 + picture.getBoundingClientRect().top, box.top + box.height / 2];
  });
}
"""


def test_in_words_and_as_a_table(browser, shown):
    """Who does not see the picture has all of it; and what waiting there was."""
    with browser.visit(f"{shown}/#span=week") as visit:
        visit.shown("week ")
        said = visit.text("#flow-summary")
        assert "11,870 mails came, each counted once for each of its recipients" in said
        assert (
            "7,200 (61 %) were rejected, 3,290 (28 %) were let in at once and 1,380 (12 %) were put off"
            in said
        )
        assert "200 of those put off came back and were let in, half of them within" in said
        assert "1,180 have not come back so far" in said
        visit.page.locator("#flow").get_by_text("The picture as a table").click()
        table = rows(visit, "#flow-numbers")
        assert table[0] == ["came in all", "11,870", "100 %"]
        assert table[-1][0] == "tries that came too early, not counted again"
        assert visit.text("#kindness-summary").startswith(
            "Of 3,490 accepted mails in the last 7 days, 200 were"
        )
        assert [
            " ".join(one.split()) for one in visit.page.locator("#kindness-tiles .tile").all_inner_texts()
        ][:2] == ["half of it waited 0 s at most", "95 of 100 waited 5 min 21 s at most"]
        assert rows(visit, "#kindness-body")[0][0] == "on a list"


def test_a_band_opens_its_verdicts(browser, shown):
    """The strip and its words lead to the search that finds them."""
    with browser.visit(f"{shown}/#span=week") as visit:
        visit.shown("week ")
        visit.page.locator("#flow-picture a path.reject").click(position={"x": 5, "y": 10})
        wait_until(
            lambda: "rule:blocklists outcome:rejected" in visit.text("#latest-summary"), "the search", 30.0
        )
        visit.page.locator("#flow-rows").get_by_role("link", name="has not come back").click()
        wait_until(lambda: "reason:new" in visit.text("#latest-summary"), "the search", 30.0)


def test_no_mail_no_picture(browser):
    """Where nothing was judged there is nothing to draw."""
    with (
        Redis() as redis,
        lists() as dns,
        host(redis, dns, "mx1.test") as one,
        browser.visit(f"{one.url}/#span=hour") as visit,
    ):
        visit.shown("hour ")
        assert visit.page.locator("#flow").is_hidden()
