"""The page without a browser: who is let in, what is sent, and what its data are made of."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from hybridgrey.clientaddress import ClientReader
from hybridgrey.config import load
from hybridgrey.hand.entries import parse
from hybridgrey.history import layout
from hybridgrey.history.chunks import Needles
from hybridgrey.history.layout import Step
from hybridgrey.history.records import Mark
from hybridgrey.history.view import Terms
from hybridgrey.lists import zones
from hybridgrey.metrics import series
from hybridgrey.metrics.series import DELAY_BUCKETS
from hybridgrey.metrics.shared import Shared
from hybridgrey.page import data as page_data
from hybridgrey.page import files, hand, spans, verdicts
from hybridgrey.page import past as page_past
from hybridgrey.page import site as page_site
from hybridgrey.policy.judge import Policy
from hybridgrey.store.connection import StoreError
from parts.base import wait_until

NOW = 1_800_000_030.0


class Echo:
    """Data that say what they were asked."""

    def answer(self, name: str, parameters: Mapping[str, str]) -> object:
        match name:
            case "bad":
                raise page_site.BadQuestionError("no such span")
            case "gone":
                raise page_site.GoneError("no longer kept")
            case "bug":
                raise ZeroDivisionError("of a secret")
        return {"name": name, **parameters, "long": "x" * 3000}


def site(password: str = "", data: page_site.Data | None = None, **door: Any) -> page_site.Site:
    return page_site.Site(
        Shared.create([], []), list, door=page_site.Door(password, **door), data=data or Echo()
    )


def get(served: page_site.Site, target: str, *, loopback: bool = True, **headers: str) -> page_site.Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.answer(target, named, loopback=loopback)


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


# -- who is let in

PAGES = ["/", "/api/lists", "/page/x/app.js"]
DOORS = [
    # password, loopback, Host, Authorization; then the status of /healthz, /metrics and the page
    ("", True, "127.0.0.1:9893", "", 200, 200, 200),
    ("", True, "", "", 200, 200, 200),
    ("", True, "localhost:7000", "", 200, 200, 200),
    ("", True, "page.localhost", "", 200, 200, 200),
    ("", True, "[::1]:9893", "", 200, 200, 200),
    ("", True, "192.0.2.7", "", 200, 200, 200),
    ("", True, "MX1.example.org.:9893", "", 200, 200, 200),
    ("", True, "evil.example", "", 200, 200, 403),
    ("", True, "127.0.0.1.evil.example:9893", "", 200, 200, 403),
    ("", True, "localhost.evil.example", "", 200, 200, 403),
    ("", True, "[::1].evil.example", "", 200, 200, 403),
    ("", False, "192.0.2.1:9893", "", 200, 200, 403),
    ("", False, "mx1.example.org:9893", "", 200, 200, 403),
    ("geheim", True, "127.0.0.1", "", 200, 401, 401),
    ("geheim", False, "evil.example", "", 200, 401, 401),
    ("geheim", False, "evil.example", basic("admin:geheim"), 200, 200, 200),
    ("geheim", True, "", basic(":geheim"), 200, 200, 200),
    ("ge:heim€", True, "", basic("x:ge:heim€"), 200, 200, 200),
    ("geheim", True, "", basic("x:Geheim"), 200, 401, 401),
    ("geheim", True, "", basic("geheim"), 200, 401, 401),
    ("geheim", True, "", basic("x:geheim "), 200, 401, 401),
    ("geheim", True, "", "Basic %%%", 200, 401, 401),
    ("geheim", True, "", "Bearer geheim", 200, 401, 401),
    ("geheim", True, "", "Basic \xff\xfe", 200, 401, 401),
]


@pytest.mark.parametrize(("password", "loopback", "host", "said", "healthz", "metrics", "page"), DOORS)
def test_door(
    password: str, loopback: bool, host: str, said: str, healthz: int, metrics: int, page: int
) -> None:
    """Health is for all; the page for who knows the password, or else for this host under its own names."""
    served = site(password, names=frozenset({"mx1.example.org"}))
    headers = {name: value for name, value in (("host", host), ("authorization", said)) if value}
    statuses = {
        one: get(served, one, loopback=loopback, **headers).status for one in ("/healthz", "/metrics")
    }
    assert statuses == {"/healthz": healthz, "/metrics": metrics}
    for one in PAGES[:2]:
        answer = get(served, one, loopback=loopback, **headers)
        assert answer.status == page
        assert b"geheim" not in answer.body
    if page == HTTPStatus.UNAUTHORIZED:
        assert get(served, "/").headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("name", ["x_forwarded_for", "x_real_ip", "forwarded", "via", "x_forwarded_host"])
def test_a_proxy_on_this_host_is_not_this_host(name: str) -> None:
    """What a proxy passes on, as it says itself, is not for this host only: it takes the password."""
    assert get(site(), "/", host="127.0.0.1", **{name: "192.0.2.1"}).status == HTTPStatus.FORBIDDEN
    assert get(site(), "/metrics", host="127.0.0.1", **{name: "192.0.2.1"}).status == HTTPStatus.OK
    said = {name: "192.0.2.1", "authorization": basic("x:geheim")}
    assert get(site("geheim"), "/", **said).status == HTTPStatus.OK


def test_without_data_there_is_no_page() -> None:
    """A keeper that is given no page serves metrics and health only."""
    served = page_site.Site(Shared.create([], []), lambda: ["store: down"])
    assert get(served, "/").status == HTTPStatus.NOT_FOUND
    assert get(served, "/healthz").status == HTTPStatus.SERVICE_UNAVAILABLE
    assert get(served, "/metrics").status == HTTPStatus.OK


def test_the_policy_of_the_page() -> None:
    """No script, style or connection but the page's own, nothing inline, no frame around it."""
    rules = dict(rule.split(" ", 1) for rule in page_site.HEADERS["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in page_site.HEADERS["Content-Security-Policy"]


# -- the files

ROOT = Path(page_site.__file__).parent / "static"


def test_files_are_kept_for_ever_under_their_version() -> None:
    """Each file the page names is there, never to be asked for again; another version's is not."""
    served = site()
    index = get(served, "/")
    assert index.headers["Cache-Control"] == "no-cache"
    names = re.findall(rb'(?:href|src)="(page/[^"]+)"', index.body)
    assert len(names) > 8
    for name in names:
        answer = get(served, f"/{name.decode()}")
        assert answer.status == HTTPStatus.OK
        assert "immutable" in answer.headers["Cache-Control"]
    stale = re.sub(rb"page/[0-9a-f]+/", b"page/0123456789abcdef/", names[0]).decode()
    assert get(served, f"/{stale}").status == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    "path", ["../settings.py", "..%2fsettings.py", "/etc/passwd", "", "vendor/.installed", "index", "\0"]
)
def test_only_the_pages_files(path: str) -> None:
    """No path leads out of the folder."""
    version = files.Files().version
    assert get(site(), f"/page/{version}/{path}").status == HTTPStatus.NOT_FOUND


def test_every_module_is_preloaded() -> None:
    """What app.js imports, the page announces: it comes at once, not one after the other."""
    index = (ROOT / "index.html").read_text()
    modules = {path.name for path in ROOT.glob("*.js")}
    assert modules == set(re.findall(r"VERSION/(\w+\.js)", index))


def test_nothing_in_the_page_parses_markup() -> None:
    """Text from outside can only become text: no module uses what would make markup, code or styles of it."""
    parsing = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser"
    )
    for path in ROOT.glob("*.js"):
        assert not parsing.search(path.read_text()), path.name
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", (ROOT / "index.html").read_text())


