"""Mail logs as commands read them: the lines that may tell something, each with its time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from hybridgrey.cli.logfiles import is_regular, last_change, lines_of
from hybridgrey.cli.output import fail
from hybridgrey.report import logtime
from hybridgrey.report.logtime import Clock


def dated(
    file: str, wanted: re.Pattern[bytes], told: Callable[[int], None] | None = None
) -> Iterator[tuple[bytes, float]]:
    """The lines of a log that have what is wanted, without their time, and when that was; Unix seconds.

    Ends with a line about what cannot be read. `told` as in `lines_of`.
    """
    clock = Clock(last_change(file), _years_back(file, wanted))
    with lines_of(file, told) as lines:
        yield from _dated(lines, wanted, clock)
    if clock.excess:
        fail(f"{file}: a log of more than a year without years in it must be given by its name")


def _years_back(file: str, wanted: re.Pattern[bytes]) -> int:
    """By how many years a log without years would be taken too late; it has to be read to know."""
    years = 0
    while is_regular(file):
        clock = Clock(last_change(file), years)
        with lines_of(file) as lines:
            for _ in _dated(lines, wanted, clock):
                pass
        if not clock.excess:
            break
        years += clock.excess
    return years


def _dated(lines: Iterator[bytes], wanted: re.Pattern[bytes], clock: Clock) -> Iterator[tuple[bytes, float]]:
    for line in lines:
        if wanted.search(line) is None:
            continue
        line = logtime.unpacked(line)
        moment, start = clock.read(line)
        if moment is not None:
            yield line[start:], moment + logtime.second(line, start)
