"""A world of DNS in a dictionary, and the walk of a generator through it."""

from __future__ import annotations

import socket
from pathlib import Path

import yaml

from hybridgrey.spf.question import Answer, Question, Status, askable

SUITE = Path(__file__).with_name("rfc7208-tests.yml")
TTL = 300
TIMEOUT = "TIMEOUT"
MAX_CNAMES = 8


class Zone:
    """Records by name: a list of (type, value), or TIMEOUT among them.

    A value is text, a list of strings for TXT, the host's name for MX.  `asked`: what has been asked.
    """

    def __init__(self, records):
        self.records = {name.lower(): rows for name, rows in records.items()}
        self.asked = []

    def answer(self, question):
        """The answer of a resolver."""
        assert askable(question.name)
        assert question.name == question.name.lower()
        self.asked.append(question)
        name = question.name
        for _ in range(MAX_CNAMES):
            if name not in self.records:
                return Answer(Status.NXDOMAIN, TTL)
            rows = self.records[name]
            aliases = [row[1].lower() for row in rows if row != TIMEOUT and row[0] == "CNAME"]
            if not aliases:
                return found(rows, question.type)
            name = aliases[0].removesuffix(".")
        return Answer(Status.FAILED)


def found(rows, kind):
    """The answer that a name's records make; a time-out holds for the types that have none."""
    values = [row[1] for row in rows if row != TIMEOUT and row[0] == kind]
    if values:
        if kind in ("MX", "PTR"):
            return Answer(Status.FOUND, TTL, names=tuple(values))
        return Answer(Status.FOUND, TTL, data=tuple(packed(kind, value) for value in values))
    return Answer(Status.FAILED) if TIMEOUT in rows else Answer(Status.EMPTY, TTL)


def packed(kind, value):
    if kind == "TXT":
        return b"".join(text.encode("latin-1") for text in ([value] if isinstance(value, str) else value))
    return socket.inet_pton(socket.AF_INET if kind == "A" else socket.AF_INET6, value)


def run(steps, zone):
    """What the generator returns when the zone answers it."""
    ask = next(steps, None)
    assert ask is not None, "returned without a question"
    return carry(steps, ask, zone)


def carry(steps, ask, zone):
    while True:
        assert ask.now
        try:
            ask = steps.send([zone.answer(question) for question in ask.now])
        except StopIteration as stop:
            return stop.value


def resolve(steps, zone):
    """The same, for one that may return without a question."""
    try:
        ask = next(steps)
    except StopIteration as stop:
        return stop.value
    return carry(steps, ask, zone)


def simple(records):
    """A zone from name: "v=spf1 ..." or name: [(type, value), ...]."""
    return Zone({n: [("TXT", rows)] if isinstance(rows, str) else rows for n, rows in records.items()})


def suite():
    """The RFC's scenarios: (name of the case, its data, its zone)."""
    with SUITE.open(encoding="utf-8") as stream:
        for scenario in yaml.safe_load_all(stream):
            records = {name: list(rows_of(rows)) for name, rows in scenario["zonedata"].items()}
            for name, case in scenario["tests"].items():
                yield name, case, records


def rows_of(rows):
    """A name's records: SPF stands for TXT, unless there is one of its own (NONE: there is to be none)."""
    pairs = [next(iter(row.items())) for row in rows if row != TIMEOUT]
    has_text = any(kind == "TXT" for kind, _ in pairs)
    for kind, value in pairs:
        if (kind == "SPF" and has_text) or value == "NONE":
            continue
        if kind == "MX":
            value = value[1]
        yield ("TXT" if kind == "SPF" else kind), value
    if TIMEOUT in rows:
        yield TIMEOUT


__all__ = ["Question", "Zone", "resolve", "run", "simple", "suite"]
