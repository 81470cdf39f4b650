"""The history's names and places: which series there are, and which key and field holds which count.

A *series* is a row of counts by time.  Its name is text, parts with ":" between, labels escaped:

    outcome:accept|reject|delay|tempfail:enforced|observed    recipients, by what the client got, or would
                                                              have got
    rule:NAME:accept|reject|delay|tempfail|noted              the same by rule; noted: a rule with action none
    list:LABEL:listed|unlisted|error|timeout                  answers of a DNS list
    list_reject:LABEL:sole|shared                             rejected recipients whose client the list had;
                                                              sole: no other blocklist had it
    reason:WORD:accept|reject|delay|tempfail                  recipients by why (outcome.Reason) and what
                                                              they got; hosts of version 0.1 count none
    greylist:new|early|passed|known|network|full              look-ups in the greylist
    delay_le:300|420|…|inf                                    mail that passed, by its delay in seconds: above
                                                              the bound before, at most this (not cumulated)
    delay_within:1|5|15|60|300                                those of delay_le:300, told apart alike
    delay_sum                                                 the sum of these delays
    later:REASON:told|spam:log|scanner        recipients let in early (outcome.LET_IN_EARLY) whose message a
                                              mail log or the scanner tells of, and those whose it calls spam
    claimed_by_both                                           recipients whose client is on a blocklist and
                                                              on an allowlist
    sessions, store_failures                                  SMTP sessions; calls of the store that failed

Each count is kept three times, by minute, hour and day (`Step`), so that nothing has to be rolled up: a
*chapter* is the hash of one host and one hour of minutes, day of hours or month of days.  Times are UTC, Unix
seconds.

Pure.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterator, Mapping
from enum import IntEnum
from math import inf
from time import gmtime, strftime
from typing import Final, NamedTuple
from urllib.parse import unquote

from hybridgrey.metrics import series
from hybridgrey.metrics.series import DELAY_BUCKETS, FAMILIES, Key, Schema
from hybridgrey.outcome import outcome_of

NAMESPACE: Final = "hg1:history:{history}"
"""One hash tag, so that one script may touch all keys in a Redis Cluster; none of the greylist begins so."""

FIRST_DELAY: Final = 300.0
"""The lowest bound of `delay_le`.

Hosts of two versions share one store, and the older ones know no lower bound.  So all hosts count every delay
up to this one under its name, and those that know more say so beside it.
"""
OUTCOMES: Final = series.OUTCOMES
NOTED: Final = "noted"

_UNSAFE = re.compile(r"[%:\x00-\x1f\x7f]")
_UNTAGGED = re.compile(r"[{}]")
_FIELD = re.compile(rb"([0-9]{2}) (.+)", re.DOTALL)


Rows = Mapping[str, Mapping[int, int]]
"""Counts by series, then by the first second of a step."""


class Step(IntEnum):
    """How fine a count is kept; the value is its seconds."""

    MINUTE = 60
    HOUR = 3600
    DAY = 86400


class Layout(NamedTuple):
    """Where a step's counts are: the key's name, the chapter's label, for how many seconds they are kept."""

    name: str
    label: str
    number: int
    """Which part of time.struct_time numbers the step within its chapter."""
    kept: int


LAYOUTS: Final = {
    Step.MINUTE: Layout("minute", "%Y-%m-%dT%H", 4, 3 * 86400),
    Step.HOUR: Layout("hour", "%Y-%m-%d", 3, 100 * 86400),
    Step.DAY: Layout("day", "%Y-%m", 2, 3 * 366 * 86400),
}


class Chapter(NamedTuple):
    """The steps of one hash: its label, and the moment of the step that would have the number 0."""

    step: Step
    label: str
    zero: int

    def key(self, host: str) -> bytes:
        """The key of a host's hash."""
        return key(LAYOUTS[self.step].name, host, self.label)

    def read(self, field: bytes) -> tuple[int, str] | None:
        """Moment and series of a field; None for what is none of ours."""
        match = _FIELD.fullmatch(field)
        if match is None:
            return None
        try:
            return self.zero + int(match[1]) * self.step, match[2].decode()
        except UnicodeDecodeError:
            return None


