"""Decisions over the milter protocol, without an MTA: cost, speed and waits, beside a milter of no work.

Rounds are interleaved: each measures every setting once, floor and daemon in turn, so that what else the
machine does meanwhile falls on all alike; tables have the medians of the rounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bench import accounts, rig, tables
from bench.floor import Floor

POOL = 2000
Measure = Callable[..., dict[str, Any]]
Cases = Mapping[str, Measure]


def floor_row(floor: Floor, cpus: list[int], **options: rig.Option) -> dict[str, Any]:
    """A measurement of the floor, in the daemon's columns."""
    meter = accounts.Meter({"workers": lambda: [floor.pid], "store": list, "rest": list})
    figures = rig.load(floor.address, cpus, **options)
    return rig.row(figures, meter.usage(figures["load_cpu"]))


def run(report: tables.Report, *, full: bool) -> None:
    """All tables."""
    rounds, seconds = (5, 8.0) if full else (3, 2.5)
    with contextlib.ExitStack() as stack:
        cases: dict[str, Measure] = {}
        for kind, engine in rig.ENGINES.items():
            floor = stack.enter_context(Floor(accounts.cores()[0], kind))
            cases[f"floor, {kind}"] = partial(floor_row, floor, rig.helper_cpus(1))
            # A daemon for each: new clients would drive the known ones out of its cache.
            fresh, known = (stack.enter_context(rig.stage({"engine": engine})) for _ in range(2))
            cases[f"uncached, {engine}"] = fresh.measure
            cached = cases[f"cached, {engine}"] = partial(known.measure, first=0, pool=POOL)
            for _ in range(2):
                # Caches learn the pool, and its unknown clients pass.
                cached(count=2 * POOL, seconds=30.0)
        _cost(report, cases, rounds, seconds)
        _concurrency(report, cases, rounds if full else 1, seconds)
        _rates(report, cases, rounds if full else 1, seconds)


def _cost(report: tables.Report, cases: Cases, rounds: int, seconds: float) -> None:
    raw = [
        {"case": name, **measure(seconds=seconds)} for _ in range(rounds) for name, measure in cases.items()
    ]
    rows = tables.medians(raw, "case")
    base = rows[0]["workers µs"]
    for row in rows:
        row["CPU ÷ floor"] = row["workers µs"] / base
        row["with store ÷ floor"] = (row["workers µs"] + row["store µs"]) / base
    report.table(
        f"Direct: one worker, 100 connections, 4 lists, medians of {rounds} rounds",
        rows,
        "floor: a milter that does nothing, same steps, same CPU. uncached: every client new. "
        "CPU ÷ floor: pymilter's. "
        f"cached: {POOL} clients again and again. Mix block/trusted/unknown 60/15/25. "
        "questions: to lists, for each decision. "
        "other load: CPUs that everything else on the machine kept busy.",
        raw=raw,
    )


def _concurrency(report: tables.Report, cases: Cases, rounds: int, seconds: float) -> None:
    raw = [
        {"case": f"{connections} {name}", **measure(concurrency=connections, seconds=seconds)}
        for _ in range(rounds)
        for connections in (1, 10, 100, 500)
        for name, measure in cases.items()
    ]
    report.table("Direct: connections at a time, closed loop", tables.medians(raw, "case"), raw=raw)


def _rates(report: tables.Report, cases: Cases, rounds: int, seconds: float) -> None:
    raw = [
        {"case": f"{rate}/s {name}", **measure(rate=rate, concurrency=1000, seconds=seconds)}
        for _ in range(rounds)
        for rate in (100, 500, 1500)
        for name, measure in cases.items()
    ]
    note = "unfinished: sessions without an answer 10 s after the last began."
    report.table("Direct: fixed rate, open loop", tables.medians(raw, "case"), note, raw=raw)
