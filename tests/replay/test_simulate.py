"""The month of mail that `make simulate` makes: the same for a seed, whole, and as its numbers say."""

import json
from collections import Counter, defaultdict
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from random import Random

import pytest

from hybridgrey import envelope
from hybridgrey.greylist import normalise
from hybridgrey.replay.reading import Reader
from simulate import __main__ as command
from simulate import assumptions, envelopes, ham, measure, schedules, spam, tables, variants
from simulate.assumptions import World
from simulate.catalogue import POOLS, Catalogue
from simulate.measure import Host, Row
from simulate.origins import PROVED, Origin, Told, attempts
from simulate.tables import Targets

HOST = Host("tiny", 2, 100, days=10)
pytestmark = pytest.mark.slow
SHIPPED = Path(__file__).parents[2] / "etc/pools"


@cache
def month():
    return measure.month(World(), HOST, "1 0")


@cache
def large():
    return measure.month(World(), Host("", 20, 300, days=10), "3")


def test_a_seed_is_a_month():
    """The same seed gives the same mail; another gives other mail of the same amount."""
    assert measure.month(World(), HOST, "1 0") == month()
    other = measure.month(World(), HOST, "2 0")
    assert other != month()
    assert abs(len(other) - len(month())) < 20


def test_spam_does_not_change_legitimate_mail():
    """Each part has chance of its own, so that a number of spam moves nothing else."""
    changed = measure.month(World().other("suspended", 0.9), HOST, "1 0")
    assert [m for m in changed if m.label == ham.LABEL] == [m for m in month() if m.label == ham.LABEL]


def test_replay_reads_it():
    """Written as JSON lines and read again it is the same messages."""
    reader = Reader()
    reader.read("month", command.lines(month()))
    assert reader.messages() == month()
    assert (reader.damaged, reader.unknown_keys) == (0, set())


def test_each_kind_is_there():
    """All kinds that the issue of greylisting is about."""
    kinds = Counter((m.label, m.kind) for m in large())
    assert {kind for label, kind in kinds if label == ham.LABEL} == {
        "personal",
        "domain at Google",
        "domain at Microsoft",
        "small server",
        "small server, dual-stack",
        "small server, no SPF",
        "newsletter",
        "notification",
        "login code",
        "forwarded",
    }
    assert {kind for label, kind in kinds if label == spam.LABEL} == {
        "listed at once",
        "no retry",
        "retries too early",
        "account in a large pool",
        "snowshoe",
        "bot that retries",
        "server",
    }


@pytest.mark.parametrize(
    ("name", "kind", "of"),
    [
        ("codes", "login code", ham.LABEL),
        ("newsletters", "newsletter", ham.LABEL),
        ("personal", "personal", ham.LABEL),
        ("listed", "listed at once", spam.LABEL),
    ],
)
def test_shares_are_as_the_numbers_say(name, kind, of):
    """Within what chance allows."""
    some = [m.kind for m in large() if m.label == of]
    assert some.count(kind) / len(some) == pytest.approx(getattr(World(), name), abs=0.03)


def test_every_number_has_a_range_that_holds_it():
    """And each moves something, or it would not be there; measured ones have a source."""
    for one in assumptions.known():
        assert one.low <= one.value <= one.high, one
        assert one.low < one.high
        world = World().other(one.name, one.high)
        assert getattr(world, one.name) == one.high
    assert len(fields(World)) == len(list(assumptions.known()))


MOVED = Host("", 4, 1200, days=3)
SERVERS = World().other("small", 0.3)


@pytest.fixture(scope="module")
def as_assumed():
    """A month of the world as it is assumed, with more small servers."""
    return measure.month(SERVERS, MOVED, "1")


@pytest.mark.parametrize("name", [one.name for one in assumptions.known()])
def test_every_number_moves_something(as_assumed, name):
    """At the far end of its range the mail is other mail."""
    one = next(one for one in assumptions.known() if one.name == name)
    far = max(one.low, one.high, key=lambda end: abs(end - one.value))
    # No assertion that would print two months.
    moved = measure.month(SERVERS.other(name, far), MOVED, "1") != as_assumed
    assert moved


def test_a_world_with_nothing_new_has_nothing_new():
    """The generators follow their numbers to the ends."""
    world = replace(World(), new_senders=0.0, forwarded=0.0, spf_failing=0.0, expected=1.0, listed=1.0)
    mail = measure.month(world, HOST, "1")
    assert all(a.expected is (m.kind == ham.CODE) for m in mail for a in m.attempts[:1])
    assert {m.kind for m in mail if m.label == spam.LABEL} == {"listed at once"}
    assert not any(a.spf == "temperror" for m in mail for a in m.attempts)


# Schedules


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.postfix,
        schedules.exim,
        schedules.each(30),
        schedules.bulk(10),
        schedules.too_early,
        schedules.never,
        schedules.once(300, 600),
        *map(schedules.measured, schedules.MEASURED),
    ],
)
def test_retries_come_later_and_later_and_end(schedule):
    """Rising, from the first second on, within two days."""
    for seed in range(50):
        times = schedule(Random(seed))
        assert all(a < b for a, b in zip([0.0, *times], times, strict=False))
        assert not times or times[-1] < schedules.LONGEST


@pytest.mark.parametrize(
    ("schedule", "low", "high"),
    [
        (schedules.postfix, 300, 600),
        (schedules.exim, 900, 960),
        (schedules.each(30), 60, 1800),
        (schedules.bulk(10), 600, 720),
        (schedules.measured("gmail"), 362, 367),
        (schedules.measured("hotmail"), 61, 66),
    ],
)
def test_the_first_retry(schedule, low, high):
    """As the defaults of the programs, or as measured."""
    assert all(low <= schedule(Random(seed))[0] <= high for seed in range(200))


