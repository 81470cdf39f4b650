"""Dashboard and alerts of contrib/, on a real Prometheus that reads two real daemons under real mail."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hybridgrey.metrics import series
from parts import grafana
from parts.base import LOOPBACK, free_port, wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.prometheus import JOB, SCRAPE_LABELS, Prometheus, Series, reads
from parts.redisserver import Redis
from parts.spamd import ScriptedSpamd

CONTRIB = Path(__file__).parents[2] / "contrib"
DASHBOARD = CONTRIB / "grafana" / "hybridgrey.json"
ALERTS = CONTRIB / "prometheus" / "hybridgrey.rules.yml"
RULE_TESTS = ("hybridgrey.rules.test.yml", "hybridgrey.days.test.yml")
NAMES = re.findall(r"^ +- alert: (\w+)$", ALERTS.read_text(), re.MULTILINE)

SETTINGS = {
    "dns": {"timeout": "500ms"},
    "greylist": {"delay": "1s", "auto_allow_after": 1},
    "rule": [
        {"name": "local", "clients": ["127.0.0.0/8"], "action": "accept"},
        {"name": "trial", "dns": ["trial.test"], "action": "none"},
        {"name": "blocklists", "dns": ["bl.test", "sick.test", "world.test"], "action": "reject"},
        {"name": "allowlists", "dns": ["wl.test"], "action": "accept"},
        {"name": "full", "recipients": ["full@example.test"], "action": "tempfail"},
        {"name": "the rest", "action": "greylist"},
    ],
}

SCORED = [
    {"name": "spam", "recipients": ["scored@example.test"], "score": ">=4", "action": "greylist"},
    {"name": "not spam", "recipients": ["scored@example.test"], "action": "accept"},
]

ZONES = {
    "bl.test": {"listed": {"192.0.2.1": "127.0.0.2"}},
    "wl.test": {"listed": {"198.51.100.1": "127.0.0.2"}, "delay": 0.02},
    "trial.test": {"listed": {"203.0.113.1": "127.0.0.2"}},
    "sick.test": {"rcode": "SERVFAIL"},
    "world.test": {"everything": "127.0.0.2"},
}

# How Grafana names what is in a label, for the panels that say who is who, with what the mail here must show.
SHOWN = {
    "Recipients by outcome/A": {"accept", "reject", "delay", "tempfail"},
    "Recipients by rule/A": {
        "local (accept)",
        "blocklists (reject)",
        "allowlists (accept)",
        "full (tempfail)",
        "the rest (greylist)",
    },
    "Judged and enforced, or only observed/A": {"enforced: true", "enforced: false"},
    "Rules on trial/A": {"trial"},
    "Hits/A": {"bl.test", "wl.test", "trial.test"},
    "Share of clients listed/A": {"bl.test", "wl.test", "trial.test"},
    "Failed answers/A": {"sick.test (error)"},
    "Rejects by list/A": {"bl.test"},
    "Rejects that only this list caught/A": {"bl.test"},
    "Look-ups by state/A": {"new", "passed", "known"},
}


class World(NamedTuple):
    """What the tests look at; `hosts` are the daemons with their metrics' addresses."""

    prometheus: Prometheus
    hosts: dict[str, Daemon]