def test_without_the_chart_library(tmp_path: Path) -> None:
    """Where it was not fetched, the page does not ask for it; the version differs from one with it."""
    for path in ROOT.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    without = files.Files(tmp_path)
    assert b"vendor" not in without.index.plain
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "uPlot.iife.min.js").write_text("// here")
    complete = files.Files(tmp_path)
    assert b"vendor/uPlot" in complete.index.plain
    assert complete.version != without.version
    assert complete.find(f"{complete.version}/vendor/uPlot.iife.min.js") is not None


def test_compressed_on_request() -> None:
    """Files and data are compressed for who takes that, and are the same."""
    served = site()
    for target in ("/", "/api/x"):
        plain, packed = get(served, target), get(served, target, accept_encoding="gzip, br")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert len(packed.body) < len(plain.body) / 2
        assert gzip.decompress(packed.body) == plain.body


# -- questions

QUESTIONS = [
    ("/api/x?a=1&b=%C3%A4", 200, {"name": "x", "a": "1", "b": "ä"}),
    ("/api/x?a=%ff%00", 200, {"a": "\ufffd\0"}),
    ("/api/x?" + "&".join(f"a{n}=" for n in range(20)), 400, {"error": "the question has too many parts"}),
    ("/api/x?q=" + "x" * 2000, 400, {"error": "the question is too long"}),
    ("/api/bad", 400, {"error": "no such span"}),
    ("/api/gone", 404, {"error": "no longer kept"}),
    ("/api/bug", 500, {"error": "an error of the daemon's own; its log has more"}),
]


@pytest.mark.parametrize(("target", "status", "want"), QUESTIONS)
def test_questions(target: str, status: int, want: Mapping[str, str]) -> None:
    """A question that cannot be answered is told why, as JSON."""
    answer = get(site(), target)
    assert (answer.status, answer.content_type) == (status, "application/json")
    assert want.items() <= json.loads(answer.body).items()


# -- spans of time


