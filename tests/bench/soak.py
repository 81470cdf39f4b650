"""Long load: resident memory and descriptors of each process stay where they were."""

from __future__ import annotations

from typing import Any

from bench import accounts, rig, tables

DECISIONS = 2_000_000
STEPS = 20


def run(report: tables.Report, *, full: bool) -> None:
    """The table; without `full` a twentieth of the decisions."""
    count = DECISIONS if full else DECISIONS // 20
    rows: list[dict[str, Any]] = []
    with rig.stage({"workers": 2}) as stage:
        done = 0
        while done < count:
            figures = stage.measure(count=count // STEPS, seconds=600.0)
            done += count // STEPS
            rows.append({"decisions": f"{done:,}", **_sizes(stage), "workers µs": figures["workers µs"]})
            report.note(f"{done:,} of {count:,}")
    report.table("Soak: resident MiB and descriptors, two workers, every client new", rows)


def _sizes(stage: rig.Stage) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for number, pid in enumerate(sorted(stage.daemon.own())):
        name = f"{accounts.name(pid).removeprefix('hg-')} {number}"
        sizes[f"{name} MiB"] = accounts.memory(pid)["rss"] / 1024
        sizes[f"{name} files"] = accounts.descriptors(pid)
    return sizes
