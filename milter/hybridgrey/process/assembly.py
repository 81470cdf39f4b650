"""What a configuration puts into the processes: the parts of the filter, put together.

Here and nowhere else the modules meet: lists and look-ups, store and greylist, screen and session for a
worker; the prober of the lists and the metrics for the keeper.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from hybridgrey import logs
from hybridgrey.config.load import Config
from hybridgrey.content import scanner
from hybridgrey.eventloop import Loop
from hybridgrey.filter.counting import Counts
from hybridgrey.filter.followup import Events, InTurns
from hybridgrey.filter.learning import Learner
from hybridgrey.filter.screen import Screen
from hybridgrey.hand import keptcopy
from hybridgrey.hand.correspondents import Correspondents
from hybridgrey.hand.expected import Expected
from hybridgrey.hand.register import Register
from hybridgrey.history.reader import Reader
from hybridgrey.history.recorder import LEAST_TIMEOUT, Chronicler
from hybridgrey.history.view import Chronicle, Terms
from hybridgrey.lists import zones
from hybridgrey.lists.channels import Channels
from hybridgrey.lists.exchange import Exchange, MakeExchange
from hybridgrey.lists.health import Prober
from hybridgrey.lists.resolv import nameservers
from hybridgrey.lists.resolver import Resolver
from hybridgrey.metrics.meter import Meter
from hybridgrey.metrics.shared import Board, Shared
from hybridgrey.policy.judge import Policy
from hybridgrey.process import (
    byhand,
    keeper,
    libmilter_parts,
    native_parts,
    pools,
    store_memory,
    store_size,
    stores,
)
from hybridgrey.process.bulletin import Bulletin
from hybridgrey.process.children import Ready
from hybridgrey.process.generation import Build
from hybridgrey.process.keeper import Task
from hybridgrey.process.libmilter_pool import Pool
from hybridgrey.process.worker_parts import E, WorkerParts
from hybridgrey.spf.carrier import Carrier
from hybridgrey.store.connection import Store, StoreError
from hybridgrey.trouble.reporter import Channel, Report

if TYPE_CHECKING:
    from hybridgrey.page.site import Site

WATCH_SECONDS = 1.0


def assemble(embedded_url: str, channel: Channel) -> Build:
    """A function that builds the parts of a configuration; `embedded_url` is "" without such a store."""
    bulletin, pooled = byhand.new_bulletin(), pools.new_bulletin()

    def build(config: Config, before: Shared | None) -> Assembly:
        return Assembly(config, before, embedded_url, channel, bulletin, pooled)

    return build


class Assembly:
    """The parts of one configuration; made in the master, used in its children (`generation.Parts`)."""

    def __init__(
        self,
        config: Config,
        before: Shared | None,
        embedded_url: str,
        channel: Channel,
        bulletin: Bulletin | None = None,
        pooled: Bulletin | None = None,
    ) -> None:
        """`bulletin`: where entries by hand are published, `pooled`: the pools; they outlive reloads."""
        self._config = config
        self._channel = channel
        self._master = os.getpid()
        self._store_url = stores.store_url(config, embedded_url)
        self._bulletin = byhand.new_bulletin() if bulletin is None else bulletin
        self._hand_file = byhand.place(config)
        if before is None:
            byhand.start(self._bulletin, self._hand_file, keptcopy.mark(self._store_url))
        self._pooled = pools.new_bulletin() if pooled is None else pooled
        if before is None:
            pools.start(self._pooled, config)
        self._name = config.hostname or socket.gethostname()
        self._recorded = config.metrics.history or config.metrics.listen is not None
        self.pools: pools.Current
        """The pools of this process, once it has its `screen`."""
        self.by_hand: byhand.Current
        """The entries by hand of this process, once it has its `screen`."""
        secret = config.store.key_secret.get_secret_value()
        self._correspondents = Correspondents(config.correspondents, secret)
        self.zones = zones.build(config.rules, config.zones)
        rules = [(rule.name, rule.action.value) for rule in config.rules]
        labels = [(zone.name, zone.label) for zone in self.zones]
        enforced = not config.observe
        if before is None:
            self.shared = Shared.create(rules, labels, enforced=enforced, workers=config.worker_count)
        else:
            self.shared = before.renewed(rules, labels, enforced=enforced)
        scores = any(rule.score is not None for rule in config.rules)
        self.shared.board.scans_with(config.content.scanner if scores else "")

    def worker(self, slot: int) -> libmilter_parts.Worker:
        """Build the filter and make it known to libmilter; in the worker's process."""
        return libmilter_parts.Worker(self._parts(slot, self._channel.reporter(), Events), Pool())

    def native(self, slot: int, loop: Loop) -> native_parts.NativeWorker:
        """Build the filter on a loop; in the worker's process."""
        reports = self._channel.reporter()
        channels = Channels(loop, partial(native_parts.broken, reports))
        return native_parts.NativeWorker(self._parts(slot, reports, InTurns, channels.exchange), loop)

    def _parts(
        self, slot: int, reports: Report, kind: type[E], exchange: MakeExchange = Exchange
    ) -> WorkerParts[E]:
        screen, store = self.screen(reports, exchange)
        events = self._events(slot, screen, reports, kind)
        ticks = self.by_hand.tick, self.pools.tick
        return WorkerParts(screen, store, self._config, reports, events, ticks, self._learner(store, reports))

    def _learner(self, store: Store, reports: Report) -> Learner | None:
        """What remembers correspondents, if a rule teaches any."""
        if not any(rule.learn for rule in self._config.rules):
            return None
        return Learner(self._correspondents, store, reports)

    def _events(self, slot: int, screen: Screen, reports: Report, kind: type[E]) -> E:
        ring = self.shared.rings.writer(slot) if self._recorded else None
        meter = self.shared.meter(slot)
        if screen.scanner is not None:
            screen.scanner.count = meter.scanned
            screen.scanner.told = partial(_scanned, self.shared.board, meter)
        counts = Counts(meter, self._config.rules, self.zones, ring, self._name)
        logged = logs.get().is_enabled_for(logs.LEVELS["info"])
        return kind(counts, screen.zones, reports, logged=logged, enforced=not self._config.observe)

    def screen(self, reports: Report, exchange: MakeExchange = Exchange) -> tuple[Screen, Store]:
        """The filter without its milter; `exchange` makes the wire of look-ups.

        From then on `by_hand` and `pools` are to tick once a second.
        """
        config = self._config
        store = stores.open_store(config, self._store_url, reports)
        resolver = Resolver(
            self.zones,
            nameservers(config.dns.nameservers),
            timeout=config.dns.timeout,
            suspended=self.shared.flags.view,
            reporter=reports,
            exchange=exchange,
        )
        greylist = stores.open_greylist(config, store)
        policy = Policy(config.rules, config.dns.clients)
        expected = Expected(config.store.key_secret.get_secret_value())
        self.by_hand = byhand.Current(self._bulletin, Register(store) if policy.by_hand else None)
        spf = Carrier(resolver, pools.widths(config), reporter=reports)
        self.pools = pools.Current(policy.pools, self._pooled, pools.widths(config))
        screen = Screen(
            config,
            policy,
            self.zones,
            resolver,
            greylist,
            expected,
            self.by_hand.of,
            spf=spf,
            pools=self.pools.of,
            correspondents=self._correspondents,
            scanner=scanner.of(config, reports),
        )
        return screen, store

    def keeper(self, ready: Ready) -> NoReturn:
        """Probe the lists and serve metrics until the master ends; in the keeper's process."""
        sys.excepthook = libmilter_parts.one_line
        reports = self._channel.reporter()
        store = stores.open_store(self._config, self._store_url, reports)
        flags = self.shared.flags
        servers = nameservers(self._config.dns.nameservers)
        prober = Prober(self.zones, servers, flags=flags.view, states=flags.health, reporter=reports)
        prober.probe_first()
        timeout = self._config.store.timeout
        chronicle = Chronicle(Reader.open(self._store_url, timeout), Terms.of(self._config, self._name))
        # A store of its own: what the history waits for says nothing to the check of the mail's.
        own = Store.open(self._store_url, max(timeout, LEAST_TIMEOUT))
        chronicler = Chronicler(chronicle, self.shared, own, reports)
        follower = self._follower(reports)
        follower.look()
        ready()
        status = keeper.run(
            self.shared,
            reports,
            listen=self._config.metrics.listen,
            parent=self._master,
            tasks=[
                prober.run,
                partial(_watch, store, reports),
                partial(store_memory.watch, store, reports, self.shared.board.set_store_memory),
                partial(store_size.watch, store, self.shared.board.set_store),
                chronicler.run,
                follower.run,
                *self._resolving(reports),
            ],
            checks={"store": partial(_reachable, store)},
            site=partial(self._site, chronicle, follower),
        )
        os._exit(status)

    def _resolving(self, reports: Report) -> Sequence[Task]:
        """What resolves pools, if rules name any."""
        config, board = self._config, self.shared.board
        domains = pools.domains(config)
        if not domains:
            return ()
        path = pools.place(config)
        by = pools.carrier(config)
        servers = nameservers(config.dns.nameservers)
        resolving = pools.Resolving(domains, by, self._pooled, board, reports, path=path, nameservers=servers)
        return (resolving.run,)

    def _follower(self, reports: Report) -> byhand.Follower:
        """What follows the entries by hand."""
        # A store of its own, as for the history: to read them all may take longer than a mail may wait.
        store = Store.open(self._store_url, max(self._config.store.timeout, LEAST_TIMEOUT))
        mark = keptcopy.mark(self._store_url)
        return byhand.Follower(Register(store), self._bulletin, reports, store=mark, path=self._hand_file)

    def _site(self, chronicle: Chronicle, follower: byhand.Follower, health: Callable[[], list[str]]) -> Site:
        """What is served over HTTP."""
        from hybridgrey.page import (  # only where it is served: what else the page needs costs memory
            data,
            site,
        )

        config = self._config
        alone = "[metrics] history is off" if not config.metrics.history else ""
        if config.store.key_secret.get_secret_value():
            alone = "[store] key_secret is set"
        answers = data.Data(
            data.Host(
                chronicle.host,
                observes=config.observe,
                alone=alone,
            ),
            Policy(config.rules, config.dns.clients),
            self.zones,
            shared=self.shared,
            chronicle=chronicle,
            health=health,
            entries=follower.entries,
        )
        names = frozenset({chronicle.host.lower(), socket.gethostname().lower()})
        door = site.Door(config.metrics.password.get_secret_value(), names)
        return site.Site(self.shared, health, door=door, data=answers)


def _scanned(board: Board, meter: Meter, worked: bool, left_alone: bool) -> None:
    board.scanned(worked)
    meter.left_alone(left_alone)


def _reachable(store: Store) -> str:
    try:
        store.ping()
    except StoreError as e:
        return str(e)
    return ""


def _watch(store: Store, reports: Report, stop: threading.Event) -> None:
    """Tell of a store that does not serve at the start, before a mail needs it; then look for one given up.

    One failure is enough to tell: the breaker's patience is for a store that has served.
    """
    while error := _reachable(store):
        reports.failing("store", error=error)
        if stop.wait(WATCH_SECONDS):
            return
    reports.recovered("store")
    while not stop.wait(WATCH_SECONDS):
        store.probe()
