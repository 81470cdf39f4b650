"""The results of the fault suite: .work/faults/results.json and table.md, one row a fault.

A row of the same name and engine replaces the one of an earlier run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[2] / ".work" / "faults"
HEAD = (
    "| fault | engine | s | load, sessions/s | accepted | deferred | refused | wrong rejects "
    "| passed triplets lost | connections refused | sessions cut | RCPT p99, ms (allowed) "
    "| normal again after, s |"
)


def add(row: dict[str, Any], unusual: dict[str, int]) -> None:
    """Put a row into both files."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = DIRECTORY / "results.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    rows[f"{row['fault']}, {row['engine']}"] = row | {"unusual": unusual}
    path.write_text(json.dumps(rows, indent=1) + "\n")
    lines = [HEAD, "|" + " --- |" * HEAD.count(" |"), *map(_line, rows.values())]
    (DIRECTORY / "table.md").write_text("\n".join(lines) + "\n")


def _line(row: dict[str, Any]) -> str:
    keys = (
        "fault",
        "engine",
        "seconds",
        "load",
        "accepted",
        "deferred",
        "refused",
        "wrong",
        "lost",
        "unserved",
        "cut",
    )
    cells = [str(row[key]) for key in keys]
    cells += [f"{row['p99_ms']:.0f} ({row['allowed_ms']:.0f})", str(row["recovery"])]
    return "| " + " | ".join(cells) + " |"
