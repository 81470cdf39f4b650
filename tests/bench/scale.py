"""How the cost of a decision grows: with triplets, lists, rules, entries and workers; and the start.

Each table's settings stand side by side and are loaded in turn, round by round.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import accounts, fill, population, quota, rig, tables
from parts.base import PartError, wait_until
from parts.daemon import Settings, merged

ENTRIES = 100_000
UNKNOWN = "0,0,100"
SHARE = 0.4
EACH = 50  # connections for each worker


def run(report: tables.Report, *, full: bool) -> None:
    """All tables."""
    rounds, seconds = (5, 6.0) if full else (2, 2.0)
    _triplets(report, [10_000, 1_000_000, *([10_000_000] if full else [])], rounds, seconds)
    _zones(report, (1, 4, 20), rounds, seconds)
    _rules(report, rounds, seconds)
    _workers(report, rounds, seconds)
    _start(report)


def _interleaved(
    stages: Mapping[str, rig.Stage],
    rounds: int,
    seconds: float,
    mix: str = population.SHARES,
    each: int = 0,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Medians of each stage and what they are of; `each`: connections for each worker, 0 for the usual."""
    for stage in stages.values():
        stage.measure(seconds=1.0, mix=mix)
    some = {
        name: {"concurrency": each * len(s.daemon.workers())} if each else {} for name, s in stages.items()
    }
    raw = [
        {"case": name, **stage.measure(seconds=seconds, mix=mix, **some[name])}
        for _ in range(rounds)
        for name, stage in stages.items()
    ]
    rows = tables.medians(raw, "case")
    for row in rows:
        row["CPU ÷ first"] = _cost(row) / _cost(rows[0])
    return rows, raw


def _cost(row: Mapping[str, Any]) -> float:
    return float(row["workers µs"] + row["store µs"])