def chapter(step: Step, moment: float) -> Chapter:
    """The chapter that has a moment in it."""
    layout, at = LAYOUTS[step], gmtime(moment)
    begin = int(moment) // step * step
    return Chapter(step, strftime(layout.label, at), begin - at[layout.number] * step)


def chapters(step: Step, start: float, end: float) -> list[Chapter]:
    """The chapters from `start` to `end`, both included."""
    stride = Step.HOUR if step is Step.MINUTE else Step.DAY
    moments = range(int(start) // stride * stride, int(end) + 1, stride)
    return list(dict.fromkeys(chapter(step, moment) for moment in moments))


def field(step: Step, moment: float, series: str) -> bytes:
    """The field of a count within its chapter."""
    return f"{gmtime(moment)[LAYOUTS[step].number]:02} {series}".encode("utf-8", "surrogatepass")


def key(*names: str) -> bytes:
    """A key of the history."""
    return ":".join((NAMESPACE, *map(escaped, names))).encode("utf-8", "surrogatepass")


def verdict_keys(host: str) -> tuple[bytes, bytes]:
    """The keys of a host's verdicts and of what they take, which may be large: each host has its own tag."""
    name = _UNTAGGED.sub(lambda match: f"%{ord(match[0]):02X}", escaped(host))
    whole = f"hg1:verdicts:{{host={name}}}".encode("utf-8", "surrogatepass")
    return whole, whole + b":size"


def day(moment: float) -> str:
    """A day as keys have it."""
    return strftime("%Y-%m-%d", gmtime(moment))


def days(start: float, end: float) -> list[str]:
    """The days from `start` to `end`, both included."""
    first = timegm((*gmtime(start)[:3], 0, 0, 0))
    return [day(moment) for moment in range(first, int(end) + 1, Step.DAY)]


def escaped(label: str) -> str:
    """A label as part of a name: without ":" and control characters."""
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", label)


def series_name(*labels: str) -> str:
    """The name of a series."""
    return ":".join(map(escaped, labels))


def labels_of(series: str) -> list[str]:
    """The parts of a series' name, as they were; an outcome by its word."""
    parts = [unquote(part) for part in series.split(":")]
    at = {"outcome": 1, "rule": 2, "reason": 2}.get(parts[0])
    if at is not None and at < len(parts) and (known := outcome_of(parts[at])) is not None:
        parts[at] = known
    return parts


def sources(schema: Schema) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Each cell of the counters that the history keeps, with the series it adds to."""
    for (family, labels), index in schema.index.items():
        if family == "greylist_delay_seconds":
            for offset, bound in enumerate((*DELAY_BUCKETS, inf)):
                yield index + offset, _delays(bound)
            yield index + FAMILIES[family].width - 1, ("delay_sum",)
        elif names := tuple(_names((family, labels))):
            yield index, names


def _delays(bound: float) -> tuple[str, ...]:
    whole = f"delay_le:{max(bound, FIRST_DELAY):g}"
    return (whole, f"delay_within:{bound:g}") if bound <= FIRST_DELAY else (whole,)


def _names(at: Key) -> Iterator[str]:
    match at:
        case "outcomes", (rule, outcome, enforced):
            yield series_name("outcome", outcome, "enforced" if enforced == "true" else "observed")
            yield series_name("rule", rule, outcome)
        case "reasons", (reason, outcome):
            yield series_name("reason", reason, outcome)
        case "verdicts", (rule, "none", _):
            yield series_name("rule", rule, NOTED)
        case "list_answers", (label, result):
            yield series_name("list", label, result)
        case "list_rejects", (label, sole):
            yield series_name("list_reject", label, "sole" if sole == "true" else "shared")
        case "scanned_early", (reason, spam):
            yield series_name("later", reason, "told", "scanner")
            if spam == "true":
                yield series_name("later", reason, "spam", "scanner")
        case "greylist", (state,):
            yield series_name("greylist", state)
        case ("claimed_by_both" | "sessions" | "store_failures") as name, ():
            yield name
