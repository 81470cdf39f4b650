"""Micro-benchmarks of the parts of a decision: runs bench_parts.py with pytest-benchmark, shows medians."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import accounts, rig, tables
from parts.base import PartError

MODULE = Path(__file__).with_name("bench_parts.py")


def run(report: tables.Report, *, full: bool) -> None:
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder, "figures.json")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(MODULE)]
        command += [f"--benchmark-max-time={3 if full else 0.5}", f"--benchmark-json={figures}"]
        environment = {**os.environ, "PYTHONPATH": str(rig.TESTS)}
        busy = accounts.machine()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise PartError(done.stdout[-3000:] + done.stderr[-3000:])
        rows = [_row(one) for one in json.loads(figures.read_text())["benchmarks"]]
    report.table(
        "Parts, µs",
        rows,
        f"The machine was busy for {accounts.machine() - busy:.0f} CPU seconds meanwhile, others included.",
    )


def _row(one: dict[str, Any]) -> dict[str, Any]:
    times = one["stats"]
    return {
        "part": one["name"].removeprefix("test_").replace("_", " "),
        "median": times["median"] * 1e6,
        "least": times["min"] * 1e6,
        "rounds": times["rounds"],
    }