def attempt(daemon: Daemon, client: str, sender: str, recipient: str = "<b@example.test>") -> None:
    """One recipient."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("unknown", client)
        peer.helo("mail.example.org")
        peer.mail(f"<{sender}>")
        peer.rcpt(recipient)
        if "scored" in recipient:
            peer.content({"Subject": "x"})


def mail(hosts: dict[str, Daemon], ended: threading.Event) -> None:
    """All kinds of clients, again and again; new ones, each of its own network, come back after the delay."""
    count, waiting = 0, []
    while not ended.wait(0.3):
        count += 1
        for daemon in hosts.values():
            for client in ("127.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1"):
                attempt(daemon, client, "a@example.org")
            attempt(daemon, "203.0.113.2", "a@example.org", "<full@example.test>")
            attempt(daemon, "172.16.0.1", "a@example.org", "<scored@example.test>")
        one, *_ = hosts.values()
        waiting.append((f"10.{count >> 8 & 255}.{count & 255}.1", f"{'abcdefgh'[count % 8]}@example.org"))
        attempt(one, *waiting[-1])
        if len(waiting) > 4:
            attempt(one, *waiting.pop(0))


@contextlib.contextmanager
def under_mail(hosts: dict[str, Daemon]) -> Iterator[None]:
    """Mail comes as long as this lasts, and none of it is an error."""
    ended, errors = threading.Event(), []

    def run() -> None:
        try:
            mail(hosts, ended)
        except BaseException as error:  # told by the main thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)
    assert errors == []


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Two hosts on one Redis, the second one in observe mode; the store has failed once."""
    with FakeDns() as dns, Redis() as redis, ScriptedSpamd(5.0) as spamd, contextlib.ExitStack() as stack:
        # Answers that the cache has are not counted, so they last but a second.
        for name, behaviour in ZONES.items():
            dns.zone(name, ttl=1, negative_ttl=1, **behaviour)
        hosts = {}
        for mode in ("enforce", "observe"):
            address = f"{LOOPBACK}:{free_port()}"
            table = {"mode": mode, "store": {"url": redis.url}, "metrics": {"listen": address}}
            own = {**SETTINGS, **table, "dns": {"nameservers": [dns.address], "timeout": "500ms"}}
            own |= {"content": {"scanner": spamd.spec}, "rule": [*SCORED, *SETTINGS["rule"]]}
            hosts[address] = stack.enter_context(Daemon(own))
        prometheus = stack.enter_context(Prometheus(list(hosts), ALERTS))
        with under_mail(hosts):
            wait_until(lambda: value(prometheus, "hybridgrey_store_seconds_count") > 0, "mail is seen", 30)
            redis.stop()
            wait_until(lambda: value(prometheus, "hybridgrey_store_failures_total") > 0, "failures", 30)
            redis.start()
            new = 'rate(hybridgrey_greylist_total{state="passed"}[10s])'
            wait_until(lambda: value(prometheus, new) > 0, "mail that came back is seen", 60)
            yield World(prometheus, hosts)


def value(prometheus: Prometheus, expression: str) -> float:
    """The sum of the last values."""
    return sum(one.last for one in prometheus.query(expression, 2))


def ask(world: World, query: str, host: str = ".*") -> list[Series]:
    """A query of the dashboard's, as Grafana sends it."""
    return world.prometheus.query(query.replace("$__rate_interval", "20s").replace("$host", host))


def exported(hosts: dict[str, Daemon]) -> dict[str, set[str]]:
    """Each sample that the daemons export, with its labels as Prometheus keeps it."""
    found: dict[str, set[str]] = {"up": set(SCRAPE_LABELS)}
    for address in hosts:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set(SCRAPE_LABELS)).update(sample.labels)
    return found


# What a label's condition may ask for, where the values are ours and not the configuration's.
VALUES = {
    "action": series.ACTIONS,
    "result": series.RESULTS,
    "state": series.STATES + series.HEALTH,
    "outcome": series.OUTCOMES,
    "sole": ("true", "false"),
    "enforced": ("true", "false"),
    "job": (JOB,),
}


def unknown(expression: str, known: dict[str, set[str]]) -> list[str]:
    """What a query names and no daemon exports."""
    found = reads(expression.replace("$__rate_interval", "1m"))
    wrong = []
    for metric, conditions in found.metrics:
        if metric not in known:
            wrong.append(metric)
            continue
        wrong += [f"{metric}{{{label}}}" for label in conditions if label not in known[metric]]
        for label, asked in conditions.items():
            wrong += [f"{label}={one}" for one in asked.split("|") if one not in VALUES.get(label, (one,))]
    for labels, metrics in found.groupings:
        there = set().union(*(known.get(metric, set()) for metric in metrics))
        wrong += [f"by {label}" for label in labels - there]
    return wrong


BOARD = grafana.load(DASHBOARD)
QUERIES = dict(BOARD.queries())