def test_rows_and_totals() -> None:
    """Counts fall into the steps of the span, both modes together; the rest is added up by name."""
    start = spans.SPANS["day"].start(NOW)
    counts = {
        "outcome:accept:enforced": {start: 3, start + 60: 4, start + 600: 5},
        "outcome:accept:observed": {start + 120: 1},
        "outcome:reject:enforced": {start - 60: 100, start + 143 * 600: 2, start + 144 * 600: 100},
        "outcome:unheard-of:enforced": {start: 9},
        "outcome:tempfail:enforced": {start: 10**15, start + 60: -3},
        "rule:a%3Ab:reject": {start: 2},
        "rule:try:noted": {start: 5},
        "list:bl.test:listed": {start: 7, start + 600: 1},
        "list_reject:bl.test:sole": {start: 3},
        "greylist:passed": {start: 4},
        "claimed_by_both": {start: 6},
        "rule:a": {start: 1},
        "nonsense": {start: 1},
    }
    found: Any = spans.shown("day", NOW, counts)
    assert found["outcomes"]["accept"][:3] == [8, 5, 0]
    assert [len(row) for row in found["outcomes"].values()] == [144] * 4
    assert sum(found["outcomes"]["reject"]) == found["outcomes"]["reject"][-1] == 2
    assert found["observed"] == 1
    assert found["elapsed"] == NOW - (start + 143 * 600)
    assert found["rules"] == [{"rule": "a:b", "reject": 2}, {"rule": "try", "noted": 5}]
    (one,) = found["lists"]
    assert (one["list"], one["listed"], one["sole"], one["shared"]) == ("bl.test", 8, 3, 0)
    assert (found["greylist"]["passed"], found["both"], found["delays"]["median"]) == (4, 6, None)


@pytest.mark.parametrize("name", spans.SPANS)
def test_spans_end_now(name: str) -> None:
    """The last step of each span has the present in it, and its steps are whole ones of the history."""
    span = spans.SPANS[name]
    start = span.start(NOW)
    assert start % span.width == 0
    assert span.width % span.unit == 0
    assert start + (span.number - 1) * span.width <= NOW < start + span.number * span.width


MEDIANS = [
    ("nothing", [0, 0, 0], (None, False)),
    ("in the middle of a bucket", [0, 4, 0], (450.0, True)),
    ("a quarter into it", [2, 4, 2], (450.0, True)),
    ("all at once", [5, 0, 0], (300.0, False)),
    ("above all bounds", [1, 0, 5], (600.0, False)),
    ("between two", [2, 2, 0], (300.0, False)),
]


@pytest.mark.parametrize(("row", "want"), [one[1:] for one in MEDIANS], ids=[one[0] for one in MEDIANS])
def test_median(row: Sequence[int], want: tuple[float | None, bool]) -> None:
    """The median of a histogram lies in its bucket; at the ends only a bound is known."""
    assert spans.middle(row, (300.0, 600.0)) == want


DELAYS = [
    # counts; the buckets that have some, with what is known of the median
    ({}, [], (None, False)),
    ({"le:300": 4, "within:1": 1, "within:5": 3}, [(0, 1, 1), (1, 5, 3)], (1 + 4 / 3, True)),
    ({"le:300": 2, "within:300": 2, "le:420": 1}, [(60, 300, 2), (300, 420, 1)], (240.0, True)),
    ({"le:300": 5, "within:60": 2}, [(0, 300, 3), (15, 60, 2)], (300.0, False)),
    ({"le:300": 1, "le:600": 5}, [(0, 300, 1), (420, 600, 5)], (492.0, True)),
    ({"within:60": 2}, [(15, 60, 2)], (37.5, True)),
    ({"le:inf": 2}, [(86400, None, 2)], (86400.0, False)),
]


@pytest.mark.parametrize(("counts", "buckets", "median"), DELAYS)
def test_delays_of_both_versions(
    counts: Mapping[str, int],
    buckets: list[tuple[float, float | None, int]],
    median: tuple[float | None, bool],
) -> None:
    """Delays that an older host wrote as up to five minutes are shown as that, and are in no finer bucket."""
    start = spans.SPANS["day"].start(NOW)
    found: Any = spans.shown("day", NOW, {f"delay_{name}": {start: count} for name, count in counts.items()})
    delays = found["delays"]
    shown = [(one["from"], one["le"], one["count"]) for one in delays["buckets"] if one["count"]]
    assert shown == buckets
    assert (delays["median"], delays["median_exact"]) == median
    assert delays["coarse"] == sum(count for low, high, count in buckets if (low, high) == (0, 300))


def test_delays_are_written_for_both_versions() -> None:
    """Each delay adds to one series that older hosts read, whatever there is besides."""
    shared = Shared.create([], [])
    first = shared.schema.at("greylist_delay_seconds")
    names = dict(layout.sources(shared.schema))
    cells = [names[first + at] for at in range(len(DELAY_BUCKETS) + 1)]
    assert [sum(name.startswith("delay_le:") for name in one) for one in cells] == [1] * len(cells)
    old = [300, 420, 600, 900, 1800, 3600, 7200, 21600, 86400, "inf"]
    assert list(dict.fromkeys(one[0] for one in cells)) == [f"delay_le:{bound}" for bound in old]
    assert [one[1] for one in cells if len(one) > 1] == [f"delay_within:{n}" for n in (1, 5, 15, 60, 300)]


