"""Counters in shared memory: real processes add, one reads, nothing is lost over restarts and reloads."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hybridgrey.clientaddress import ClientReader
from hybridgrey.filter.counting import Counts
from hybridgrey.filter.reason import reason_of
from hybridgrey.filter.screen import Client, Decision
from hybridgrey.lists import zones
from hybridgrey.metrics import prometheus, series
from hybridgrey.metrics.meter import ListAnswer
from hybridgrey.metrics.shared import Shared
from hybridgrey.outcome import Outcome, outcome_of
from hybridgrey.policy.judge import Action, Answer, Facts, Hit, Rule, Verdict
from hybridgrey.policy.pattern import ListEntry

RULES = [("manual", "accept"), ("blocklists", "reject"), ("the rest", "greylist")]
ZONES = [("0123456789abcdef.zen.dq.spamhaus.net", "zen.spamhaus.org"), ("list.dnswl.org", "list.dnswl.org")]


@pytest.fixture
def shared() -> Shared:
    return Shared.create(RULES, ZONES)


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads switch as often as the interpreter can make them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process, wait for its end and return its exit status."""
    if (pid := os.fork()) == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def samples(shared: Shared) -> dict[str, float]:
    """Read the exposition as Prometheus would: `name{label=value,…}` to number."""
    _type, body = prometheus.render(prometheus.registry(shared), "text/plain")
    return {
        sample.name + "{" + ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())) + "}": sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


@dataclass
class Zone:
    """A list."""

    label: str


def answer(
    label: str,
    seconds: float = 0.1,
    *,
    codes: tuple[bytes, ...] = (b"",),
    error: str = "",
    silent: bool = False,
) -> tuple[Zone, ListAnswer]:
    """What a list said, as a look-up has heard it."""
    return Zone(label), (codes, error, seconds, silent)


def test_processes_add_up(shared: Shared) -> None:
    """What forked workers count in their own slots is one total."""
    for number in range(3):
        slot = shared.counters.lease()

        def work(slot: int = slot, number: int = number) -> None:
            meter = shared.meter(slot)
            for _ in range(number + 1):
                meter.decided("blocklists", "reject", Outcome.REJECTED, 0.0)
            meter.claimed_by_both.inc(10)

        assert in_child(work) == 0
    found = samples(shared)
    assert found["hybridgrey_verdicts_total{action=reject,enforced=true,rule=blocklists}"] == 6
    assert found["hybridgrey_claimed_by_both_total{}"] == 30


def test_threads_lose_no_update(shared: Shared, switching: None) -> None:
    """Eight threads of one process add to one cell and a histogram, and every addition counts."""
    meter = shared.meter(shared.counters.lease())

    def add() -> None:
        for _ in range(5000):
            meter.opened()
            meter.greylisted("known", 0, 0.25)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = samples(shared)
    assert found["hybridgrey_sessions_total{}"] == 40_000
    assert found["hybridgrey_store_seconds_count{}"] == 40_000
    assert found["hybridgrey_store_seconds_sum{}"] == 10_000


def test_a_killed_worker_keeps_its_counts(shared: Shared) -> None:
    """After kill -9 the counts stay, the open sessions go, and the next worker adds to the same slot."""
    slot = shared.counters.lease()
    if (pid := os.fork()) == 0:
        meter = shared.meter(slot)
        for _ in range(5):
            meter.opened()
        time.sleep(60)
        os._exit(0)
    deadline = time.monotonic() + 30
    while samples(shared)["hybridgrey_sessions_open{}"] != 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    shared.counters.release(slot)
    assert samples(shared)["hybridgrey_sessions_open{}"] == 0
    assert shared.counters.lease() == slot
    assert in_child(lambda: shared.meter(slot).opened()) == 0
    assert samples(shared)["hybridgrey_sessions_total{}"] == 6


