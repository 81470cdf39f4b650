"""The stage of the benchmarks: lists, store and daemon as real processes, helpers kept off the workers' CPU.

`Lists` and `Redis` are the tests' own parts. With one worker, which binds itself to the first CPU, helpers
(lists, store, load generator) are bound to the others, so that they do not take its time; with more workers
than that leaves CPUs for, nothing is bound and the table says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import accounts, population
from parts.base import PartError
from parts.daemon import Daemon, Settings, merged
from parts.rbldnsd import Dataset, Rbldnsd
from parts.redisserver import Redis

TESTS = Path(__file__).parents[1]
TTL = 3600
Option = float | str
ENGINES = {"pymilter": "libmilter", "loop": "native"}
"""The engines, by the floor of each."""


def lists(zones: Mapping[str, str] = population.ZONES) -> Rbldnsd:
    """The list server."""
    data: dict[str, Dataset] = {name: ("ip4set", text) for name, text in zones.items()}
    return Rbldnsd(data, ttl=TTL)


def settings(nameserver: str, store: str, above: Settings | None = None) -> dict[str, Any]:
    """The product's defaults, but for where things are, and a delay that a benchmark can wait for."""
    below = {
        "workers": 1,
        "log": {"level": "info", "format": "json"},
        "dns": {"nameservers": [nameserver], "timeout": "2s"},
        "store": {"url": store},
        "greylist": {"delay": "1s"},
        "rule": population.RULES,
    }
    return merged(below, above or {})


class BenchDaemon(Daemon):
    """The tests' daemon, with a log that may become long: a file on disk, emptied on request."""

    def workers(self) -> list[int]:
        """The worker processes."""
        return accounts.workers(self.pid)

    def others(self) -> list[int]:
        """Master and keeper."""
        serving = set(self.workers())
        return [self.pid, *(pid for pid in accounts.children(self.pid) if pid in self.own() - serving)]

    def own(self) -> set[int]:
        """All processes but an embedded store's."""
        family = [self.pid, *accounts.children(self.pid)]
        return {pid for pid in family if "server" not in accounts.name(pid)}

    def stores(self) -> list[int]:
        """The embedded store's process, if there is one."""
        return [pid for pid in accounts.children(self.pid) if pid not in self.own()]

    def ready(self) -> bool:
        return b'"event":"ready"' in self.log.read_bytes()

    def trim(self) -> None:
        """Empty the log; the daemon appends, so it goes on at the beginning."""
        self._look()
        os.truncate(self.log, 0)

    def _look(self) -> None:
        with self.log.open() as lines:
            for line in lines:
                if '"traceback":' in line or re.match("Traceback ", line):
                    raise PartError(f"the daemon's log has: {line[:3000]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.trim()
            elif self.log.stat().st_size > 1_000_000:
                os.truncate(self.log, 1_000_000)
        finally:
            super().__exit__(kind, error, trace)


def bind(pids: Iterable[int], cpus: Iterable[int]) -> None:
    """Keep all threads of processes on some CPUs."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(task.name), set(cpus))


def helper_cpus(workers: int) -> list[int]:
    """The CPUs that the helpers get: those without a worker, or all when there are none left."""
    cpus = accounts.cores()
    return cpus[workers:] or cpus


def load(address: str | tuple[str, int], cpus: Iterable[int], **options: Option) -> dict[str, Any]:
    """Run the load generator; its figures."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    return program(["-m", "bench.milterload", where, *words], cpus)


def program(words: Sequence[str], cpus: Iterable[int], timeout: float = 300) -> dict[str, Any]:
    """Run a Python program of the benchmarks on some CPUs; the JSON that it prints."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    try:
        os.sched_setaffinity(process.pid, set(cpus))
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise PartError(f"{words[1]} ended with status {process.returncode}")
    result: dict[str, Any] = json.loads(output)
    return result


class Stage:
    """Lists, store and daemon, running; `measure` puts load on it and gives a row."""

    def __init__(self, daemon: BenchDaemon, store: Redis | None, dns: Rbldnsd | None) -> None:
        self.daemon, self.store, self.dns = daemon, store, dns
        self.first = 0
        self.cpus = helper_cpus(len(daemon.workers()))

    def meter(self) -> accounts.Meter:
        """A meter of the parts."""
        store = self.store
        return accounts.Meter(
            {
                "workers": self.daemon.workers,
                "rest": lambda: self.daemon.own() - set(self.daemon.workers()),
                "store": (lambda: [store.pid]) if store else self.daemon.stores,
                "dns": lambda: [self.dns.pid] if self.dns else [],
            }
        )

    def spread(self) -> None:
        """Give the helpers all CPUs, with one worker too."""
        self.cpus = accounts.cores()
        bind([part.pid for part in (self.dns, self.store) if part], self.cpus)

    def measure(self, **options: Option) -> dict[str, Any]:
        """Load the daemon with clients from number `first` on, else with such as it has not seen."""
        fresh = options.setdefault("first", self.first) == self.first
        meter = self.meter()
        figures = load(self.daemon.address, self.cpus, **options)
        usage = meter.usage(figures["load_cpu"])
        if fresh:
            self.first += int(figures["decisions"]) + 10000
        self.daemon.trim()
        return row(figures, usage)


def row(figures: Mapping[str, Any], usage: accounts.Usage) -> dict[str, Any]:
    """What a table shows of one measurement."""
    decisions = max(1, figures["decisions"])
    errors = dict(figures["errors"])
    # A milter that cannot keep up with a rate leaves some behind; anything else must not happen.
    unfinished = errors.pop("unfinished", 0)
    if errors:
        raise PartError(f"sessions failed: {errors}")
    return {
        "decisions/s": decisions / figures["seconds"],
        "workers µs": usage.cpu["workers"] / decisions * 1e6,
        "store µs": usage.cpu["store"] / decisions * 1e6,
        "master, keeper µs": usage.cpu["rest"] / decisions * 1e6,
        # A question and its answer are two.
        "questions": usage.datagrams / 2 / decisions,
        "RCPT p50 ms": figures["rcpt_ms"]["p50"],
        "p95": figures["rcpt_ms"]["p95"],
        "p99": figures["rcpt_ms"]["p99"],
        "unfinished": unfinished,
        "other load": usage.others,
    }


@contextlib.contextmanager
def stage(
    above: Settings | None = None,
    *,
    files: Mapping[str, str] | None = None,
    zones: Mapping[str, str] = population.ZONES,
) -> Iterator[Stage]:
    """Everything started, a store on a unix socket, helpers bound; arguments: the daemon's, the lists'."""
    with contextlib.ExitStack() as stack:
        dns = stack.enter_context(lists(zones))
        store = stack.enter_context(Redis())
        wanted = settings(dns.address, store.unix_url, above)
        daemon = stack.enter_context(BenchDaemon(wanted, files=files, unix=True))
        wait_workers(daemon, int(daemon.settings["workers"]))
        made = Stage(daemon, store, dns)
        bind([dns.pid, store.pid], made.cpus)
        yield made


def wait_workers(daemon: BenchDaemon, count: int) -> None:
    """Wait until all workers are there."""
    end = time.monotonic() + 20
    while len(daemon.workers()) < count:
        if time.monotonic() > end:
            raise PartError(f"not {count} workers")
        time.sleep(0.05)


def over(file: Path, target: Path) -> None:
    """Put a file over another, for this mount namespace only."""
    subprocess.run(["mount", "--bind", file, target], check=True)