def _triplets(report: tables.Report, sizes: list[int], rounds: int, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        stages, bytes_each = {}, {}
        for size in sizes:
            name = f"{size:,} triplets"
            stages[name] = stack.enter_context(rig.stage())
            store = stages[name].store
            assert store is not None
            empty = int(fill.information(store.socket, "memory")["used_memory"])
            fill.triplets(store.socket, size)
            used = int(fill.information(store.socket, "memory")["used_memory"])
            bytes_each[name] = (used - empty) / size
        rows, raw = _interleaved(stages, rounds, seconds, mix=UNKNOWN)
        for row in rows:
            row["bytes/triplet"] = bytes_each[row["case"]]
        report.table("Scale: triplets in the store, unknown clients only", rows, raw=raw)


def _zones(report: tables.Report, counts: tuple[int, ...], rounds: int, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        stages = {}
        for count in counts:
            names = [f"z{i}.test" for i in range(count)]
            zones = dict.fromkeys(names, ":127.0.0.2:\n11.0.0.0/8\n")
            rules = [
                {"name": "blocklists", "dns": names, "action": "reject"},
                {"name": "the rest", "action": "greylist"},
            ]
            stages[f"{count} lists"] = stack.enter_context(rig.stage({"rule": rules}, zones=zones))
        rows, raw = _interleaved(stages, rounds, seconds, mix=UNKNOWN)
        for count, row in zip(counts, rows, strict=True):
            row["workers µs/list above 1"] = (
                (row["workers µs"] - rows[0]["workers µs"]) / (count - 1) if count > 1 else 0.0
            )
        report.table("Scale: lists, every client new, unknown clients only", rows, raw=raw)


def _rules(report: tables.Report, rounds: int, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        begun = time.monotonic()
        stages = {"4 rules": stack.enter_context(rig.stage({"rule": population.RULES[1:]}))}
        middle = time.monotonic()
        rules, files = many_rules()
        name = f"{len(rules)} rules, {ENTRIES:,} entries"
        stages[name] = stack.enter_context(rig.stage({"rule": rules}, files=files))
        more = time.monotonic() - middle - (middle - begun)
        rows, raw = _interleaved(stages, rounds, seconds)
        note = f"The start takes {more:.1f} s longer with all these."
        report.table("Scale: rules and manual entries, every client new", rows, note, raw=raw)


def many_rules() -> tuple[list[dict[str, object]], dict[str, str]]:
    """400 rules on clients, senders and recipients, with 100,000 entries in files."""
    rows = [
        *(f"44.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in range(ENTRIES // 2)),
        *(f"45.{i >> 8 & 255}.{i & 255}.0/24" for i in range(ENTRIES // 4)),
        *(f"mail{i}.example.org" for i in range(ENTRIES // 4)),
    ]
    rules: list[dict[str, object]] = [
        *population.RULES[:2],
        {"name": "manual", "clients": ["file:manual"], "action": "accept"},
    ]
    while len(rules) < 397:
        i = len(rules)
        conditions: tuple[dict[str, object], ...] = (
            {"senders": [f".partner{i}.example.org"]},
            {"recipients": [f"desk{i}@example.org"]},
            {"clients": [f"46.{i >> 8}.{i & 255}.0/24"]},
        )
        rules.append({"name": f"rule {i}", "action": "accept", **conditions[i % 3]})
    # Before the lists, where all of them have to be looked at.
    return [*rules, *population.RULES[2:]], {"manual": "\n".join(rows) + "\n"}


def _workers(report: tables.Report, rounds: int, seconds: float) -> None:
    most = len(accounts.cores())
    with contextlib.ExitStack() as stack:
        stages = {f"{n} workers": stack.enter_context(rig.stage({"workers": n})) for n in range(1, most + 1)}
        rows, raw = _interleaved(stages, rounds, seconds)
        report.table(
            "Scale: workers, every client new",
            rows,
            "With as many workers as CPUs, lists, store and load generator take CPU from the workers.",
            raw=raw,
        )
        for one in stages.values():
            one.spread()
            if not stack.enter_context(quota.shares(one.daemon.workers(), SHARE)):
                report.note("Workers with free CPUs: not measured, this machine has no control group to use.")
                return
        rows, raw = _interleaved(stages, rounds, seconds, each=EACH)
        for row in rows:
            row["decisions/s ÷ first"] = row["decisions/s"] / rows[0]["decisions/s"]
        report.table(
            f"Scale: workers of {SHARE:.0%} of a CPU each, every client new",
            rows,
            "Held to a share of a CPU by the kernel, the workers leave the CPUs free for lists, store and "
            f"load generator, which have {most} - {SHARE} x workers CPUs.",
            raw=raw,
        )


def _start(report: tables.Report) -> None:
    """From the start of the process to the log's `ready`, on an embedded store."""
    rows = []
    with rig.lists() as dns:
        for count in (0, 1_000_000):
            with contextlib.ExitStack() as stack:
                daemon = rig.BenchDaemon(rig.settings(dns.address, "embedded:store"), unix=True)
                place: Settings = {"store": {"url": f"embedded:{daemon.directory}/store"}}
                daemon.configure(merged(rig.settings(dns.address, ""), place))
                seconds = [_timed_start(daemon)]
                stack.callback(daemon.close)
                if count:
                    fill.triplets(daemon.directory / "store/store.sock", count)
                for _ in range(3):
                    daemon.stop()
                    daemon.log.unlink()
                    seconds.append(_timed_start(daemon))
                found = fill.information(daemon.directory / "store/store.sock", "keyspace")
                # The history has a few of its own
                if int(found.get("db0", "keys=0").partition("=")[2].partition(",")[0]) < count:
                    raise PartError(f"the store came back with {found}")
                best = sorted(seconds[1:])
                rows.append({"triplets": f"{count:,}", "s to ready, median": best[1], "longest": best[-1]})
    report.table("Start to ready on an embedded store, its file in memory", rows)


def _timed_start(daemon: rig.BenchDaemon) -> float:
    begun = time.monotonic()
    daemon.start()
    seconds = time.monotonic() - begun
    store = Path(daemon.directory / "store/store.sock")
    wait_until(store.exists, "the embedded store")
    return seconds