def test_reload_carries_totals_over(shared: Shared) -> None:
    """After a reload old and new workers count the same series together, and a new rule starts at zero."""
    old = shared.meter(shared.counters.lease())
    old.decided("manual", "accept", Outcome.ACCEPTED, 0.0)
    renewed = shared.renewed([("fresh", "tempfail"), *RULES], [*ZONES, ("bl.example", "bl.example")])
    new = renewed.meter(renewed.counters.lease())
    new.decided("manual", "accept", Outcome.ACCEPTED, 0.0)
    new.list_answers([answer("bl.example", 0.01)])
    old.decided("manual", "accept", Outcome.ACCEPTED, 0.0)
    found = samples(renewed)
    assert found["hybridgrey_verdicts_total{action=accept,enforced=true,rule=manual}"] == 3
    assert found["hybridgrey_verdicts_total{action=tempfail,enforced=true,rule=fresh}"] == 0
    assert found["hybridgrey_list_answers_total{list=bl.example,result=listed}"] == 1


def test_reload_keeps_indexes(shared: Shared) -> None:
    """No cell means something else after a reload, even when rules and zones are replaced."""
    renewed = shared.renewed([("other", "accept")], [("a.example", "a.example")], enforced=False)
    before = shared.schema.index
    assert {key: renewed.schema.index[key] for key in before} == before
    assert renewed.schema.size > shared.schema.size
    spans = sorted(
        (index, index + series.FAMILIES[name].width) for (name, _), index in renewed.schema.index.items()
    )
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_zone_names_stay_secret(shared: Shared) -> None:
    """Only a list's label is exposed, not the zone name that holds a key."""
    _type, body = prometheus.render(prometheus.registry(shared), "")
    assert b"zen.spamhaus.org" in body
    assert b"0123456789abcdef" not in body


HISTOGRAM = [
    (0.0, "0.005"),
    (0.005, "0.005"),
    (0.0051, "0.02"),
    (2.0, "2.0"),
    (2.1, "+Inf"),
    (1e9, "+Inf"),
]


@pytest.mark.parametrize(("seconds", "bucket"), HISTOGRAM)
def test_histogram_buckets(shared: Shared, seconds: float, bucket: str) -> None:
    """An observation counts in the first bucket whose bound is not below it, and in all above."""
    shared.meter(shared.counters.lease()).list_answers([answer("zen.spamhaus.org", seconds)])
    found = samples(shared)
    bounds = [*(str(bound) for bound in series.LIST_BUCKETS), "+Inf"]
    got = [found[f"hybridgrey_list_latency_seconds_bucket{{le={b},list=zen.spamhaus.org}}"] for b in bounds]
    assert got == [float(at >= bounds.index(bucket)) for at in range(len(bounds))]
    assert found["hybridgrey_list_latency_seconds_sum{list=zen.spamhaus.org}"] == seconds


def test_greylist_states(shared: Shared) -> None:
    """Each state has its count; only a pass has a delay."""
    meter = shared.meter(shared.counters.lease())
    meter.greylisted("new", 0, 0.001)
    meter.greylisted("passed", 312, 0.001)
    meter.greylisted("known", 4000, 0.001)
    found = samples(shared)
    assert found["hybridgrey_greylist_total{state=passed}"] == 1
    assert found["hybridgrey_greylist_total{state=known}"] == 1
    assert found["hybridgrey_greylist_total{state=network}"] == 0
    assert found["hybridgrey_greylist_delay_seconds_count{}"] == 1
    assert found["hybridgrey_greylist_delay_seconds_sum{}"] == 312


def test_unforeseen_labels_cost_nothing(shared: Shared) -> None:
    """A label that the config does not know is counted nowhere and raises nothing."""
    before = samples(shared)
    meter = shared.meter(shared.counters.lease())
    meter.decided("no such rule", "accept", Outcome.ACCEPTED, 0.0)
    meter.noted("no such rule")
    meter.list_answers([answer("no such list", 1.0), answer("no such list", silent=True)])
    meter.list_rejects({"no such list"}, 3)
    found = samples(shared)
    changed = {name.partition("{")[0] for name in found if found[name] != before[name]}
    assert changed == {"hybridgrey_rcpt_wait_seconds_bucket", "hybridgrey_rcpt_wait_seconds_count"}


