"""The pools of large senders on this host: the keeper resolves them, the workers follow the keeper.

`Resolving` is the keeper's: it asks DNS for each domain that a rule names, again when the answer's time is
over, publishes the networks to the workers and keeps the last good state on disk.  `Current` is a worker's:
it takes what is published into memory.  No client waits for any of it: until a domain has been resolved for
the first time it is unknown who is in its pool.

What is on disk is read by the master at its start, so a restart with dead nameservers loses nothing.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hybridgrey import logs
from hybridgrey.clientaddress import Carried
from hybridgrey.config.load import Config
from hybridgrey.filter.screen import InPools
from hybridgrey.lists.awaited import run
from hybridgrey.lists.resolv import nameservers
from hybridgrey.lists.resolver import Resolver
from hybridgrey.metrics.shared import Board
from hybridgrey.policy.rule import Pools
from hybridgrey.process import statefiles
from hybridgrey.process.bulletin import Bulletin
from hybridgrey.process.pooltrouble import Trouble
from hybridgrey.spf import poolstate
from hybridgrey.spf.cache import Cache
from hybridgrey.spf.carrier import Carrier
from hybridgrey.spf.poolindex import PoolIndex
from hybridgrey.spf.pools import Pool
from hybridgrey.spf.poolstate import NONE, State, States
from hybridgrey.spf.proof import Widths
from hybridgrey.trouble.reporter import Report

FILE: Final = "hybridgrey.pools"
LEAST_SECONDS: Final = 300.0
MOST_SECONDS: Final = 86400.0
"""Between two questions for a domain that is well; its TTL within these bounds."""
RETRY_SECONDS: Final = 60.0
RETRY_MOST: Final = 1500.0
"""After a failure; twice as long after each further one.

Shorter than `collector.QUIET` with the jitter, after which a trouble would be taken for one that is over.
"""
JITTER: Final = 0.1
TIMEOUT: Final = 10.0
"""Seconds for a domain; longer than for mail, for nobody waits."""
_LEAST_PAUSE: Final = 1.0
_TOO_MANY: Final = "pool networks"
_WHAT: Final = "the state of the pools"
# Domains that a command resolves at a time.
_AT_ONCE: Final = 16


def new_bulletin() -> Bulletin:
    """Memory in which pools are published."""
    return Bulletin(poolstate.MAX_BYTES)


def widths(config: Config) -> Widths:
    """How wide a network may be to prove a client."""
    return Widths(config.spf.widest_ipv4, config.spf.widest_ipv6)


def carrier(config: Config, timeout: float = TIMEOUT) -> Carrier:
    """What resolves pools under a configuration; its nameservers' troubles are told by those of the mail."""
    return Carrier(
        Resolver((), nameservers(config.dns.nameservers), timeout=timeout), widths(config), timeout=timeout
    )


def place(config: Config) -> Path | None:
    """Where the state is kept; None for nowhere."""
    folder = statefiles.folder(config)
    return None if folder is None else folder / FILE


def kept(path: Path | None, widest: Widths) -> States:
    """What an earlier daemon, or one that runs, has left on disk.  Raises OSError, ValueError."""
    return NONE if path is None else poolstate.parse(statefiles.read(path, poolstate.MAX_BYTES), widest)


def domains(config: Config) -> tuple[str, ...]:
    """The domains whose pools rules name."""
    return tuple(dict.fromkeys(str(entry.key) for rule in config.rules for entry in rule.pools or ()))


def start(bulletin: Bulletin, config: Config) -> None:
    """Publish what an earlier daemon has left on disk; in the master, once, before it forks."""
    if not domains(config):
        return

    def take(data: bytes) -> None:
        if states := poolstate.parse(data, widths(config)):
            bulletin.publish(poolstate.dump(states))

    statefiles.recall(place(config), poolstate.MAX_BYTES, take, what=_WHAT)


def _published(bulletin: Bulletin, widest: Widths) -> tuple[int, States] | None:
    """The generation and the states; None when there is nothing to be had now."""
    found = bulletin.read()
    return None if found is None else (found[0], poolstate.parse(found[1], widest))


