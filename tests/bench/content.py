"""By score: what it costs to take a whole message and have it scanned, by a scanner that answers at once.

One message at a time, each by a new client in a session of its own, over the milter protocol. Beside it the
same messages to a filter without a rule with `score`: their bodies are negotiated away.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from functools import partial
from typing import Any

from bench import population, rig, tables
from parts.base import PartError
from parts.milterpeer import MilterPeer
from parts.spamd import ScriptedSpamd

SIZES = (2_000, 60_000)
"""Octets of a body; an MTA sends so many in one piece."""
MACROS = {"j": "mx.test", "v": "Postfix 3.7"}
WITHOUT = [{"name": "all", "action": "accept"}]
WITH = [{"name": "spam", "score": ">=5", "action": "greylist"}]


def run(report: tables.Report, *, full: bool) -> None:
    """The table."""
    rounds, count = (5, 1000) if full else (3, 200)
    with contextlib.ExitStack() as stack:
        scanner = stack.enter_context(ScriptedSpamd(0.0))
        place = {"scanner": scanner.spec}
        cases = {}
        for engine in rig.ENGINES.values():
            for name, rules in (("without", WITHOUT), ("scanned", WITH)):
                stage = stack.enter_context(rig.stage({"engine": engine, "content": place, "rule": rules}))
                for size in SIZES:
                    cases[f"{size // 1000} kB {name}, {engine}"] = partial(_measure, stage, size)
        raw = [{"case": case, **measure(count)} for _ in range(rounds) for case, measure in cases.items()]
    report.table(
        f"By score: one message at a time, medians of {rounds} rounds of {count}",
        tables.medians(raw, "case"),
        "without: no rule has a score, so no header or body comes. "
        "scanned: collected, sent to a scanner that answers at once, accepted; the greylist was looked at. "
        "ms: from the first header to the answer, the scanner's share and the load generator's in it.",
        raw=raw,
    )


def _measure(stage: rig.Stage, size: int, count: int) -> dict[str, Any]:
    body, meter, waits = (b"x" * 78 + b"\r\n") * (size // 80), stage.meter(), []
    for number in range(stage.first, stage.first + count):
        with MilterPeer(stage.daemon.address) as peer:
            peer.connect("unknown", population.address("unknown", number), macros=MACROS)
            peer.helo()
            peer.mail("<a@sender.example>")
            peer.rcpt("<u@example.test>")
            begun = time.perf_counter()
            end = peer.content(body=body).reply
            waits.append(time.perf_counter() - begun)
            if not end.passes:
                raise PartError(f"a message was answered {end}")
    stage.first += count
    used = meter.usage()
    return {
        "workers µs": used.cpu["workers"] / count * 1e6,
        "store µs": used.cpu["store"] / count * 1e6,
        "ms": statistics.median(waits) * 1000,
        "other load": used.others,
    }