OUTCOMES = [
    ("manual", "accept", "accept", True),
    ("blocklists", "reject", "reject", True),
    ("the rest", "greylist", "delay", True),
    ("the rest", "greylist", "accept", True),
    ("the rest", "greylist", "tempfail", False),
]


@pytest.mark.parametrize(("rule", "action", "outcome", "at_zero"), OUTCOMES)
def test_what_clients_get(shared: Shared, rule: str, action: str, outcome: str, at_zero: bool) -> None:
    """A recipient is counted by rule and action, by rule and what came of it, and by its wait."""
    key = f"hybridgrey_outcomes_total{{enforced=true,outcome={outcome},rule={rule}}}"
    assert (key in samples(shared)) == at_zero
    shared.meter(shared.counters.lease()).decided(rule, action, outcome_of(outcome), 0.03)
    found = samples(shared)
    assert found[key] == 1
    assert found[f"hybridgrey_verdicts_total{{action={action},enforced=true,rule={rule}}}"] == 1
    assert found["hybridgrey_rcpt_wait_seconds_bucket{le=0.02}"] == 0
    assert found["hybridgrey_rcpt_wait_seconds_bucket{le=0.05}"] == 1
    assert found["hybridgrey_rcpt_wait_seconds_sum{}"] == 0.03


ANSWERS = [
    ({}, "listed", 1),
    ({"codes": ()}, "unlisted", 1),
    ({"error": "SERVFAIL", "codes": ()}, "error", 1),
    ({"error": "answers 127.255.255.254, query refused"}, "error", 1),
    ({"error": "no answer in time", "codes": (), "silent": True}, "timeout", 0),
]


@pytest.mark.parametrize(("said", "result", "timed"), ANSWERS)
def test_answers_of_lists(shared: Shared, said: dict[str, Any], result: str, timed: int) -> None:
    """Each answer is counted by its kind; what did not come has no time."""
    shared.meter(shared.counters.lease()).list_answers([answer("list.dnswl.org", 0.3, **said)])
    found = samples(shared)
    for one in series.RESULTS:
        assert found[f"hybridgrey_list_answers_total{{list=list.dnswl.org,result={one}}}"] == (one == result)
    assert found["hybridgrey_list_latency_seconds_count{list=list.dnswl.org}"] == timed
    assert found["hybridgrey_list_latency_seconds_sum{list=list.dnswl.org}"] == 0.3 * timed


def test_rejects_of_one_list_alone(shared: Shared) -> None:
    """Recipients are counted for each list that had the client; one that was alone is told apart."""
    meter = shared.meter(shared.counters.lease())
    meter.list_rejects({"zen.spamhaus.org"}, 2)
    meter.list_rejects({"zen.spamhaus.org", "list.dnswl.org"}, 3)
    found = samples(shared)
    assert {
        name: value for name, value in found.items() if name.startswith("hybridgrey_list_rejects") and value
    } == {
        "hybridgrey_list_rejects_total{list=zen.spamhaus.org,sole=true}": 2,
        "hybridgrey_list_rejects_total{list=zen.spamhaus.org,sole=false}": 3,
        "hybridgrey_list_rejects_total{list=list.dnswl.org,sole=false}": 3,
    }


def test_a_recipient_without_rule_is_counted(shared: Shared) -> None:
    """A recipient that no rule matched has a rule label of its own."""
    shared.meter(shared.counters.lease()).decided(None, "accept", Outcome.ACCEPTED, 0.0)
    key = f"hybridgrey_verdicts_total{{action=accept,enforced=true,rule={series.NO_RULE}}}"
    assert samples(shared)[key] == 1


