"""What is known of each list: labels, quirks, error codes, test points."""

from __future__ import annotations

import pytest

from hybridgrey.config.settings import Zone as Settings
from hybridgrey.lists import zones
from hybridgrey.policy.judge import NOT_LISTED, Action, Rule
from hybridgrey.policy.pattern import ListEntry


def build(*entries: str, action: Action = Action.REJECT, **settings: Settings) -> tuple[zones.Zone, ...]:
    rule = Rule(name="lists", action=action, lists=tuple(map(ListEntry.parse, entries)))
    return zones.build([rule], {name.replace("_", "."): value for name, value in settings.items()})


def code(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def test_each_zone_once_in_order():
    """A zone of several entries and rules is asked once, at the place of its first mention."""
    rules = [
        Rule(
            name="a",
            action=Action.ACCEPT,
            lists=tuple(map(ListEntry.parse, ["wl.test", "both.test=127.0.0.1"])),
        ),
        Rule(name="b", action=Action.REJECT, lists=tuple(map(ListEntry.parse, ["bl.test", "both.test*2"]))),
    ]
    built = zones.build(rules, {})
    assert [(z.index, z.name) for z in built] == [(0, "wl.test"), (1, "both.test"), (2, "bl.test")]
    assert [z.wants_text for z in built] == [False, True, True]


ANSWERS = [
    # zone, codes, part of the error
    ("bl.test", ["127.0.0.2"], ""),
    ("bl.test", ["127.0.0.1"], ""),
    ("bl.test", ["127.255.254.255"], ""),
    ("bl.test", ["127.255.255.254"], "query refused"),
    ("bl.test", ["127.255.255.0"], "query refused"),
    ("bl.test", ["91.195.240.117"], "outside 127.0.0.0/8"),
    ("bl.test", ["128.0.0.2"], "outside"),
    ("bl.test", ["127.0.0.2", "91.195.240.117"], "outside"),
    ("bl.test", ["127.0.0.255"], ""),
    ("list.dnswl.org", ["127.0.5.2"], ""),
    ("list.dnswl.org", ["127.0.0.255"], "error code"),
    ("list.dnswl.org", ["127.0.10.0"], "error code"),
    ("list.dnswl.org", ["127.0.10.3"], "error code"),
    ("abcdef.list.dnswl.org", ["127.0.10.3"], "error code"),
    ("notdnswl.org", ["127.0.10.3"], ""),
]


@pytest.mark.parametrize(("zone", "codes", "error"), ANSWERS)
def test_codes_that_are_no_vote(zone, codes, error):
    """Refusals, quota answers and parking pages are errors; listings are not."""
    answer = build(zone)[0].answer(tuple(map(code, codes)))
    assert answer.codes
    assert error in answer.error
    assert bool(answer.error) is bool(error)


def test_no_codes_is_not_listed():
    """An answer without records is a denial, no error."""
    assert build("bl.test")[0].answer(()) == NOT_LISTED


def test_error_codes_of_the_operator():
    """`error_codes` add to what is built in."""
    (zone,) = build("list.dnswl.org", list_dnswl_org=Settings(error_codes=("127.0.9.[1..3]",)))
    assert zone.answer((code("127.0.9.2"),)).error
    assert zone.answer((code("127.0.0.255"),)).error
    assert not zone.answer((code("127.0.8.2"),)).error


LABELS = [
    ("zen.spamhaus.org", "zen.spamhaus.org"),
    ("0123456789abcdef.zen.dq.spamhaus.net", "zen.spamhaus.org"),
    ("0123456789abcdef.authbl.dq.spamhaus.net", "authbl.spamhaus.org"),
    ("bl.test", "bl.test"),
]


@pytest.mark.parametrize(("name", "label"), LABELS)
def test_label_hides_the_key(name, label):
    """What is shown of a zone has no customer's key in it."""
    assert build(name)[0].label == label


def test_label_of_the_operator():
    """A label in the configuration is shown instead of the name."""
    assert build("k3y.bl.test", k3y_bl_test=Settings(label="bl.test"))[0].label == "bl.test"


KEY = "0123456789abcdef"
TEXTS = [
    # zone, label, a text of the list's, what may be shown of it
    (
        f"{KEY}.zen.dq.spamhaus.net",
        "",
        f"see http://x/{KEY}.ZEN.dq.spamhaus.net?q=1",
        "see http://x/zen.spamhaus.org?q=1",
    ),
    (f"{KEY}.zen.dq.spamhaus.net", "", f"key={KEY.upper()}", "key=zen.spamhaus.org"),
    ("bl.k3y.example", r"b\1", "blocked by bl.k3y.example", r"blocked by b\1"),
    ("bl.example", "bl.example", "blocked by bl.example", "blocked by bl.example"),
    ("bl.junkemailfilter.com", "bl", "http://junkemailfilter.com", "http://junkemailfilter.com"),
    ("blocklist.example.org", "blocklist", "a blocklist of example.org", "a blocklist of example.org"),
]


@pytest.mark.parametrize(("name", "label", "text", "shown"), TEXTS)
def test_the_lists_own_words_are_without_the_key(name, label, text, shown):
    """A list may name the zone that was asked: what the label hides is hidden there too."""
    (zone,) = build(name, **({name: Settings(label=label)} if label else {}))
    assert zone.without_key(text) == shown


POINTS = [
    # zone, settings, listed, unlisted
    ("bl.test", None, "127.0.0.2", "127.0.0.1"),
    ("hostkarma.junkemailfilter.com", None, "127.0.0.2", None),
    ("bl.test", Settings(health="off"), None, None),
    ("bl.test", Settings(listed="192.0.2.1"), "192.0.2.1", "127.0.0.1"),
    ("hostkarma.junkemailfilter.com", Settings(unlisted="192.0.2.9"), "127.0.0.2", "192.0.2.9"),
]


@pytest.mark.parametrize(("name", "settings", "listed", "unlisted"), POINTS)
def test_points_of_a_zone(name, settings, listed, unlisted):
    """Test points are RFC 5782's, the built-in ones or the operator's; health = "off" has none."""
    given = {name.replace(".", "_"): settings} if settings else {}
    (zone,) = build(name, **given)
    assert (zone.listed, zone.unlisted) == (listed, unlisted)


def test_a_test_point_keeps_its_family():
    """An IPv4-mapped test point is asked in its IPv6 form (RFC 5782 section 5)."""
    assert zones.test_point("127.0.0.2") == code("127.0.0.2")
    assert zones.test_point("::ffff:127.0.0.2") == bytes(10) + b"\xff\xff" + code("127.0.0.2")
    assert zones.code_text(code("127.0.0.2")) == "127.0.0.2"