def _newest(names: Sequence[str], bulletin: Bulletin, path: Path | None, widest: Widths) -> dict[str, State]:
    """What is known of domains: what is published, or the file, which also has each new confirmation."""
    found = _published(bulletin, widest)
    states = dict(found[1]) if found else {}
    with contextlib.suppress(OSError, ValueError):  # told at the start; it is replaced soon
        for domain, state in kept(path, widest).items():
            if domain not in states or state.at > states[domain].at:
                states[domain] = state
    return {domain: state for domain, state in states.items() if domain in names}


class Resolving:
    """The keeper's part."""

    def __init__(
        self,
        domains: Sequence[str],
        carrier: Carrier,
        bulletin: Bulletin,
        board: Board,
        report: Report,
        *,
        path: Path | None,
        nameservers: Sequence[tuple[str, int]] = (),
    ) -> None:
        """`path`: where the state is kept, None for nowhere; `nameservers`: those of `carrier`, to name."""
        self._carrier = carrier
        self._bulletin = bulletin
        self._board = board
        self._report = report
        self._path = path
        self._states = _newest(domains, bulletin, path, carrier.widths)
        self._trouble = Trouble(report, nameservers)
        self._failures: dict[str, int] = {}
        # What is unknown comes first.
        order = sorted(domains, key=self._states.__contains__)
        self._due = dict.fromkeys(order, time.monotonic())
        self._told = not self._unknown
        self._changed = False
        self._note()

    def run(self, stop: threading.Event) -> None:
        """Resolve until `stop` is set."""
        if not self._told:
            logs.get().info("pools are unknown until they are resolved", domains=len(self._unknown))
        while not stop.is_set():
            self.round(stop)
            pause = min(self._due.values(), default=time.monotonic() + MOST_SECONDS) - time.monotonic()
            stop.wait(max(pause, _LEAST_PAUSE))

    def round(self, stop: threading.Event) -> None:
        """Resolve what is due, one domain after the other: nobody waits for them."""
        now = time.monotonic()
        due = [domain for domain, due in self._due.items() if due <= now]
        self._ask(due, stop)
        if self._trouble.doubtful:
            self._ask_others(due, stop)
        if self._changed:
            self._keep()
        # A round that was broken off says nothing of all domains.
        if due and not stop.is_set():
            self._settle()

    def _ask(self, domains: Sequence[str], stop: threading.Event) -> None:
        for domain in domains:
            if stop.is_set():
                break
            self._resolve(domain)

    def _ask_others(self, asked: Sequence[str], stop: threading.Event) -> None:
        """Ask domains that are not due until one works: whether those failed, or the way to DNS."""
        self._carrier.cache = Cache()
        failed = self._trouble.problems.keys() | asked
        for domain in [domain for domain in self._due if domain not in failed]:
            if stop.is_set() or not self._trouble.doubtful:
                break
            self._resolve(domain)

    def _settle(self) -> None:
        """End a round."""
        if self._trouble.settle(len(self._due)):
            self._carrier.cache = Cache()
            self._failures.clear()
            self._due.update(dict.fromkeys(self._trouble.problems, time.monotonic()))
            return
        well = len(self._due) - len(self._trouble.problems)
        if not self._told and well and not self._unknown:
            self._told = True
            networks = sum(len(state.networks) for state in self._states.values())
            logs.get().info("pools are resolved", domains=well, networks=networks)

    def _resolve(self, domain: str) -> None:
        chain = self._carrier.pool(domain)
        try:
            run(chain.collect())
        finally:
            chain.close()
        if chain.outcome is not None:
            self._take(domain, chain.outcome, time.time())

    def _take(self, domain: str, pool: Pool, now: float) -> None:
        """Use an answer, and plan the next question."""
        old = self._states.get(domain)
        state = poolstate.renewed(old, pool, now)
        use = "the networks known before" if state is old and old is not None else "what is seen of it"
        self._trouble.answered(domain, pool.problem, use=use)
        self._plan(domain, pool)
        if state is not None and state is not old:
            self._states[domain] = state
            self._changed = True
            if old is None or (old.networks, old.whole) != (state.networks, state.whole):
                self._publish()
        self._note()

    def _plan(self, domain: str, pool: Pool) -> None:
        if pool.problem:
            failures = self._failures[domain] = self._failures.get(domain, 0) + 1
            pause = min(RETRY_SECONDS * 2.0 ** min(failures - 1, 10), RETRY_MOST)
        else:
            self._failures.pop(domain, None)
            pause = min(max(float(pool.ttl), LEAST_SECONDS), MOST_SECONDS)
        spread = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - a pace is no secret
        self._due[domain] = time.monotonic() + max(pause * spread, LEAST_SECONDS if not pool.problem else 0)

    @property
    def _unknown(self) -> list[str]:
        return [domain for domain in self._due if domain not in self._states]

    def _publish(self) -> None:
        total = sum(len(state.networks) for state in self._states.values())
        if total > poolstate.MAX_TOTAL:
            self._report.failing(
                _TOO_MANY, error=f"over {poolstate.MAX_TOTAL} networks; not all pools are used"
            )
        else:
            self._report.recovered(_TOO_MANY)
        self._bulletin.publish(poolstate.dump(self._states))

    def _keep(self) -> None:
        self._changed = False
        data = poolstate.dump(self._states)
        statefiles.keep(self._path, data, self._report, what=_WHAT, kind="pools file")

    def _note(self) -> None:
        """Figures for `status` and Prometheus."""
        states = self._states.values()
        self._board.set_pools(
            domains=len(self._due),
            unknown=len(self._unknown),
            networks=sum(len(state.networks) for state in states),
            oldest=min((state.at for state in states), default=0.0),
            problems=len(self._trouble.problems),
        )