def test_only_a_rules_own_action_is_shown_at_zero(shared: Shared) -> None:
    """At the start each rule has one row; a greylist rule's accepts appear with the first one."""
    accepted = "hybridgrey_verdicts_total{action=accept,enforced=true,rule=the rest}"
    assert accepted not in samples(shared)
    assert samples(shared)["hybridgrey_verdicts_total{action=greylist,enforced=true,rule=the rest}"] == 0
    shared.meter(shared.counters.lease()).decided("the rest", "accept", Outcome.ACCEPTED, 0.0)
    assert samples(shared)[accepted] == 1


def test_observe_mode_is_a_label() -> None:
    """Verdicts that were not enforced are counted apart."""
    shared = Shared.create(RULES, ZONES, enforced=False)
    shared.meter(shared.counters.lease()).decided("blocklists", "reject", Outcome.REJECTED, 0.0)
    assert samples(shared)["hybridgrey_verdicts_total{action=reject,enforced=false,rule=blocklists}"] == 1


def test_slots_run_out(shared: Shared) -> None:
    """With more processes than slots the last ones share a row, and their counts are in the totals too."""
    slots = [shared.counters.lease() for _ in range(100)]
    assert slots[-1] == slots[-2]
    for slot in slots:
        shared.meter(slot).opened()
    assert samples(shared)["hybridgrey_sessions_total{}"] == 100
    for slot in slots:
        shared.counters.release(slot)
    assert shared.counters.lease() != slots[-1]


def test_capacity_is_bounded() -> None:
    """Series that find no room are dropped and counted as dropped; those with room still work."""
    shared = Shared.create([(f"rule {i}", "accept") for i in range(5000)], ZONES)
    assert shared.schema.dropped > 0
    meter = shared.meter(shared.counters.lease())
    meter.decided("rule 0", "accept", Outcome.ACCEPTED, 0.0)
    meter.decided("rule 4999", "accept", Outcome.ACCEPTED, 0.0)
    found = samples(shared)
    assert found["hybridgrey_verdicts_total{action=accept,enforced=true,rule=rule 0}"] == 1
    assert sum(value for name, value in found.items() if name.startswith("hybridgrey_verdicts")) == 1


def test_flags_between_processes(shared: Shared) -> None:
    """A zone suspended in one process is seen by another with one index operation, and shown by label."""
    zone = ZONES[0][0]
    index = shared.flags.index(zone)
    assert in_child(lambda: shared.flags.set(zone, True)) == 0
    assert shared.flags.view[index] == 1
    assert samples(shared)["hybridgrey_list_suspended{list=zen.spamhaus.org}"] == 1
    assert samples(shared)["hybridgrey_list_suspended{list=list.dnswl.org}"] == 0
    assert in_child(lambda: shared.flags.set(zone, False)) == 0
    assert shared.flags.view[index] == 0


def test_health_of_lists() -> None:
    """Each list has a 1 for one state, for zones under one label the worst."""
    shared = Shared.create([], [("a.example", "x"), ("b.example", "x"), ("c.example", "c")])
    shared.flags.health[0] = series.HEALTH.index("silent")
    shared.flags.health[1] = series.HEALTH.index("healthy")
    found = {name for name, value in samples(shared).items() if "list_health" in name and value}
    assert found == {
        "hybridgrey_list_health{list=x,state=silent}",
        "hybridgrey_list_health{list=c,state=unchecked}",
    }


def test_no_zones_at_all() -> None:
    """A config without lists works too."""
    shared = Shared.create([], [])
    assert shared.flags.suspended() == {}
    assert samples(shared)["hybridgrey_sessions_total{}"] == 0


def test_zones_with_one_label() -> None:
    """Two zones under one label are one series, suspended when either is."""
    shared = Shared.create([], [("a.example", "x"), ("b.example", "x")])
    shared.flags.set("b.example", True)
    assert samples(shared)["hybridgrey_list_suspended{list=x}"] == 1


