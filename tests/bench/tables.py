"""Figures as text tables and as a JSON file: each benchmark gives rows, here they are shown and kept."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def medians(rows: Iterable[Row], by: str) -> list[dict[str, Any]]:
    """One row for each value of column `by`: the medians of its numbers, the last of all else."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[by]].append(row)
    return [{key: _median([row[key] for row in group]) for key in group[0]} for group in groups.values()]


def _median(values: Sequence[Any]) -> Any:
    numbers = [value for value in values if isinstance(value, int | float)]
    return statistics.median(numbers) if len(numbers) == len(values) else values[-1]


def text(rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    if not rows:
        return "(nothing measured)"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


class Report:
    """Prints tables as they come, and keeps all rows in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[str, Any] = {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "tables": {},
        }

    def table(self, title: str, rows: Sequence[Row], *notes: str, raw: Sequence[Row] = ()) -> None:
        """Show a table; `raw` are the single measurements behind it, kept too."""
        print(f"\n## {title}\n\n{text(rows)}")
        for note in notes:
            print(f"\n{note}")
        sys.stdout.flush()
        self._kept["tables"][title] = {"rows": rows, "notes": notes, "raw": raw}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self._kept, indent=1, default=str) + "\n")

    def note(self, line: str) -> None:
        """Say something that is no table."""
        print(f"\n{line}", flush=True)