# -- recorded verdicts

RECORD: dict[str, Any] = {
    "t": NOW,
    "mx": "mx1",
    "queue_id": "4F1",
    "client": "192.0.2.9",
    "host": "mail.example.org",
    "helo": "mail.example.org",
    "sender": "a@example.org",
    "recipient": "b@example.net",
    "rule": "blocklists",
    "action": "reject",
    "outcome": "reject",
    "lists": {"zen.spamhaus.org": ["127.0.0.4"]},
    "state": None,
    "age": None,
    "wait_ms": 0.5,
    "enforced": True,
    "reply": "554 5.7.1 Service unavailable",
}

DEEP = json.loads("[" * 900 + "]" * 900)
for _ in range(120):  # more than repr() can bear; the store's JSON may be 1,024 deep
    DEEP = [DEEP]

POISON = [
    ("no time", {"t": "yesterday"}, None),
    ("a time that is none", {"t": float("nan")}, None),
    ("a far time", {"t": 1e300}, None),
    ("no client", {"client": {"a": 1}}, None),
    ("control characters", {"helo": "a\x1b[31m\nb"}, {"helo": r"a\x1b[31m\nb"}),
    ("right to left", {"sender": "\u202egro@elpmaxe"}, {"sender": r"\u202egro@elpmaxe"}),
    ("half a character", {"sender": "\ud800"}, {"sender": r"\ud800"}),
    ("markup stays text", {"sender": "<img src=x>"}, {"sender": "<img src=x>"}),
    ("a huge text", {"recipient": "x" * 10_000}, {"recipient": "x" * 399 + "…"}),
    ("a strange outcome", {"outcome": "<b>"}, {"outcome": "accept"}),
    ("lists that are none", {"lists": [1, 2]}, {"lists": {}}),
    ("a list's nonsense", {"lists": {"a\n": 7, "b": [1]}}, {"lists": {r"a\n": "?", "b": []}}),
    ("bottomless lists", {"lists": {"a": DEEP, "b": [DEEP]}}, {"lists": {"a": [], "b": []}}),
    (
        "a bottomless table",
        {"lists": {"a": {"b": DEEP}}, "sender": DEEP},
        {"lists": {"a": "?"}, "sender": None},
    ),
    ("too many lists", {"lists": {str(n): [] for n in range(1000)}}, {"state": None}),
    ("a huge number", {"age": 10**400}, {"age": None}),
    ("not a number", {"wait_ms": float("inf")}, {"wait_ms": 0}),
]


@pytest.mark.parametrize(("change", "want"), [one[1:] for one in POISON], ids=[one[0] for one in POISON])
def test_poisoned_records(change: Mapping[str, object], want: Mapping[str, object] | None) -> None:
    """Whatever is in the store, a record is passed over or made fit to be shown."""
    found = verdicts.shown(RECORD | change)
    if want is None:
        assert found is None
    else:
        assert found is not None
        assert want.items() <= found.items()
        assert len(json.dumps(found)) < 10_000
        page_site.orjson.dumps(found)


SEARCHES = [
    ("", 2),
    ("192.0.2.9", 1),
    ("EXAMPLE.org", 2),
    ("spamhaus", 1),
    ("rejected", 1),
    ("greylisted b@example.net", 1),
    ("rejected greylisted", 0),
    ("192.0.2.0/24", 1),
    ("192.0.2.0/24 spamhaus", 1),
    ("2001:db8::/32", 1),
    ("10.0.0.0/8", 0),
    ("a/b", 0),
    ("mx1", 2),
    ("early", 1),
    # One thing and no other.
    ("rule:blocklists", 1),
    ("rule:block", 0),
    ('rule:"the rest"', 1),
    ('rule:"the', 0),
    ("rule:the rest", 0),
    ("list:zen.spamhaus.org", 1),
    ("list:spamhaus.org", 0),
    ("list:nobody", 0),
    ("host:mx1", 2),
    ("host:mx", 0),
    ("client:192.0.2.9", 1),
    ("client:192.0.2.0/24", 1),
    ("client:192.0.2", 0),
    ("client:2001:db8::/64", 1),
    ("client:2001:db8:0::5", 1),
    ("client:mail.example.org", 2),
    ("client:Example.ORG", 2),
    ("client:ample.org", 0),
    ("domain:example.org", 2),
    ("domain:EXAMPLE.org.", 2),
    ("domain:org", 0),
    ("domain:<>", 0),
    ("from:a@example.org to:b@example.net", 2),
    ("from:a", 0),
    ("helo:mail.example.org", 2),
    ("outcome:rejected", 1),
    ("outcome:reject", 1),
    ("outcome:greylisted", 1),
    ("outcome:deferred", 0),
    ("outcome:perhaps", 0),
    # While it is typed, and what is no field.
    ("rule:", 2),
    ("rule: blocklists", 1),
    ("nothing:mx1", 0),
    ("2001:db8::5", 1),
    ('"', 2),
    ('"mail.example.org"', 2),
    ("   ", 2),
]