def test_board_between_processes(shared: Shared) -> None:
    """What the master writes on the board, the keeper reads."""
    shared.board.set_workers(3, 4)
    shared.board.set_ready(True)

    def check() -> None:
        assert (shared.board.alive, shared.board.wanted, shared.board.ready) == (3, 4, True)

    assert in_child(check) == 0
    assert samples(shared)["hybridgrey_workers{}"] == 3
    assert samples(shared)["hybridgrey_workers_wanted{}"] == 4


def test_start_time_survives_a_reload(shared: Shared) -> None:
    """It is the daemon's start, so a new configuration does not look like a restart."""
    began = samples(shared)["hybridgrey_start_time_seconds{}"]
    assert abs(time.time() - began) < 30
    assert samples(shared.renewed(RULES, ZONES))["hybridgrey_start_time_seconds{}"] == began


def test_failed_reload_is_a_gauge(shared: Shared) -> None:
    """It is 1 from the start, 0 after a failed reload, 1 after one that went well."""
    seen = [samples(shared)["hybridgrey_config_reload_ok{}"]]
    for ok in (False, True):
        shared.board.set_reload_ok(ok)
        seen.append(samples(shared)["hybridgrey_config_reload_ok{}"])
    assert seen == [1, 0, 1]


def test_store_memory_is_what_the_keeper_found(shared: Shared) -> None:
    """Both gauges are 0 until the store was asked, then as it said."""
    names = ("hybridgrey_store_memory_bytes{}", "hybridgrey_store_memory_max_bytes{}")
    assert [samples(shared)[name] for name in names] == [0, 0]
    shared.board.set_store_memory(5_000_000_000, 6_000_000_000)
    assert [samples(shared)[name] for name in names] == [5e9, 6e9]


SCANNER = [f"hybridgrey_scanner_{name}{{}}" for name in ("wanted", "up", "left_alone")]
# What workers say, as (worker, there is a score, it leaves it alone from now on), or a worker that ends.
SCANNED: dict[str, tuple[list[tuple[int, bool, bool] | int], tuple[float | None, ...], bool]] = {
    "nobody has asked": ([], (1, None, 0), False),
    "a score": ([(0, True, False)], (1, 1, 0), False),
    "a failure or two": ([(0, True, False), (0, False, False), (1, False, False)], (1, 1, 0), True),
    "never a score": ([(0, False, False)], (1, 1, 0), True),
    "left alone": ([(0, True, False), (0, False, True)], (1, 0, 1), True),
    "by both": ([(0, False, True), (1, False, True)], (1, 0, 2), True),
    "back": ([(0, False, True), (0, True, False)], (1, 1, 0), False),
    "back, as one has found": ([(0, False, True), (1, False, True), (0, True, False)], (1, 1, 1), False),
    "who left it alone has ended": ([(0, False, True), 0], (1, 1, 0), True),
}


@pytest.mark.parametrize("name", SCANNED)
def test_the_scanner_is_as_the_workers_found_it(shared: Shared, name: str) -> None:
    """It does not work from when one leaves it alone until one has a score; then a note says so."""
    said, shown, since = SCANNED[name]
    assert [samples(shared).get(one) for one in SCANNER] == [0, None, 0]
    shared.board.scans_with("spamd:unix:/s")
    slots = [shared.counters.lease() for _ in range(2)]
    for one in said:
        if isinstance(one, int):
            shared.counters.release(slots[one])
            continue
        worker, worked, left_alone = one
        shared.board.scanned(worked)
        shared.meter(slots[worker]).left_alone(left_alone)
    found = samples(shared)
    assert tuple(found.get(one) for one in SCANNER) == shown
    assert ("hybridgrey_scanner_failing_since_timestamp_seconds{}" in found) is since
    assert shared.notes == ([series.SCANNER_DOWN] if shown[1] == 0 else [])


