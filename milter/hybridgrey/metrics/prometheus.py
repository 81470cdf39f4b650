"""The counters as Prometheus reads them.

Only the process that serves them loads this module: prometheus_client costs memory.

``Exposition`` is a prometheus_client collector over the shared memory of `shared`: no value
is kept here. The text format itself is the library's.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from hybridgrey import __version__
from hybridgrey.metrics.series import FAMILIES, HEALTH, Family
from hybridgrey.metrics.shared import Pooled, Shared

PREFIX = "hybridgrey_"


class Exposition(Collector):
    """All metric families, read from shared memory at each scrape."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._by_family: dict[str, list[tuple[tuple[str, ...], int]]] = {name: [] for name in FAMILIES}
        for (name, labels), index in shared.schema.index.items():
            self._by_family[name].append((labels, index))

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its samples."""
        for name, family in FAMILIES.items():
            yield self._family(family, self._by_family[name])
        yield from self._processes()
        yield from _pools(self._shared.board.pools)
        yield from self._scanner()
        yield from self._verdicts()
        yield from self._lists()
        yield GaugeMetricFamily(
            PREFIX + "enforced",
            "1 while verdicts are carried out, 0 in observe mode",
            value=self._shared.enforced,
        )
        build = GaugeMetricFamily(PREFIX + "build_info", "Versions", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build

    def _processes(self) -> Iterator[Metric]:
        """The daemon's processes, its configuration and its store."""
        board = self._shared.board
        yield GaugeMetricFamily(PREFIX + "workers", "Workers that take connections", value=board.alive)
        yield GaugeMetricFamily(PREFIX + "workers_wanted", "Workers there should be", value=board.wanted)
        yield GaugeMetricFamily(
            PREFIX + "start_time_seconds", "When the daemon started, Unix time", value=board.started
        )
        yield GaugeMetricFamily(
            PREFIX + "config_reload_ok", "0 after a failed reload, else 1", value=float(board.reload_ok)
        )
        yield GaugeMetricFamily(
            PREFIX + "config_last_reload_success_timestamp_seconds",
            "When the configuration in effect was taken, Unix time",
            value=board.loaded,
        )
        yield _known("store_up", "1 while every part of the store serves, else 0", board.store_up)
        yield _known("store_keys", "Keys in the store: entries, their notes, history", board.store_keys)
        used, limit = board.store_memory
        yield GaugeMetricFamily(PREFIX + "store_memory_bytes", "Memory that the store uses", value=used)
        yield GaugeMetricFamily(
            PREFIX + "store_memory_max_bytes", "The most it may use, 0 without a limit", value=limit
        )

    def _verdicts(self) -> Iterator[Metric]:
        """What became of the records of verdicts."""
        board = self._shared.board
        yield CounterMetricFamily(
            PREFIX + "records_lost", "Verdicts too many at once for the page", value=self._shared.rings.lost
        )
        size, number = board.verdicts
        yield GaugeMetricFamily(PREFIX + "kept_verdicts", "Verdicts of this host in the store", value=number)
        yield GaugeMetricFamily(
            PREFIX + "kept_verdicts_bytes", "Memory that these take, compressed", value=size
        )
        yield CounterMetricFamily(
            PREFIX + "kept_verdicts_dropped",
            "Verdicts that are not in the store, for it was away too long",
            value=board.dropped,
        )

    def _scanner(self) -> Iterator[Metric]:
        """How the content scanner is; without samples where no rule asks one."""
        shared = self._shared
        known = shared.board.scanning
        wanted = 0.0 if known is None else 1.0
        yield _known("scanner_wanted", "1 where rules ask a content scanner, else 0", wanted)
        up = "1 while the content scanner gives scores, 0 once it is left alone for its failures"
        yield _known("scanner_up", up, shared.scanner_up)
        since = "When the scanner's failures began that go on, Unix time"
        yield _known("scanner_failing_since_timestamp_seconds", since, (known and known.since) or None)

    def _lists(self) -> Iterator[Metric]:
        """How the DNS lists are."""
        suspended = GaugeMetricFamily(
            PREFIX + "list_suspended", "1 while a list has no vote for its health", labels=("list",)
        )
        for label, flag in self._shared.flags.suspended().items():
            suspended.add_metric((label,), float(flag))
        yield suspended
        health = GaugeMetricFamily(
            PREFIX + "list_health", "1 for what its test points say of a list", labels=("list", "state")
        )
        for label, state in self._shared.flags.states().items():
            for one in HEALTH:
                health.add_metric((label, one), float(one == state))
        yield health
        working = sum(state == "healthy" for state in self._shared.flags.states().values())
        yield GaugeMetricFamily(
            PREFIX + "lists_healthy", "Lists that answer their test points", value=working
        )
        yield GaugeMetricFamily(
            PREFIX + "no_list_works",
            "1 while no list can have a say: nothing is rejected or allowed by lists",
            value=float(self._shared.flags.none_works),
        )

    def _family(self, family: Family, series: list[tuple[tuple[str, ...], int]]) -> Metric:
        name = PREFIX + family.name
        if family.kind == "histogram":
            histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
            for labels, index in series:
                histogram.add_metric(labels, *self._histogram(family, index))
            return histogram
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(name, family.help, labels=family.labels)
        for labels, index in series:
            total = self._shared.counters.total(index)
            if total or (family.name, labels) not in self._shared.schema.quiet:
                metric.add_metric(labels, total)
        return metric

    def _histogram(self, family: Family, index: int) -> tuple[list[tuple[str, float]], float]:
        """Return cumulated buckets and the sum; read cell by cell, so off by what is in flight."""
        total = self._shared.counters.total
        bounds = [*(str(bound) for bound in family.buckets), "+Inf"]
        buckets: list[tuple[str, float]] = []
        seen = 0.0
        for offset, bound in enumerate(bounds):
            seen += total(index + offset)
            buckets.append((bound, seen))
        return buckets, total(index + len(bounds))


def _pools(pools: Pooled) -> Iterator[Metric]:
    """Without samples where rules name no pool."""
    texts = (
        ("pools", "Domains whose networks are a pool", pools.domains),
        ("pools_unknown", "Pools that were never resolved", pools.unknown),
        ("pools_failing", "Pools whose last answer was a failure or a bad record", pools.problems),
        ("pool_networks", "Networks of all pools", pools.networks),
    )
    for name, text, value in texts:
        yield _known(name, text, value if pools.domains else None)
    oldest = "When the pool that was resolved longest ago was, Unix time"
    yield _known("pools_oldest_time_seconds", oldest, pools.oldest or None)


def _known(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """A gauge, without a sample while nothing is known."""
    return GaugeMetricFamily(PREFIX + name, text, value=None if value is None else float(value))


def registry(shared: Shared) -> CollectorRegistry:
    """Return a registry of our families only."""
    made = CollectorRegistry(auto_describe=False)
    made.register(Exposition(shared))
    return made


def render(source: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """Return content type and body in the format that an Accept header asks for."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(source)