@pytest.mark.parametrize(("wanted", "number"), SEARCHES)
def test_search(wanted: str, number: int) -> None:
    """Every word must be somewhere; a network means the clients in it."""
    other = {"client": "2001:db8::5", "outcome": "delay", "lists": {}, "rule": "the rest", "state": "early"}
    some = [verdicts.shown(RECORD), verdicts.shown(RECORD | other)]
    assert len(verdicts.search([one for one in some if one], wanted, ClientReader())) == number


WORDS = [
    ("", []),
    ('rule:"a \\"b\\\\" x', [("rule", 'a "b\\'), ("", "x")]),
    ("LIST:Zen.Example", [("list", "zen.example")]),
    ('a"b c"', [("", 'a"b'), ("", 'c"')]),
    ('"a b"c', [("", '"a'), ("", 'b"c')]),
    ('domain:""', [("domain", "")]),
    ("domain:", []),
    ("from:rule:x", [("from", "rule:x")]),
]


@pytest.mark.parametrize(("wanted", "found"), WORDS)
def test_words_of_a_search(wanted: str, found: list[tuple[str, str]]) -> None:
    """Quotes hold a word together, a backslash is before a quote in it; a field stands before its word."""
    assert verdicts.words(wanted) == found


def test_bounces_and_no_rule_are_found() -> None:
    """What the tables call by another name than the record is found by the table's."""
    one = verdicts.shown(RECORD | {"sender": "<>", "rule": None})
    assert one is not None
    for wanted in ("domain:<>", 'domain:""', "rule:(none)", "from:<>"):
        assert verdicts.search([one], wanted, ClientReader()) == [one], wanted
    assert not verdicts.search([one], "domain:example.org", ClientReader())


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("accept", "accept"),
        ("accepted", "accept"),
        ("reject", "reject"),
        ("rejected", "reject"),
        ("delay", "delay"),
        ("greylisted", "delay"),
        ("tempfail", "tempfail"),
        ("deferred", "tempfail"),
    ],
)
def test_outcomes_of_both_versions(word: str, key: str) -> None:
    """Hosts of two versions share one store: both words for an outcome are one, shown and found."""
    one = verdicts.shown(RECORD | {"outcome": word, "reason": "of a later version", "more": [1]})
    assert one is not None
    assert one["outcome"] == key
    assert verdicts.search([one], f"outcome:{word}", ClientReader()) == [one]


def _way(matching: int) -> list[str]:
    """The outcomes of the ten default rules, of which this one matches."""
    return ["no match"] * matching + ["matches"] + ["not reached"] * (9 - matching)


WAYS = [
    # what is different; whether the default rules lead there; the outcome of each rule
    ({}, True, _way(5)),
    ({"lists": {"zen.spamhaus.org": "timeout"}, "rule": "the rest"}, True, _way(9)),
    ({"lists": {}, "rule": "authenticated"}, True, _way(0)),
    ({"client": "127.0.0.1", "rule": "local", "lists": {}}, True, _way(1)),
    ({"rule": "allowed by hand"}, True, _way(3)),
    ({"lists": {}, "rule": "correspondents"}, True, _way(7)),
    ({"lists": {"zen.spamhaus.org": ["127.255.255.254"]}}, False, _way(9)),
    ({"rule": "one of long ago"}, False, _way(5)),
    ({"client": "nobody", "lists": {}, "rule": "the rest"}, True, _way(9)),
]


@pytest.mark.parametrize(("change", "agrees", "outcomes"), WAYS)
def test_the_way_is_gone_again(change: Mapping[str, object], agrees: bool, outcomes: list[str]) -> None:
    """A record leads through the rules as the mail did; if the rules of now lead elsewhere, that is said."""
    settings = load.default()
    one = verdicts.shown(RECORD | change)
    assert one is not None
    lists = zones.build(settings.rules, settings.zones)
    way = verdicts.retrace(Policy(settings.rules), lists, one)
    assert (way.agrees, [step.outcome for step in way.steps]) == (agrees, outcomes)


# -- the data