def test_dashboard_is_grafanas() -> None:
    """Grafana's own schema knows every field, but for what it leaves to the plugin of the data source."""
    of_plugin = re.compile(
        r"\.annotations\.list\[\d+\]\.(builtIn|step|titleFormat|textFormat|tagKeys|useValueForTime)"
    )
    assert [place for place in grafana.unknown_to_grafana(DASHBOARD) if not of_plugin.fullmatch(place)] == []


def test_dashboard_is_laid_out_well() -> None:
    """Panels have numbers of their own, share no place, and every one but a row asks something."""
    assert len(QUERIES) == sum(len(panel.targets) for panel in BOARD.panels) + 3
    assert len({panel.id for panel in BOARD.panels}) == len(BOARD.panels)
    for one, other in combinations([panel.place for panel in BOARD.panels], 2):
        apart = one.x + one.w <= other.x or other.x + other.w <= one.x
        assert apart or one.y + one.h <= other.y or other.y + other.h <= one.y
    for panel in BOARD.panels:
        assert panel.place.x + panel.place.w <= 24
        assert bool(panel.targets) == (panel.type != "row")
        assert panel.type == "row" or (panel.description and panel.datasource)
        assert len({target.ref for target in panel.targets}) == len(panel.targets)


def test_dashboard_is_for_any_grafana() -> None:
    """The data source and the hosts are chosen at the top; each query heeds the choice of hosts."""
    chosen = {variable.name: variable for variable in BOARD.templating.list}
    assert chosen["datasource"].query == "prometheus"
    assert chosen["host"].multi
    assert chosen["host"].include_all
    assert [where for where, query in QUERIES.items() if query.count("{") != query.count('=~"$host"')] == []


@pytest.mark.parametrize("where", [one for one in QUERIES if not one.startswith("Time to a score/")])
def test_query_has_data(world: World, where: str) -> None:
    """Every query gives numbers; the times of scans apart, for here nothing is scanned."""
    wait_until(lambda: ask(world, QUERIES[where]), f"data for {where}", 30)


@pytest.mark.parametrize("where", SHOWN)
def test_query_tells_what_happened(world: World, where: str) -> None:
    """What the mail of the test did is there under its names, above zero."""
    title, ref = where.split("/")
    (panel,) = [panel for panel in BOARD.panels if panel.title == title]
    (legend,) = [target.legend for target in panel.targets if target.ref == ref]

    def seen() -> set[str]:
        lines = [one for one in ask(world, QUERIES[where]) if one.last > 0]
        return {re.sub(r"{{(\w+)}}", r"{\1}", legend).format(**one.labels) for one in lines}

    wait_until(lambda: seen() >= SHOWN[where], f"{SHOWN[where]} in {title}", 60)


def test_a_query_heeds_the_chosen_host(world: World) -> None:
    """With one host chosen the others' numbers are left out."""
    one, other = world.hosts
    query = QUERIES["Judged and enforced, or only observed/A"]
    for host, enforced in ((one, "true"), (other, "false")):
        assert {line.labels["enforced"] for line in ask(world, query, re.escape(host).replace("\\", ""))} == {
            enforced
        }
    assert ask(world, query, "elsewhere") == []
    hosts = world.prometheus.api("label/instance/values", **{"match[]": "hybridgrey_workers"})
    assert set(hosts) == {one, other}  # what the variable asks for


def test_health_is_a_number_for_each_list(world: World) -> None:
    """The timeline's numbers are those of its legend: healthy, silent, suspended."""
    (panel,) = [panel for panel in BOARD.panels if panel.title == "Health"]
    (names,) = [one["options"] for one in panel.field_config["defaults"]["mappings"]]

    def said() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for line in ask(world, QUERIES["Health/A"]):
            found.setdefault(line.labels["list"], set()).add(names[f"{line.last:g}"]["text"])
        return found

    wanted = {"bl.test": {"healthy"}, "sick.test": {"silent"}, "world.test": {"suspended"}}
    wait_until(lambda: said().items() >= wanted.items(), f"{wanted}", 60)


