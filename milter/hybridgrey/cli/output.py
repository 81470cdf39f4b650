"""What the commands print: tables and colours on a terminal, plain and stable text when piped.

Errors are one line on stderr: what, where, what to do.  Text of others (a sender, a list's words) is made
printable first.  NO_COLOR is obeyed: by `rich` itself, and by click through the group.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TextIO

import click

from hybridgrey.cleaning import clean
from hybridgrey.config import durations

COLOURS = {
    **dict.fromkeys(("accept", "passed", "known", "allowed", "network", "healthy", "ok", "matches"), "green"),
    **dict.fromkeys(("reject", "suspended", "down", "not well"), "red"),
    **dict.fromkeys(
        ("greylist", "tempfail", "waiting", "new", "early", "full", "warning", "silent"), "yellow"
    ),
}


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody watches."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(word: str, width: int = 0) -> str:
    """A word of state or action in its colour, padded; click takes the colour away where nobody sees it."""
    return click.style(f"{word:<{width}}", fg=COLOURS.get(word))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: drawn on a terminal, else columns parted by two spaces or more, under a head."""
    texts = [[clean("" if cell is None else str(cell)) for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        _drawn(head, texts)
        return
    lines = [[word.upper() for word in head], *([cell or "-" for cell in row] for row in texts)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _drawn(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console(highlight=False).print(drawn)


def title(text: str) -> None:
    """Print the heading of a section."""
    click.echo()
    click.secho(text, bold=True)


def as_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def json_line(value: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    click.echo(json.dumps(value, separators=(",", ":")))


def several(number: int, one: str, many: str = "") -> str:
    """A number and its noun: "1 entry", "1,200 entries"; `many` is `one` with an s unless given."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def span(seconds: float | None) -> str:
    """A time span in its two largest units: ``3d4h``."""
    if seconds is None:
        return ""
    whole = int(seconds)
    for unit, less in ((86400, 3600), (3600, 60)):
        if whole >= unit:
            return durations.show(whole - whole % less)
    return durations.show(whole)


def milliseconds(seconds: float | None) -> str:
    """A latency: ``12 ms``."""
    return "" if seconds is None else f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.secho(f"warning: {text}", fg="yellow", err=True)


def fail(text: str, status: int = 1) -> NoReturn:
    """Print what went wrong and what to do, one line on stderr, and end."""
    click.secho(f"hybridgrey: {' '.join(text.split())}", fg="red", err=True)
    raise SystemExit(status)