class Current:
    """A worker's part; `of` may be called from any thread."""

    def __init__(self, domains: Sequence[str], bulletin: Bulletin, widest: Widths) -> None:
        """`domains`: those that rules name; without any nothing is ever read."""
        self._domains = domains
        self._bulletin = bulletin
        self._widths = widest
        self._generation = 0
        self.index = PoolIndex(domains)
        """The pools as they are known now."""
        self.tick()

    def tick(self) -> None:
        """Take over what is new; to be called once a second."""
        if not self._domains or self._bulletin.generation == self._generation:
            return
        if (found := _published(self._bulletin, self._widths)) is not None:
            self._generation = found[0]
            self.index = PoolIndex(self._domains, found[1])

    def of(self, packed: bytes | None, carried: Carried | None) -> Pools:
        """The pools of a client (`PoolIndex.of`)."""
        return self.index.of(packed, carried)


def resolved(by: Carrier, names: Sequence[str]) -> Iterator[tuple[str, Pool]]:
    """Resolve pools now, some at a time; in the order of the domains.  For the command line."""
    for first in range(0, len(names), _AT_ONCE):
        chains = {domain: by.pool(domain) for domain in names[first : first + _AT_ONCE]}
        for domain, chain in chains.items():
            run(chain.collect())
            chain.close()
            if chain.outcome is not None:
                yield domain, chain.outcome


def present(config: Config) -> InPools | None:
    """The pools as a daemon has them, from its state; those that it has not, resolved now.

    For the command line; None where rules name none.
    """
    names = domains(config)
    if not names:
        return None
    states = dict(last(config))
    missing = [domain for domain in names if domain not in states]
    for domain, pool in resolved(carrier(config, config.dns.timeout), missing):
        state = poolstate.renewed(None, pool, time.time())
        if state is not None and not pool.partial:
            states[domain] = state
    return PoolIndex(names, states).of


def last(config: Config) -> States:
    """What a daemon has left on disk, nothing where that cannot be read; for the command line."""
    try:
        return kept(place(config), widths(config))
    except (OSError, ValueError):
        return NONE