def test_start_is_marked_where_it_was(world: World) -> None:
    """The mark of a start is a time in ms, the same as long as the daemon lives."""
    for line in ask(world, QUERIES["mark Start"]):
        assert len(set(line.values)) == 1
        now = value(world.prometheus, "time()") * 1000
        assert now - 600_000 < line.last < now


def test_no_query_names_what_is_not_exported(world: World) -> None:
    """Dashboard and alerts name only metrics, labels and values that the daemons export."""
    known = exported(world.hosts)
    alerts = {name: rule["query"] for name, rule in world.prometheus.rules().items()}
    wrong = {where: unknown(query, known) for where, query in (QUERIES | alerts).items()}
    assert {where: names for where, names in wrong.items() if names} == {}


def test_what_is_not_exported_is_found(world: World) -> None:
    """The check above sees a wrong name wherever it stands."""
    known = exported(world.hosts)
    assert unknown("rate(hybridgrey_gone_total[1m])", known) == ["hybridgrey_gone_total"]
    assert unknown('sum(hybridgrey_workers{lists="a"})', known) == ["hybridgrey_workers{lists}"]
    assert unknown('hybridgrey_greylist_total{state=~"new|old"}', known) == ["state=old"]
    assert unknown("sum by (rules) (rate(hybridgrey_verdicts_total[1m]))", known) == ["by rules"]
    assert unknown("up / on (host) hybridgrey_workers", known) == ["by host", "by host"]
    assert unknown("time() - (up - absent(up))", known) == []


def test_every_metric_is_shown(world: World) -> None:
    """No family that the daemons export is missing on the dashboard."""
    read = {
        metric
        for query in QUERIES.values()
        for metric, _ in reads(query.replace("$__rate_interval", "1m")).metrics
    }
    shown = {re.sub(r"_(bucket|sum|count|total)$", "", metric) for metric in read}
    there = {re.sub(r"_(bucket|sum|count|total)$", "", metric) for metric in exported(world.hosts)}
    assert there - shown == set()


def test_alerts_are_evaluated(world: World) -> None:
    """Prometheus loads all rules and evaluates each without an error."""
    assert len(NAMES) > 10

    def done() -> bool:
        rules = world.prometheus.rules()
        return set(rules) == set(NAMES) and all(rule["health"] != "unknown" for rule in rules.values())

    wait_until(done, "the rules are evaluated", 30)
    rules = world.prometheus.rules()
    assert {name: rule.get("lastError", "") for name, rule in rules.items() if rule["health"] != "ok"} == {}
    for rule in rules.values():
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["labels"]["severity"] in ("critical", "warning")


def active(world: World, name: str) -> list[dict]:
    """The hosts for which an alert is pending or fires."""
    return [one for one in world.prometheus.rules()[name]["alerts"] if one["state"] in ("pending", "firing")]


def test_a_failed_reload_is_an_alert(world: World) -> None:
    """It is one until the configuration is mended; its text names the host."""
    address, daemon = next(iter(world.hosts.items()))
    assert active(world, "HybridgreyReloadFailed") == []
    good = daemon.config.read_text()
    daemon.config.write_text(good + "\nnonsense\n")
    daemon.reload()
    wait_until(lambda: active(world, "HybridgreyReloadFailed"), "the alert", 30)
    (alert,) = active(world, "HybridgreyReloadFailed")
    assert alert["labels"]["instance"] == address
    assert alert["annotations"]["summary"] == f"hybridgrey on {address} could not take its new configuration"
    daemon.config.write_text(good)
    daemon.reload()
    wait_until(lambda: not active(world, "HybridgreyReloadFailed"), "the alert ends", 30)


def test_a_list_of_the_world_is_an_alert(world: World) -> None:
    """The suspended lists of both hosts are pending alerts."""

    def suspended() -> set[tuple[str, str]]:
        found = active(world, "HybridgreyListSuspended")
        return {(one["labels"]["instance"], one["labels"]["list"]) for one in found}

    wait_until(lambda: suspended() >= {(host, "world.test") for host in world.hosts}, "the alerts", 30)


