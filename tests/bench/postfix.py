"""Through a real Postfix: bare, with milters that do nothing, with hybridgrey, with main.cf and postgrey.

All stand side by side and are loaded in turn, round by round; clients come from real addresses of their
own, every one new. The lists are behind a relay that delays and counts. Nothing is bound to a CPU but the
daemon's workers, as in use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import accounts, population, rig, tables
from bench.floor import KINDS, Floor
from bench.relay import Relay
from parts import postfix
from parts.base import LOOPBACK, Part, accepts, free_port
from parts.redisserver import Redis

GREYLISTED = 2  # s
PROCESSES = 200
MAIN_CF = {
    "default_process_limit": str(PROCESSES),
    "relayhost": "",
    "relay_transport": "discard:",
    # A log is the same for all, and a disk's business.
    "maillog_file": "",
}
POSTGREY = "/usr/sbin/postgrey"
GROSSD = "/usr/sbin/grossd"


class Postgrey(Part):
    """Debian's postgrey on a port of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        shutil.chown(self.directory, "postgrey", "postgrey")

    def command(self) -> list[str]:
        return [
            POSTGREY,
            f"--inet={LOOPBACK}:{self.port}",
            f"--delay={GREYLISTED}",
            f"--dbdir={self.directory}",
            "--auto-whitelist-clients=0",
            "--quiet",
        ]

    def ready(self) -> bool:
        return accepts((LOOPBACK, self.port))


class Gross(Part):
    """Debian's grossd, a policy service in C (built without the milter protocol), on a port of its own.

    It cannot choose by return code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        lists = [f"dnsbl = {entry.partition('=')[0]};10" for entry in population.BLOCK]
        lists += [f"dnswl = {entry.partition('=')[0]}" for entry in population.ALLOW]
        lines = [f"host = {LOOPBACK}", f"port = {self.port}", "protocol = postfix", "log_level = error"]
        lines += [f"grey_delay = {GREYLISTED}", "grey_threshold = 0", "block_threshold = 10"]
        lines += ["query_timelimit = 5000", "pool_maxthreads = 100", "check = dnswl", "check = dnsbl", *lists]
        (self.directory / "grossd.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> list[str | Path]:
        return [GROSSD, "-d", "-r", "-f", self.directory / "grossd.conf"]

    def ready(self) -> bool:
        return accepts((LOOPBACK, self.port))


@dataclass(frozen=True, slots=True)
class Variant:
    """A Postfix; `parts` are its filter's processes by name; who does not judge is not wrong."""

    name: str
    mta: postfix.Postfix
    parts: Mapping[str, Callable[[], Iterable[int]]]
    judges: bool = True


def restrictions(port: int) -> str:
    """The hierarchy in Postfix's own words, with postgrey at its end."""
    words = [f"reject_rbl_client {entry}" for entry in population.BLOCK]
    words += [f"permit_dnswl_client {entry}" for entry in population.ALLOW]
    return ", ".join([*words, f"check_policy_service inet:{LOOPBACK}:{port}"])


def daemon(
    stack: contextlib.ExitStack, relay: Relay, engine: str, workers: int = 1, *, unix: bool = True
) -> Variant:
    """Postfix with hybridgrey, which has a store of its own; 0 workers: as many as by default."""
    store = stack.enter_context(Redis())
    above = {"engine": engine, "workers": workers, "greylist": {"delay": f"{GREYLISTED}s"}}
    config = rig.settings(relay.address, store.unix_url, above)
    milter = stack.enter_context(rig.BenchDaemon(config, unix=unix))
    rig.wait_workers(milter, workers or max(2, len(accounts.cores())))
    mta = stack.enter_context(postfix.Postfix(milter.spec, MAIN_CF))
    parts = {"filter": milter.own, "store": lambda: [store.pid]}
    name = f"{engine}, {'unix' if unix else 'inet'}{', 1 worker' if workers == 1 else ''}"
    return Variant(name, mta, parts)


def with_floor(stack: contextlib.ExitStack, kind: str) -> Variant:
    """Postfix with a milter that does nothing."""
    floor = stack.enter_context(Floor(accounts.cores()[0], kind))
    mta = stack.enter_context(postfix.Postfix(f"unix:{floor.address}", MAIN_CF))
    return Variant(f"no-op, {kind}", mta, {"filter": lambda: [floor.pid]})


def with_postgrey(stack: contextlib.ExitStack) -> Variant:
    """Postfix with lists in main.cf and postgrey."""
    server = stack.enter_context(Postgrey())
    words = {"smtpd_recipient_restrictions": restrictions(server.port)}
    mta = stack.enter_context(postfix.Postfix("", MAIN_CF | words))
    return Variant("main.cf lists + postgrey", mta, {"filter": lambda: accounts.tree(server.pid)})


def with_gross(stack: contextlib.ExitStack) -> Variant:
    """Postfix with gross, which does both."""
    server = stack.enter_context(Gross())
    words = {"smtpd_recipient_restrictions": f"check_policy_service inet:{LOOPBACK}:{server.port}"}
    mta = stack.enter_context(postfix.Postfix("", MAIN_CF | words))
    return Variant("gross", mta, {"filter": lambda: accounts.tree(server.pid)})


RIVALS = {"postgrey": (POSTGREY, with_postgrey), "gross": (GROSSD, with_gross)}


