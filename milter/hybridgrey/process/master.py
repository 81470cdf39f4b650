"""The master process: it forks, watches, restarts, reloads and ends the others, and serves no mail itself.

Terms: a *generation* is the processes of one configuration.  *Current* serves; *next* is coming up, at start
or after a reload; a *retired* one is draining.  One thread, for it forks all its life.

========  ==================================================================
signal    does
========  ==================================================================
HUP       reload: load, check, fork the next generation, drain the current
TERM INT  end: take no more connections, drain, stop the store; twice: hurry
CHLD      reap, restart
========  ==================================================================
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from hybridgrey import __version__, logs
from hybridgrey.config.load import Config, ConfigError
from hybridgrey.config.restart_only import keep
from hybridgrey.metrics.shared import Shared
from hybridgrey.process import engines, worker
from hybridgrey.process.children import Child, how
from hybridgrey.process.configcopy import ConfigCopy
from hybridgrey.process.generation import KEEPER, WORKER, Build, Generation
from hybridgrey.process.listener import Listener
from hybridgrey.process.loop import Loop
from hybridgrey.process.pidfile import PidFile, Record
from hybridgrey.process.restarts import Pace, Restarts
from hybridgrey.process.store_watch import StoreWatch
from hybridgrey.process.systemd import Notifier
from hybridgrey.trouble.log import Troubles

_MOST_PROBLEMS = 20  # in the pid file; the log has them all


@dataclass(frozen=True, slots=True)
class World:
    """What the master is given: what was opened for it, and how to get what it does not know itself."""

    listener: Listener
    load: Callable[[], Config]
    """Read the configuration again; raises ConfigError."""
    build: Build
    """What a configuration puts into the processes, given the shared memory of the one before."""
    notifier: Notifier
    troubles: Troubles
    store: StoreWatch | None = None
    pidfile: PidFile | None = None
    copy: ConfigCopy | None = None
    pace: Pace = field(default_factory=Pace)


class Master:
    """See the module."""

    def __init__(self, config: Config, world: World, loop: Loop) -> None:
        self._config = config
        self._world = world
        self._loop = loop
        self._pace = world.pace
        self._restarts = Restarts(world.pace)
        self._numbers = count(1)
        self._shared: Shared | None = None
        self._current: Generation | None = None
        self._next: Generation | None = None
        self._retired: list[Generation] = []
        self._again = False
        self._stopping = False
        self._hurried = False
        self._status = os.EX_OK
        self._reloads = 0
        self._kept: tuple[str, ...] = ()

    def run(self) -> int:
        """Serve until told to end; the exit status, 0 after an orderly end."""
        self._watch()
        self._begin(self._config)
        self._loop.run()
        if self._world.store is not None:
            self._world.store.stop()
        if not self._world.listener.remove():
            logs.get().info("the socket's file stays, its folder belongs to another user")
        if self._world.copy is not None:
            self._world.copy.remove()
        if self._world.pidfile is not None:
            self._world.pidfile.remove()
        logs.get().info("ended")
        for number in self._loop.signals - {signal.SIGCHLD}:
            # Told again while the interpreter ends, which gives signals their default back: the status stays.
            signal.signal(number, signal.SIG_IGN)
        return self._status

    def _watch(self) -> None:
        loop, world = self._loop, self._world
        loop.on_signal(signal.SIGTERM, self._stop)
        loop.on_signal(signal.SIGINT, self._stop)
        loop.on_signal(signal.SIGHUP, self._reload)
        loop.on_signal(signal.SIGCHLD, self._reap)
        loop.on_readable(world.troubles.fileno(), world.troubles.receive)
        loop.every(self._pace.tick, self._tick)
        if world.notifier.watchdog_interval:
            loop.every(world.notifier.watchdog_interval, world.notifier.alive)

    def _tick(self) -> None:
        self._world.troubles.tick()
        if self._world.store is not None:
            self._world.store.tick()

    # A generation comes up

    def _begin(self, config: Config) -> None:
        parts = self._world.build(config, self._shared)
        self._shared = parts.shared
        listening = self._world.listener.socket
        generation = self._next = Generation(next(self._numbers), config, parts, self._loop, listening)
        # What is alive now is shared with the children; the collector would touch, and so copy, every page
        gc.collect()
        gc.freeze()
        try:
            self._fork(generation, KEEPER, 0)
            for index in range(config.worker_count):
                self._fork(generation, WORKER, index)
        except OSError as exc:
            self._abandon(generation, f"no process to be had: {exc.strerror}")
            return
        self._loop.later(self._pace.ready, lambda: self._overdue(generation))

    def _fork(self, generation: Generation, role: str, index: int) -> Child:
        return generation.fork(role, index, lambda _child: self._heard(generation))

    def _heard(self, generation: Generation) -> None:
        if generation is self._next and generation.ready:
            self._promote(generation)
        self._show()

    def _promote(self, generation: Generation) -> None:
        old, self._current, self._next = self._current, generation, None
        config = self._config = generation.config
        self._restarts.forget()
        if old is not None:
            self._retire(old)
        if self._world.copy is not None:
            self._world.copy.write(config)  # first: who hears that we are ready may look at it
        logs.get().info(
            "reloaded" if old else "ready",
            listen=str(self._world.listener),
            workers=config.worker_count,
            version=__version__,
            mode=config.mode,
            engine=engines.chosen(config.engine),
        )
        self._world.notifier.ready(f"{config.worker_count} workers, mode {config.mode}")
        self._record(reloaded=old is not None)
        self._reload_again()

    def _overdue(self, generation: Generation) -> None:
        if generation is self._next and not self._stopping:
            generation.keeper_needed = False
            if generation.ready:
                self._promote(generation)
                return
            late = ", ".join(str(child) for child in generation.children if not child.ready)
            self._abandon(generation, f"not ready after {self._pace.ready:g} s: {late}")

    def _abandon(self, generation: Generation, why: str) -> None:
        self._next = None
        self._retire(generation)
        if self._current is None:
            logs.get().error("start failed", reason=why)
            self._status = os.EX_UNAVAILABLE
            self._stop()
        else:
            self._refuse(why)
            self._reload_again()

    def _retire(self, generation: Generation) -> None:
        self._retired.append(generation)
        generation.end_keeper()
        self._drain(generation)

    def _drain(self, generation: Generation) -> None:
        generation.drain()
        self._loop.later(generation.config.drain_timeout + self._pace.grace, generation.kill)

    def _all(self) -> list[Generation]:
        alive = (self._current, self._next, *self._retired)
        return [generation for generation in alive if generation is not None]

    # A process ends

    def _reap(self) -> None:
        for generation in self._all():
            for child, status in generation.reap():
                # At the end nobody is left to see it work, and that is no news.
                if not self._stopping:
                    self._world.troubles.gone(child.pid)
                self._ended(generation, child, status)
        self._retired = [generation for generation in self._retired if generation.children]
        self._show()
        if self._stopping:
            self._stop_rest()

    def _ended(self, generation: Generation, child: Child, status: int) -> None:
        if generation is self._next and child.role == WORKER and not self._stopping:
            self._abandon(generation, f"{child} ended with {how(status)}")
        elif generation in (self._next, self._current) and not self._stopping:
            if child.role == KEEPER:
                generation.keeper_needed = False
                self._heard(generation)
            wait = self._restarts.died(child, status)
            self._loop.later(wait, lambda: self._restart(generation, child))
        elif status and child.ready and child.role == WORKER and not self._hurried:
            logs.get().warning("process died while draining", process=str(child), by=how(status))

    def _restart(self, generation: Generation, dead: Child) -> None:
        if generation not in (self._current, self._next) or self._stopping:
            return
        try:
            child = self._fork(generation, dead.role, dead.index)
        except OSError as exc:
            logs.get().error("no process to be had", process=str(dead), error=exc.strerror)
            self._loop.later(self._pace.longest_wait, lambda: self._restart(generation, dead))
            return
        self._loop.later(self._pace.ready, lambda: self._kill_hung(generation, child))
        if self._restarts.looping(dead):
            self._loop.later(self._pace.healthy, lambda: self._say_sound(generation, child))

    def _kill_hung(self, generation: Generation, child: Child) -> None:
        if child in generation.children and not child.ready:
            child.kill(signal.SIGKILL)

    def _say_sound(self, generation: Generation, child: Child) -> None:
        if child in generation.children and child.ready:
            logs.get().info("process is sound again", process=str(child))

    def _show(self) -> None:
        """Tell the keeper, who tells `/healthz`."""
        current = self._current
        if current is not None:
            alive = 0 if self._stopping else sum(child.ready for child in current.workers)
            current.shared.board.set_workers(alive, current.config.worker_count)
            current.shared.board.set_ready(alive > 0)

    # Orders

    def _reload(self) -> None:
        if self._stopping:
            return
        if self._next is not None:
            self._again = True  # one after the other; what changed meanwhile is read then
            return
        self._world.notifier.reloading()
        try:
            self._begin(self._load())
        except ConfigError as exc:
            for problem in exc.problems:
                logs.get().error("bad configuration", problem=problem)
            count = len(exc.problems)
            self._refuse(f"{count} problem{'s' * (count != 1)} in the configuration", exc.problems)
        except worker.UnfitError as exc:
            self._refuse(f"engine: {exc}")
        except Exception as exc:
            # A bug, but not one to end all mail for: what serves now is untouched
            logs.get().exception("reload failed unexpectedly")
            self._refuse(type(exc).__name__)

    def _load(self) -> Config:
        """The new configuration, with the old values where only a restart can change them.

        Raises ConfigError, and `worker.UnfitError` when its engine cannot be had.
        """
        config, kept = keep(self._config, self._world.load())
        engines.load(config.engine)
        self._kept = kept
        logs.configure(config.log.level, config.log.format)
        for key in kept:
            logs.get().warning("change needs a restart, the old value stays", key=key)
        for warning in config.warnings:
            logs.get().warning("configuration", warning=warning)
        return config

    def _reload_again(self) -> None:
        if self._again:
            self._again = False
            self._reload()

    def _refuse(self, why: str, problems: tuple[str, ...] = ()) -> None:
        logs.get().error("reload failed, the old configuration stays", reason=why)
        logs.configure(self._config.log.level, self._config.log.format)
        self._world.notifier.ready("reload failed, the old configuration stays")
        self._record(reloaded=True, problems=problems or (why,))

    def _record(self, *, reloaded: bool, problems: tuple[str, ...] = ()) -> None:
        """Say in the pid file who serves, and how the reload went."""
        self._reloads += reloaded
        if self._shared is not None:
            self._shared.board.set_reload_ok(not problems)
        config = self._config
        record = Record(
            pid=os.getpid(),
            config=str(config.path or ""),
            workers=config.worker_count,
            mode=config.mode,
            reloads=self._reloads,
            problems=problems[:_MOST_PROBLEMS],
            needs_restart=self._kept,
        )
        if self._world.pidfile is not None:
            self._world.pidfile.write(record)

    def _stop(self) -> None:
        if self._stopping:
            self._hurry()
            return
        self._stopping = True
        self._world.notifier.stopping()
        logs.get().info("ending", drain_timeout=self._config.drain_timeout)
        self._world.listener.close()
        for generation in self._all():
            self._drain(generation)
        self._show()
        self._stop_rest()

    def _hurry(self) -> None:
        logs.get().warning("told again to end: open sessions are cut")
        self._hurried = True
        for generation in self._all():
            generation.kill()

    def _stop_rest(self) -> None:
        """When the last worker is gone, so goes the keeper; when that is gone, the loop ends."""
        everyone = self._all()
        if any(generation.workers for generation in everyone):
            return
        for generation in everyone:
            generation.end_keeper()
        if not any(generation.children for generation in everyone):
            self._loop.stop()