class Past:
    """A history that counts how often it is asked, and may be out of reach."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.down = ""
        self.records: list[Mapping[str, Any]] = [RECORD]
        self.terms = Terms("mx1", "enforce", {}, verdicts=7 * 86400)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.down:
            raise StoreError(self.down)

    def own(self) -> Alone:
        return Alone()

    def hosts(self) -> list[str]:
        self._ask("hosts")
        return ["mx2", "mx1"]

    def counts(
        self, start: float, end: float, step: Step, hosts: Sequence[str] | None = None
    ) -> Mapping[str, Mapping[int, int]]:
        self._ask(f"counts {step} {hosts}")
        return {"outcome:reject:enforced": {int(end) // step * step: 1 if hosts else 2}}

    def marks(self, start: float, end: float) -> list[Mark]:
        self._ask("marks")
        return [Mark(end - 5, "mx1", "start", "a\nb"), Mark(end - 4, "mx2", "start", "")]

    def logs_read(self, hosts: Sequence[str] | None = None) -> dict[str, int]:
        self._ask("logs")
        return dict.fromkeys(hosts or ("mx1", "mx\n2"), 1700000000)

    def tops(
        self, start: float, end: float, hosts: Sequence[str] | None = None, limit: int = 20
    ) -> Mapping[str, list[tuple[str, int]]]:
        self._ask("tops")
        return {
            "network/reject": [("192.0.2.0/24", 5), ("2001:db8::/64", 1)],
            "network/accept": [("2001:db8::/64", 9)],
            "domain/reject": [("a\nb", 1)],
            "nonsense": [("x", 1)],
        }

    def latest(self, hosts: Sequence[str] | None, limit: int) -> list[Mapping[str, Any]]:
        self._ask("latest")
        return self.records[:limit]

    def verdicts(
        self, since: float, until: float, hosts: Sequence[str] | None = None, needles: Needles = ()
    ) -> Iterator[Mapping[str, Any]]:
        self._ask("verdicts")
        every = sorted((one for one in self.records if one["t"] != "?"), key=lambda one: -one["t"])
        return (one for one in every if since <= one["t"] <= until)


class Alone(Past):
    """What this host has by itself: one recipient, greylisted."""

    def counts(
        self, start: float, end: float, step: Step, hosts: Sequence[str] | None = None
    ) -> Mapping[str, Mapping[int, int]]:
        return {"outcome:delay:enforced": {int(end) // step * step: 1}}


@pytest.fixture
def past() -> Past:
    return Past()


@pytest.fixture
def data(past: Past) -> page_data.Data:
    settings = load.default()
    lists = zones.build(settings.rules, settings.zones)
    shared = Shared.create(
        [(rule.name, rule.action.value) for rule in settings.rules],
        [(zone.name, zone.label) for zone in lists],
    )
    host = page_data.Host("mx1", observes=True)
    return page_data.Data(
        host, Policy(settings.rules), lists, shared=shared, chronicle=past, health=list, clock=lambda: NOW
    )


def test_history_of_all_and_of_one(data: page_data.Data) -> None:
    """All hosts together or one of them, with its marks; names and texts come cleaned."""
    every: Any = data.answer("history", {"span": "hour"})
    assert (every["hosts"], sum(every["outcomes"]["reject"])) == (["mx1", "mx2"], 2)
    assert [(mark["host"], mark["text"]) for mark in every["marks"]] == [("mx1", r"a\nb"), ("mx2", "")]
    one: Any = data.answer("history", {"span": "hour", "host": "mx2"})
    assert (sum(one["outcomes"]["reject"]), [mark["host"] for mark in one["marks"]]) == (1, ["mx2"])
    assert every["trouble"] == ""
    assert [log["host"] for log in every["logs"]] == [r"mx\n2", "mx1"]
    assert [log["host"] for log in one["logs"]] == ["mx2"]
    assert (every["unkept"], one["later"]["early"]) == ("", 0)


def test_entries_by_hand_are_bounded_and_clean(data: page_data.Data) -> None:
    """The newest come first, and hundreds are enough; what others have put in is one clean line."""
    assert data.answer("hand", {}) == {"count": 0, "entries": []}
    made = [
        parse(f"client 10.0.{n // 256}.{n % 256}".encode(), f"{n} 0 {VALUE}".encode()) for n in range(1, 1001)
    ]
    shown: Any = hand.shown([entry for entry in made if entry is not None])
    assert (shown["count"], len(shown["entries"])) == (1000, hand.MOST_SHOWN)
    first = shown["entries"][0]
    assert (first["subject"], first["since"], first["until"]) == ("10.0.3.232", 1000, None)
    assert (first["kind"], first["who"], first["comment"]) == ("block", "a b", "")


VALUE = r'{"kind":"block","who":"a\u001bb","host":"h","comment":7}'


def test_the_store_is_asked_seldom(data: page_data.Data, past: Past) -> None:
    """However often a page asks, the store is asked once in some seconds."""
    for _ in range(50):
        for name in ("history", "tops", "latest"):
            data.answer(name, {})
    assert sorted(past.asked) == ["counts 60 None", "hosts", "latest", "logs", "marks", "tops"]


def test_memory_is_bounded_and_one_asks_at_a_time() -> None:
    """Answers that nobody asks for any more are let go of."""
    now = [100.0]
    memory = page_data.Memory(lambda: now[0])
    for key in range(1000):
        memory.get(key, 5.0, lambda: 1, list)
    asked = []
    for _ in range(3):
        memory.get(999, 5.0, lambda: asked.append(1), list)
        memory.get(0, 5.0, lambda: asked.append(1), list)
    assert len(asked) == 1
    now[0] += 5.0
    memory.get(999, 5.0, lambda: asked.append(1), list)
    assert len(asked) == 2


def test_a_store_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for it, the next one not at all; what it says in the end is shown from then on."""
    monkeypatch.setattr(page_data, "PATIENCE", 0.05)
    now = [100.0]
    memory = page_data.Memory(lambda: now[0])
    speak = threading.Event()

    def ask() -> str:
        assert speak.wait(30)
        return "said"

    late = memory.get("a", 5.0, ask, lambda: "own")
    assert (late.found, late.trouble) == ("own", page_data.LATE)
    other = memory.get("b", 5.0, pytest.fail, lambda: "other")
    assert (other.found, other.trouble) == ("other", page_data.LATE)
    speak.set()
    wait_until(lambda: memory.get("a", 5.0, ask, lambda: "own").found == "said", "the answer is shown")
    assert memory.get("b", 5.0, lambda: "well", lambda: "other") == memory.get("b", 5.0, list, list)
    assert memory.get("b", 5.0, list, list).found == "well"


