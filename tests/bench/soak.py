"""Long load: resident memory and descriptors of each process stay where they were."""

from __future__ import annotations

from typing import Any

from bench import accounts, rig, tables

DECISIONS = 2_000_000
MOST_ROWS = 20
STEP = 20_000


def run(report: tables.Report, *, full: bool) -> None:
    """The table; without `full` a twentieth of the decisions, and a row for each step."""
    count, step = (DECISIONS, STEP) if full else (DECISIONS // 20, STEP // 4)
    rows: list[dict[str, Any]] = []
    with rig.stage({"workers": 2}) as stage:
        done = 0
        while done < count:
            figures = stage.measure(count=step, seconds=250.0)
            done += step
            rows.append({"decisions": f"{done:,}", **_sizes(stage), "workers µs": figures["workers µs"]})
    report.table(
        "Soak: resident MiB and descriptors, two workers, every client new",
        rows[:: max(1, len(rows) // MOST_ROWS)],
        raw=rows,
    )


def _sizes(stage: rig.Stage) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for number, pid in enumerate(sorted(stage.daemon.own())):
        name = f"{accounts.name(pid).removeprefix('hg-')} {number}"
        sizes[f"{name} MiB"] = accounts.memory(pid)["rss"] / 1024
        sizes[f"{name} files"] = accounts.descriptors(pid)
    return sizes