def test_another_scanner_has_no_past(shared: Shared) -> None:
    """After a reload that names another one nothing is known of it; the same one stays as it was."""
    shared.board.scans_with("spamd:unix:/s")
    shared.board.scanned(False)
    shared.board.scans_with("spamd:unix:/s")
    assert shared.board.scanning is not None
    assert shared.board.scanning.since > 0
    shared.board.scans_with("spamd:unix:/other")
    assert shared.board.scanning == (0, 0)
    shared.board.scans_with("")
    assert shared.board.scanning is None


STORE = ("hybridgrey_store_up{}", "hybridgrey_store_keys{}")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (None, (None, None)),
        ((True, 5_000_000_000), (1, 5e9)),
        ((True, 0), (1, 0)),
        ((True, -1), (1, None)),
        ((False, -1), (0, None)),
        ((False, 7), (0, None)),
    ],
)
def test_store_is_as_the_keeper_found_it(
    shared: Shared, said: tuple[bool, int] | None, shown: tuple[float | None, ...]
) -> None:
    """Before the first look nothing is said of it, and of its keys nothing while they are unknown."""
    if said is not None:
        shared.board.set_store(*said)
    assert tuple(samples(shared).get(name) for name in STORE) == shown


def test_time_of_the_last_good_reload(shared: Shared) -> None:
    """It is that of the start, then that of the last reload that was taken."""
    name = "hybridgrey_config_last_reload_success_timestamp_seconds{}"
    first = samples(shared)[name]
    assert first == pytest.approx(shared.board.started, abs=1)
    shared.board.set_reload_ok(False)
    assert samples(shared)[name] == first
    shared.board.set_reload_ok(True)
    assert first < samples(shared)[name] <= time.time()


def test_names_and_labels_are_the_documented_ones(shared: Shared) -> None:
    """The families of the exposition, with their labels, are exactly these."""
    meter = shared.meter(shared.counters.lease())
    meter.decided("manual", "accept", Outcome.ACCEPTED, 0.0)
    _type, body = prometheus.render(prometheus.registry(shared), "")
    found = {
        family.name: tuple(sorted({label for sample in family.samples for label in sample.labels} - {"le"}))
        for family in text_string_to_metric_families(body.decode())
    }
    assert found == {
        "hybridgrey_build_info": ("python", "version"),
        "hybridgrey_claimed_by_both": (),
        "hybridgrey_config_last_reload_success_timestamp_seconds": (),
        "hybridgrey_config_reload_ok": (),
        "hybridgrey_enforced": (),
        "hybridgrey_greylist": ("state",),
        "hybridgrey_greylist_delay_seconds": (),
        "hybridgrey_list_answers": ("list", "result"),
        "hybridgrey_list_health": ("list", "state"),
        "hybridgrey_list_latency_seconds": ("list",),
        "hybridgrey_list_rejects": ("list", "sole"),
        "hybridgrey_list_suspended": ("list",),
        "hybridgrey_lists_healthy": (),
        "hybridgrey_no_list_works": (),
        "hybridgrey_outcomes": ("enforced", "outcome", "rule"),
        "hybridgrey_reasons": (),  # shown as they are counted
        "hybridgrey_rcpt_wait_seconds": (),
        "hybridgrey_pool_networks": (),
        "hybridgrey_pools": (),
        "hybridgrey_pools_failing": (),
        "hybridgrey_pools_oldest_time_seconds": (),
        "hybridgrey_pools_unknown": (),
        "hybridgrey_records_lost": (),
        "hybridgrey_scan_failures": (),
        "hybridgrey_scan_seconds": (),
        "hybridgrey_scanned_early": (),  # as they are counted
        "hybridgrey_scanner_failing_since_timestamp_seconds": (),
        "hybridgrey_scanner_left_alone": (),
        "hybridgrey_scanner_up": (),
        "hybridgrey_scanner_wanted": (),
        "hybridgrey_sessions": (),
        "hybridgrey_sessions_open": (),
        "hybridgrey_start_time_seconds": (),
        "hybridgrey_kept_verdicts": (),
        "hybridgrey_kept_verdicts_bytes": (),
        "hybridgrey_kept_verdicts_dropped": (),
        "hybridgrey_store_failures": (),
        "hybridgrey_store_keys": (),
        "hybridgrey_store_memory_bytes": (),
        "hybridgrey_store_memory_max_bytes": (),
        "hybridgrey_store_seconds": (),
        "hybridgrey_store_up": (),
        "hybridgrey_verdicts": ("action", "enforced", "rule"),
        "hybridgrey_workers": (),
        "hybridgrey_workers_wanted": (),
    }