# Origins


def test_a_message_keeps_to_its_width():
    """Attempts come from so many addresses of the pool at most; a pool of width 1 keeps its address."""
    pool = [f"10.0.{n}.1" for n in range(50)]
    for width in (1, 3):
        origin = Origin(pool, schedules.measured("gmail"), "mail", width=width)
        made = [attempts(Random(seed), 1e9, origin, 0.0) for seed in range(30)]
        assert {len({a.client for a in one}) for one in made} <= set(range(1, width + 1))
        assert len({one[0].client for one in made}) > 10


def test_gmail_is_as_measured():
    """Nine attempts of a message come from seven addresses in the mean (DSN 2016)."""
    origin = Catalogue(World(), Random(1)).providers["gmail"]
    seen = [len({a.client for a in attempts(Random(seed), 1e9, origin, 0.0)[:9]}) for seed in range(300)]
    assert sum(seen) / len(seen) == pytest.approx(7, abs=0.4)


def test_a_client_is_listed_from_then_on():
    """Not before."""
    origin = Origin(["10.0.0.1"], schedules.postfix, None, PROVED)
    made = attempts(Random(1), 1e9, origin, 0.0, Told(listed_at=1e9 + 1000))
    listed = [dict(one.heard)["zen.spamhaus.org"] != () for one in made]
    assert listed == [one.at >= 1e9 + 1000 for one in made]
    assert True in listed
    assert False in listed


@pytest.mark.parametrize("name", list(envelopes.FORMS))
def test_bounce_addresses_fold(name):
    """All of one service to one recipient are one sender; and they do differ."""
    chance = Random(1)
    made = {envelopes.FORMS[name](chance, "user1@here.example", "service-1.example") for _ in range(200)}
    assert len(made) > 150
    assert len({normalise.sender(envelope.read(one).key) for one in made}) == 1


def test_words_do_not_fold():
    """The services of the number `unfoldable` are such."""
    chance = Random(1)
    made = {envelopes.words(chance, "", "service-1.example") for _ in range(200)}
    assert len({normalise.sender(envelope.read(one).key) for one in made}) > 190


def test_verp_and_srs_fold():
    """Newsletters, and what a forwarder makes of one sender."""
    chance = Random(1)
    verp = {envelopes.verp(chance, "u@here.example", "x.example") for _ in range(50)}
    srs = {envelopes.srs(chance, "a@x.example", "f.example") for _ in range(50)}
    for made in (verp, srs):
        assert len({normalise.sender(envelope.read(one).key) for one in made}) == 1


def test_a_correspondent_stays_one():
    """Who was written to once has been written to from then on."""
    seen = defaultdict(list)
    for one in month():
        seen[one.sender, one.recipient].append(one.attempts[0].correspondent)
    assert all(told == sorted(told) for told in seen.values())
    assert any(told[-1] for told in seen.values())


# What becomes of it


def test_a_task_gives_rows(capsys):
    """The least of a table: plain greylisting delays more than our defaults, and lists let in less spam."""
    task = measure.Task(World(), HOST, "1", tuple(variants.COMPARED))
    rows = measure.rows(measure.added([measure.done(task), measure.done(task)]))
    plain, listed, hierarchy, ours = rows
    assert [row.variant for row in rows] == [one.name for one in variants.COMPARED]
    assert ours.delayed < hierarchy.delayed < plain.delayed
    assert listed.let_in < plain.let_in
    assert (plain.spam, plain.legitimate) == (2000, 1000)
    assert "hybridgrey's defaults" in tables.text(tables.HEAD, tables.compared(rows))
    assert command.verdict(rows).count("at most") == 3


@pytest.mark.skipif(not SHIPPED.exists(), reason="no etc/pools")
def test_pools_are_those_that_are_shipped():
    """Nothing is let in here that is not let in by default."""
    lines = (line.partition("#")[0].strip() for line in SHIPPED.read_text().splitlines())
    assert set(POOLS) <= set(lines)


def test_all_variants_are_configurations(tmp_path):
    """Each loads, and no two are the same."""
    some = [*variants.COMPARED, *variants.SWITCHED_OFF, *variants.TERMS, *variants.RULES]
    configs = variants.written(some, tmp_path)
    assert len(configs) == len(some)
    assert len({(config.rules, repr(config.greylist)) for config in configs.values()}) == len(some)


def test_targets_and_tables():
    """By hand."""
    ours = Row("ours", 100, 0.05, 0.0, 60.0, 0.02, 0.0, 10, 0.01, 1000, 21)
    plain = Row("plain", 100, 0.5, 300.0, 7200.0, 0.4, 0.01, 10, 0.5, 1000, 90)
    listed = Row("listed", 100, 0.5, 300.0, 7200.0, 0.4, 0.01, 10, 0.5, 1000, 20)
    found = tables.targets(ours, plain, listed)
    assert found == Targets(0.1, 0.01, 1.05)
    assert "NOT" not in tables.judged(found)
    assert tables.judged(Targets(0.2, 0.0, 1.06)).count("NOT REACHED") == 2
    cells = tables.compared([plain])
    assert cells == [["plain", "50.0 %", "5 min", "2.0 h", "40.0 %", "1.0 %", "50.0 %", "90 of 1000"]]
    assert tables.markdown(("a", "b"), [["1|2", "3"]]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |"
    assert tables.text(("", "b"), [["long", "3"]]) == "      b\nlong  3"


def test_lines_are_json():
    """With what lists said as texts."""
    one = next(command.lines([m for m in month() if m.kind == "listed at once"]))
    assert json.loads(one)["attempts"][0]["lists"]["zen.spamhaus.org"] == ["127.0.0.4"]
