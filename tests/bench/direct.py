"""Decisions over the milter protocol, without an MTA: cost, speed and waits, beside a milter of no work.

Rounds are interleaved: each measures every setting once, floor and daemon in turn, so that what else the
machine does meanwhile falls on all alike; tables have the medians of the rounds.
"""

from __future__ import annotations

from typing import Any

from bench import accounts, rig, tables
from bench.floor import Floor

POOL = 2000


def floor_row(floor: Floor, cpus: list[int], **options: rig.Option) -> dict[str, Any]:
    """A measurement of the floor, in the daemon's columns."""
    meter = accounts.Meter({"workers": lambda: [floor.pid], "store": list, "rest": list})
    figures = rig.load(floor.address, cpus, **options)
    return rig.row(figures, meter.usage(figures["load_cpu"]))


def run(report: tables.Report, *, full: bool) -> None:
    """All tables."""
    rounds, seconds = (5, 8.0) if full else (3, 2.5)
    with rig.stage() as stage, Floor(accounts.cores()[0]) as floor:
        _warm(stage)
        _cost(report, stage, floor, rounds, seconds)
        _concurrency(report, stage, floor, rounds if full else 1, seconds)
        _rates(report, stage, rounds if full else 1, seconds)


def _warm(stage: rig.Stage) -> None:
    """Let the caches know the pool, and the triplets of its unknown clients pass."""
    for _ in range(2):
        _cached(stage, seconds=2.5)


def _cached(stage: rig.Stage, **options: rig.Option) -> dict[str, Any]:
    return stage.measure(first=12_000_000, pool=POOL, **options)


def _cost(report: tables.Report, stage: rig.Stage, floor: Floor, rounds: int, seconds: float) -> None:
    raw: list[dict[str, Any]] = []
    for _ in range(rounds):
        raw.append({"case": "floor", **floor_row(floor, stage.cpus, seconds=seconds)})
        raw.append({"case": "uncached", **stage.measure(seconds=seconds)})
        raw.append({"case": "cached", **_cached(stage, seconds=seconds)})
    rows = tables.medians(raw, "case")
    base = rows[0]["workers µs"]
    for row in rows:
        row["CPU ÷ floor"] = row["workers µs"] / base
        row["with store ÷ floor"] = (row["workers µs"] + row["store µs"]) / base
    report.table(
        f"Direct: one worker, 100 connections, 4 lists, medians of {rounds} rounds",
        rows,
        "floor: raw pymilter that does nothing, same steps, same CPU. uncached: every client new. "
        f"cached: {POOL} clients again and again. Mix block/trusted/unknown 60/15/25. "
        "other load: CPUs that everything else on the machine kept busy.",
        raw=raw,
    )


def _concurrency(report: tables.Report, stage: rig.Stage, floor: Floor, rounds: int, seconds: float) -> None:
    raw: list[dict[str, Any]] = []
    for _ in range(rounds):
        for connections in (1, 10, 100, 500):
            options: dict[str, rig.Option] = {"concurrency": connections, "seconds": seconds}
            raw.append({"case": f"{connections} floor", **floor_row(floor, stage.cpus, **options)})
            raw.append({"case": f"{connections} uncached", **stage.measure(**options)})
            raw.append({"case": f"{connections} cached", **_cached(stage, **options)})
    report.table("Direct: connections at a time, closed loop", tables.medians(raw, "case"), raw=raw)


def _rates(report: tables.Report, stage: rig.Stage, rounds: int, seconds: float) -> None:
    raw: list[dict[str, Any]] = []
    for _ in range(rounds):
        for rate in (100, 500, 1500):
            options: dict[str, rig.Option] = {"rate": rate, "concurrency": 1000, "seconds": seconds}
            raw.append({"case": f"{rate}/s uncached", **stage.measure(**options)})
            raw.append({"case": f"{rate}/s cached", **_cached(stage, **options)})
    report.table("Direct: fixed rate, open loop", tables.medians(raw, "case"), raw=raw)