def test_a_store_that_is_slow_to_fail() -> None:
    """After one question that failed late the others do not wait as long, for a while."""
    now, asked = [100.0], []
    memory = page_data.Memory(lambda: now[0])

    def fail() -> None:
        asked.append(now[0])
        now[0] += page_data.SLOW
        raise StoreError("timed out")

    for key in "abc":
        assert memory.get(key, 5.0, fail, list).trouble == "The store does not answer (timed out)"
    assert len(asked) == 1
    now[0] += page_data.AWAY
    assert memory.get("b", 5.0, lambda: "well", list).found == "well"


def test_a_bug_is_no_trouble_of_the_store() -> None:
    """It is raised to who asked, and the next one may ask again."""
    memory = page_data.Memory()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            memory.get("a", 5.0, lambda: 1 // 0, list)
    assert memory.get("a", 5.0, lambda: 1, list).found == 1


def test_the_store_down(data: page_data.Data, past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known is shown with its time; what was not is said to be missing; nothing fails."""
    monkeypatch.setattr(page_data, "FRESH", dict.fromkeys(spans.SPANS, 0.0))
    data.answer("history", {"span": "hour"})
    past.down = "Connection refused\n"
    known: Any = data.answer("history", {"span": "hour"})
    assert sum(known["outcomes"]["reject"]) == 2
    assert known["trouble"].startswith(
        r"The store does not answer (Connection refused\n): the numbers are those of"
    )
    unknown: Any = data.answer("history", {"span": "year"})
    assert (sum(map(sum, unknown["outcomes"].values())), sum(unknown["outcomes"]["delay"])) == (1, 1)
    assert unknown["trouble"].endswith("its history cannot be shown.")
    past.down = ""
    again: Any = data.answer("history", {"span": "year"})
    assert again["trouble"] == ""


def test_another_host_while_the_store_is_down(data: page_data.Data, past: Past) -> None:
    """That it is not known is put down to the store."""
    past.down = "gone"
    with pytest.raises(page_site.GoneError, match=r"store does not answer .*no history of a host 'mx2'"):
        data.answer("history", {"host": "mx2"})
    assert data.answer("history", {"host": "mx1"})


def test_tops(data: page_data.Data) -> None:
    """The heaviest first, outcomes together."""
    tops: Any = data.answer("tops", {"span": "week"})
    assert tops["networks"] == [
        {"name": "2001:db8::/64", "reject": 1, "accept": 9},
        {"name": "192.0.2.0/24", "reject": 5},
    ]
    assert tops["domains"] == [{"name": r"a\nb", "reject": 1}]


def test_now(data: page_data.Data) -> None:
    """Each list of the configuration with its health, and how this host does."""
    now: Any = data.answer("lists", {})
    assert (now["host"], now["observe"], now["problems"], now["notes"]) == ("mx1", True, [], [])
    assert [one["list"] for one in now["lists"]] == [
        "bl.mailspike.net",
        "zen.spamhaus.org",
        "rep.mailspike.net",
        "list.dnswl.org",
    ]
    assert {(one["suspended"], one["seconds"]) for one in now["lists"]} == {(False, None)}
    for index in range(len(data._zones)):
        data._shared.flags.health[index] = series.HEALTH.index("silent")
    now = data.answer("lists", {})
    assert (now["problems"], now["notes"]) == ([], [series.NO_LIST_WORKS])


def test_latest_and_way(data: page_data.Data, past: Past) -> None:
    """A verdict that was listed can be opened, until it is gone; damaged ones are passed over."""
    past.records = [RECORD | {"client": f"192.0.2.{n}"} for n in range(100)] + [{"t": "?"}]
    found: Any = data.answer("latest", {"q": "192.0.2.7 rejected", "limit": "5"})
    assert (found["found"], len(found["verdicts"])) == (11, 5)
    way: Any = data.answer("way", {"id": found["verdicts"][0]["id"]})
    assert (way["agrees"], way["steps"][5]["outcome"]) == (True, "matches")
    assert way["steps"][5]["why"] == "dns: zen.spamhaus.org=127.0.0.[2..11]"
    with pytest.raises(page_site.GoneError):
        data.answer("way", {"id": "0" * 20})


@pytest.mark.parametrize(("looking", "limit"), [(1.0, 100), (1.0, 7), (0.0, 100)])
def test_the_past_is_searched_piece_by_piece(
    data: page_data.Data, past: Past, monkeypatch: pytest.MonkeyPatch, looking: float, limit: int
) -> None:
    """However much one question looks through, asking on from where it got finds all, and comes to an end."""
    monkeypatch.setattr(page_past, "LOOKING", looking)
    past.records = [
        RECORD | {"t": NOW - 3000.0 * number, "recipient": f"{'joe' if number % 3 else 'ann'}@example.net"}
        for number in range(300)
    ]
    latest: Any = data.answer("latest", {"q": "joe@example.net"})
    assert (latest["oldest"], latest["days"]) == (NOW - 3000.0 * 299, 7.0)
    found, before = [], NOW - 30_000.0
    for _ in range(2000):
        some: Any = data.answer("past", {"q": "joe@", "before": str(before), "limit": str(limit)})
        found += [one["t"] for one in some["verdicts"]]
        if some["reached"] is None:
            break
        before = min(some["reached"], before - 0.001)
    within = [one["t"] for one in past.records if one["t"] > NOW - 7 * 86400 - 3600]
    assert sorted(set(found), reverse=True) == [
        one for number, one in enumerate(within) if number % 3 and one <= NOW - 30_000.0
    ]


def test_a_verdict_of_the_past_can_be_opened(data: page_data.Data, past: Past) -> None:
    """By its time and its name, though it is none of the latest."""
    past.records = [RECORD | {"t": NOW - number} for number in range(3000)]
    some: Any = data.answer("past", {"before": str(NOW - 2500), "limit": "1"})
    (one,) = some["verdicts"]
    with pytest.raises(page_site.GoneError):
        data.answer("way", {"id": one["id"]})
    assert data.answer("way", {"id": one["id"], "t": str(one["t"])})
    with pytest.raises(page_site.GoneError):
        data.answer("way", {"id": one["id"], "t": str(one["t"] - 5)})


NEEDLES = [
    ("joe@example.org", ["joe@example.org"]),
    ("From:Joe@Example.org rejected", ["joe@example.org"]),
    ("example.org passed 312", ["example.org"]),
    ("192.0.2.7 2001:db8::7 192.0.2.0/24", []),
    ('"first attempt" outcome:rejected rule:x client:a.example helo:a.example', []),
    ("@example.org domain:spam.example", ["@example.org", "spam.example"]),
]


@pytest.mark.parametrize(("wanted", "found"), NEEDLES)
def test_what_a_record_must_have(wanted: str, found: list[str]) -> None:
    """Only what cannot be in the words that we say of a record."""
    assert [one.decode() for (one,) in verdicts.needles(verdicts.words(wanted))] == found


BAD = [
    ("past", {"before": "yesterday"}, page_site.BadQuestionError),
    ("past", {"before": "1e9"}, page_site.BadQuestionError),
    ("past", {"limit": "x"}, page_site.BadQuestionError),
    ("past", {"host": "mx9"}, page_site.GoneError),
    ("way", {"t": "-1"}, page_site.BadQuestionError),
    ("history", {"span": "century"}, page_site.BadQuestionError),
    ("history", {"host": "mx9"}, page_site.GoneError),
    ("tops", {"host": "\x1b"}, page_site.GoneError),
    ("latest", {"limit": "-1"}, page_site.BadQuestionError),
    ("latest", {"limit": "\u0661"}, page_site.BadQuestionError),
    ("latest", {"limit": "9" * 5000}, page_site.BadQuestionError),
    ("way", {}, page_site.GoneError),
    ("passwd", {}, page_site.GoneError),
]


@pytest.mark.parametrize(("name", "parameters", "error"), BAD)
def test_bad_questions(
    data: page_data.Data, name: str, parameters: Mapping[str, str], error: type[Exception]
) -> None:
    """What the page would not ask is refused, in words that are safe to show."""
    with pytest.raises(error) as refused:
        data.answer(name, parameters)
    assert str(refused.value).isprintable()