def test_alerts_of_a_dead_daemon() -> None:
    """One that has ended is down; a port that something else serves has no metrics."""
    with FakeDns() as dns, Redis() as redis:
        address = f"{LOOPBACK}:{free_port()}"
        table = {"store": {"url": redis.url}, "metrics": {"listen": address}}
        with (
            Daemon({**SETTINGS, **table, "dns": {"nameservers": [dns.address]}}) as daemon,
            Prometheus([address], ALERTS) as prometheus,
            Prometheus([f"{LOOPBACK}:{prometheus.port}"], ALERTS) as other,
        ):
            dead, strange = World(prometheus, {address: daemon}), World(other, {})
            wait_until(lambda: active(strange, "HybridgreyMetricsMissing"), "no metrics of ours", 30)
            wait_until(lambda: value(prometheus, "up") == 1, "the daemon is seen", 30)
            wait_until(lambda: not active(dead, "HybridgreyMetricsMissing"), "its metrics are seen", 30)
            assert active(dead, "HybridgreyDown") == []
            daemon.stop()
            wait_until(lambda: active(dead, "HybridgreyDown"), "the daemon is down", 30)
            for alert in (*active(dead, "HybridgreyDown"), *active(strange, "HybridgreyMetricsMissing")):
                assert all("<" not in text for text in alert["annotations"].values())  # a failed template


def promtool(*words: str | Path, folder: Path = ALERTS.parent) -> subprocess.CompletedProcess[str]:
    """Prometheus's own checks."""
    return subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, timeout=100)


def test_promtool_accepts_the_files() -> None:
    """The alerts and the sample of a prometheus.yml are valid."""
    for words in (("check", "rules", ALERTS.name), ("check", "config", "prometheus.yml")):
        done = promtool(*words)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_promtool_has_nothing_to_say_of_the_metrics(world: World) -> None:
    """Names, units, types and help are as Prometheus's conventions want them, of a daemon with mail."""
    for address in world.hosts:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            text = answer.read()
        assert b"hybridgrey_store_up" in text
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=100)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_an_alert_needs_is_there(world: World) -> None:
    """Mode, lists, store, configuration: each is a number, also while nothing happens, for each host."""
    names = (
        "hybridgrey_enforced",
        "hybridgrey_lists_healthy",
        "hybridgrey_no_list_works",
        "hybridgrey_store_up",
        "hybridgrey_store_keys",
        "hybridgrey_config_last_reload_success_timestamp_seconds",
        "hybridgrey_config_reload_ok",
    )
    for name in names:
        wait_until(
            lambda name=name: (
                {one.labels["instance"] for one in world.prometheus.query(name, 2)} == set(world.hosts)
            ),
            name,
            30,
        )
    enforced = {one.labels["instance"]: one.last for one in world.prometheus.query("hybridgrey_enforced", 2)}
    assert list(map(enforced.get, world.hosts)) == [1, 0]


def test_alerts_fire_when_they_must() -> None:
    """The cases for the alerts hold."""
    done = promtool("test", "rules", *RULE_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_cases_cover_each_alert(tmp_path: Path, name: str, always: bool) -> None:
    """An alert that never fires, and one that always does, breaks a case."""
    (cases,) = [file for file in RULE_TESTS if name in (ALERTS.parent / file).read_text()]
    shutil.copy(ALERTS.parent / cases, tmp_path)
    head, rest = re.split(rf"(?<=- alert: {name}\n)", ALERTS.read_text())
    changed = re.sub(
        r" +expr:.*?(?=\n +(for|labels):)",
        f"        expr: {'vector(1) > 0' if always else 'vector(0) > 0'}",
        rest,
        count=1,
        flags=re.DOTALL,
    )
    assert changed != rest
    (tmp_path / ALERTS.name).write_text(head + changed)
    done = promtool("test", "rules", cases, folder=tmp_path)
    assert "FAILED" in done.stdout + done.stderr
    assert "unmarshal" not in done.stdout + done.stderr