@contextlib.contextmanager
def variants(report: tables.Report) -> Iterator[tuple[Relay, list[int], list[Variant]]]:
    """Everything started: the relay, the processes of the lists, the variants."""
    with contextlib.ExitStack() as stack:
        dns = stack.enter_context(rig.lists())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        relay = stack.enter_context(Relay((dns.host, dns.port), (LOOPBACK, 53), folder))
        (folder / "resolv.conf").write_text(f"nameserver {LOOPBACK}\n")
        rig.over(folder / "resolv.conf", Path("/etc/resolv.conf"))
        bare = stack.enter_context(postfix.Postfix("", MAIN_CF))
        all_of_them = [Variant("bare Postfix", bare, {}, judges=False)]
        all_of_them += [with_floor(stack, kind) for kind in KINDS]
        all_of_them += [daemon(stack, relay, engine) for engine in rig.ENGINES.values()]
        all_of_them += [daemon(stack, relay, "native", 0, unix=unix) for unix in (True, False)]
        for name, (program, with_rival) in RIVALS.items():
            if Path(program).exists():
                all_of_them.append(with_rival(stack))
            else:
                report.note(f"{name} is not installed: left out (apt-get install {name})")
        yield relay, [dns.pid, relay.pid], all_of_them


class Bench:
    """Loads variants; gives every load clients of its own."""

    def __init__(self, relay: Relay, dns: list[int]) -> None:
        self._relay, self._dns = relay, dns
        self._first = 0

    def measure(self, variant: Variant, delay: float, **options: float) -> dict[str, Any]:
        """One load on one variant."""
        parts = {"mta": lambda: accounts.tree(variant.mta.pid), "dns": lambda: self._dns, **variant.parts}
        asked = self._relay.delay(delay).queries
        meter = accounts.Meter(parts)
        figures = self._load(variant.mta.port, first=self._first, **options)
        usage = meter.usage(figures["load_cpu"])
        counts = self._relay.delay(delay)
        self._first += int(figures["all_sessions"]) + 1000
        return row(variant, figures, usage, counts.queries - asked)

    def _load(self, port: int, **options: float) -> dict[str, Any]:
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return rig.program(["-m", "bench.smtpload", str(port), *words], accounts.cores())


def row(variant: Variant, figures: Mapping[str, Any], usage: accounts.Usage, asked: int) -> dict[str, Any]:
    """What a table shows of one load."""
    sessions = max(1, figures["all_sessions"])
    cost = {part: seconds / sessions * 1000 for part, seconds in usage.cpu.items()}
    waits = figures["waits_ms"]
    nothing = {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    rcpt, message = waits.get("rcpt", nothing), waits.get("message", nothing)
    return {
        "MTA with": variant.name,
        "new clients/s": figures["clients_per_s"],
        "sessions/s": figures["sessions_per_s"],
        "filter ms": cost.get("filter", 0.0),
        "store ms": cost.get("store", 0.0),
        "MTA ms": cost["mta"],
        "DNS ms": cost["dns"],
        "RCPT p50 ms": rcpt["p50"],
        "p95": rcpt["p95"],
        "p99": rcpt["p99"],
        "end of message p50 ms": message["p50"],
        "questions/session": asked / sessions,
        "wrong": figures["wrong"] if variant.judges else 0,
        "failed": sum(figures["errors"].values()),
        "other load": usage.others,
    }


def run(report: tables.Report, *, full: bool) -> None:
    """All tables."""
    if reason := postfix.missing():
        report.note(f"through Postfix: left out: {reason}")
        return
    if os.environ.get("HYBRIDGREY_BENCH_INSIDE") != "yes":
        report.note("through Postfix: left out: no namespaces of our own here")
        return
    rounds, seconds, warmup = (5, 15.0, 4.0) if full else (2, 7.5, 3.5)
    with variants(report) as (relay, dns, some):
        bench = Bench(relay, dns)
        for variant in some:
            bench.measure(variant, 0, seconds=2.0, warmup=1.0)  # smtpd processes are forked here
        for delay in (0, 20):
            _full_speed(report, bench, some, delay, rounds=rounds, seconds=seconds, warmup=warmup)
        _waits(report, bench, some, rounds=rounds if full else 1)


def _full_speed(
    report: tables.Report,
    bench: Bench,
    some: list[Variant],
    delay: float,
    *,
    rounds: int,
    seconds: float,
    warmup: float,
) -> None:
    raw = [
        bench.measure(variant, delay, seconds=seconds, warmup=warmup)
        for _ in range(rounds)
        for variant in some
    ]
    rows = tables.medians(raw, "MTA with")
    base, least = rows[0], next(one for one in rows if one["MTA with"] == "no-op, C")
    for one in rows:
        one["new clients/s ÷ bare"] = one["new clients/s"] / base["new clients/s"]
        one["÷ no-op, C"] = one["new clients/s"] / least["new clients/s"]
        total = [
            sum(line[f"{part} ms"] for part in ("filter", "store", "MTA", "DNS")) for line in (one, base)
        ]
        one["CPU ÷ bare"] = total[0] / total[1]
    title = (
        f"Through Postfix: 100 connections at full speed, lists {delay} ms away, medians of {rounds} rounds"
    )
    report.table(title, rows, "CPU is for each session; mix block/trusted/unknown 60/15/25.", raw=raw)


def _waits(report: tables.Report, bench: Bench, some: list[Variant], *, rounds: int) -> None:
    for think, what in ((0, "clients that speak at once"), (25, "clients that take 25 ms before MAIL")):
        raw = [
            bench.measure(variant, 20, seconds=6.0, warmup=1.0, rate=60, think=think, concurrency=1000)
            for _ in range(rounds)
            for variant in some
        ]
        title = f"Through Postfix: 60 new clients a second, lists 20 ms away, {what}"
        report.table(title, tables.medians(raw, "MTA with"), raw=raw)
