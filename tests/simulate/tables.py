"""What was measured, as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from simulate.assumptions import Known
from simulate.measure import Row

HEAD: Final = (
    "",
    "legitimate mail delayed",
    "median",
    "p95",
    "over 10 min",
    "lost",
    "login codes over 10 min",
    "spam let in",
)
NUMBERS_HEAD: Final = ("name", "what", "value", "range", "source")
SWEEP_HEAD: Final = ("number", "value", "delayed, of plain", "codes over 10 min", "spam, of plain + lists")


class Targets(NamedTuple):
    """How our defaults stand against greylisting alone; each is to be at most its limit."""

    delayed: float
    """Share of legitimate mail that is delayed, as part of plain greylisting's."""
    codes: float
    """Share of login codes that take over ten minutes."""
    spam: float
    """Spam let in, as part of what plain greylisting and blocklists let in."""


_TARGETS: Final = (
    "legitimate mail delayed, as part of plain greylisting's",
    "login codes that take over 10 minutes",
    "spam let in, as part of that by plain greylisting with blocklists",
)
LIMITS: Final = Targets(0.10, 0.01, 1.05)


def targets(ours: Row, plain: Row, listed: Row) -> Targets:
    """The targets as they were measured."""
    return Targets(
        ours.delayed / plain.delayed if plain.delayed else 0.0,
        ours.codes_long,
        ours.let_in / listed.let_in if listed.let_in else 0.0,
    )


class Swept(NamedTuple):
    """A number of the world at an end of its range, and what our defaults do then."""

    known: Known
    value: float
    targets: Targets


def compared(rows: Sequence[Row]) -> list[list[str]]:
    """The cells of a table of variants."""
    return [list(map(str, _cells(one))) for one in rows]


def _cells(one: Row) -> Iterator[str]:
    yield one.variant
    yield share(one.delayed)
    yield span(one.median)
    yield span(one.p95)
    yield share(one.long)
    yield share(one.lost)
    yield share(one.codes_long)
    yield f"{one.let_in} of {one.spam}"


def swept(some: Sequence[Swept]) -> list[list[str]]:
    """The cells of the sweep, what changes most first."""
    return [
        [one.known.what, f"{one.value:g}" if one.known.name else "", *_ratios(one.targets)] for one in some
    ]


def _ratios(some: Targets) -> list[str]:
    return [f"{some.delayed:.3f}", share(some.codes), f"{some.spam:.3f}"]


def judged(some: Targets) -> str:
    """The targets in words."""
    return "\n".join(
        f"{name}: {value:.3f}, at most {limit:g} is wanted: {'reached' if value <= limit else 'NOT REACHED'}"
        for name, value, limit in zip(_TARGETS, some, LIMITS, strict=True)
    )


def numbers(known: Sequence[Known]) -> list[list[str]]:
    """The cells of the table of all numbers."""
    return [
        [k.name, k.what, f"{k.value:g}", f"{k.low:g} to {k.high:g}", k.source or "assumption"] for k in known
    ]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a page."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    return "\n".join(_line(line, widths) for line in (head, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def share(value: float) -> str:
    """In percent."""
    return f"{100 * value:.1f} %"


def span(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