# What a session tells

BL = b"\x7f\0\0\2"
OTHER = b"\x7f\0\0\x63"
BLOCK = ("bl.test=127.0.0.2", "two.test", "less.test*-1")


@dataclass
class Looked:
    """A look-up that is closed."""

    answers: dict[str, Answer]
    heard: tuple[()] = ()


LEAVING = [
    # what each list said when the client left, rejected recipients; then rejects by (list, sole) and claims
    ({"bl.test": [BL], "two.test": []}, 2, {("bl.test", "true"): 2}, 0),
    ({"bl.test": [BL], "two.test": [BL]}, 1, {("bl.test", "false"): 1, ("two.test", "false"): 1}, 0),
    ({"bl.test": [OTHER], "two.test": [BL]}, 1, {("two.test", "true"): 1}, 0),
    ({"bl.test": [OTHER, BL]}, 1, {("bl.test", "true"): 1}, 0),
    ({"bl.test": [BL], "two.test": "SERVFAIL"}, 1, {("bl.test", "true"): 1}, 0),
    ({"bl.test": [BL], "wl.test": [BL]}, 2, {("bl.test", "true"): 2}, 3),
    ({"bl.test": [BL], "try.test": [BL], "less.test": [BL]}, 1, {("bl.test", "true"): 1}, 0),
    ({"try.test": [BL], "wl.test": [BL]}, 0, {}, 3),
    ({"bl.test": [BL]}, 0, {}, 0),
    ({"bl.test": [], "wl.test": [BL]}, 0, {}, 0),
]


@pytest.mark.parametrize(("said", "refused", "rejects", "claims"), LEAVING)
def test_lists_of_a_client_that_leaves(
    said: dict[str, list[bytes] | str], refused: int, rejects: dict[tuple[str, str], int], claims: int
) -> None:
    """Rejects are shared out among the blocklists that have the client in the end, late answers included."""
    policy = [
        Rule("try", Action.NONE, lists=(ListEntry.parse("try.test"),)),
        Rule("block", Action.REJECT, lists=tuple(map(ListEntry.parse, BLOCK))),
        Rule("allow", Action.ACCEPT, lists=(ListEntry.parse("wl.test"),)),
    ]
    lists = zones.build(policy, {})
    shared = Shared.create(
        [(rule.name, rule.action.value) for rule in policy], [(z.name, z.label) for z in lists]
    )
    client = Client(ClientReader().read("192.0.2.1"), None, Facts(0, 0))
    answers = {
        name: Answer(error=one) if isinstance(one, str) else Answer(tuple(one)) for name, one in said.items()
    }
    client.lookup = Looked(answers)  # type: ignore[assignment]
    counts = Counts(shared.meter(shared.counters.lease()), policy, lists)
    for number in range(3):
        rejected = Verdict(policy[1], (Hit("bl.test", (BL,), 1),)) if number < refused else Verdict(None)
        decision = Decision(rejected)
        counts.decided(client, decision, decision.outcome, reason_of(decision))
    counts.left(client)
    found = samples(shared)
    assert {
        (label, sole): value
        for label in said
        for sole in ("true", "false")
        if (value := found[f"hybridgrey_list_rejects_total{{list={label},sole={sole}}}"])
    } == rejects
    assert found["hybridgrey_claimed_by_both_total{}"] == claims
