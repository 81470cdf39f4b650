"""The keeper: the one child process for everything periodic and threaded, and for HTTP.

The master must not start threads, for it forks; workers have mail to judge. So the master forks a keeper, and
again when it dies. ``run`` is that process's main function: it serves `page.site`, runs the given tasks
(such as the prober of the lists) in threads of their own, and returns when the master stops it or is gone.
Mail never waits for it: with the keeper dead or its port taken, workers go on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hybridgrey import logs
from hybridgrey.address import endpoint_text
from hybridgrey.cleaning import clean
from hybridgrey.metrics.shared import Board, Shared
from hybridgrey.page.server import Server
from hybridgrey.process import privileges
from hybridgrey.trouble.reporter import Report

if TYPE_CHECKING:
    from hybridgrey.page.site import Site

Task = Callable[[threading.Event], None]
Check = Callable[[], str]
MakeSite = Callable[[Callable[[], list[str]]], "Site"]

RETRY = 30.0
"""Seconds between tries to bind a port that is in use."""
HANDOVER_TRIES = 120
HANDOVER_PAUSE = 0.05
CHECK_SECONDS = 2.0
TASK_PAUSE = 10.0
STOP_SECONDS = 2.0


def run(
    shared: Shared,
    report: Report,
    *,
    listen: tuple[str, int] | None,
    parent: int,
    tasks: Sequence[Task] = (),
    checks: Mapping[str, Check] | None = None,
    site: MakeSite | None = None,
) -> int:
    """Serve and run the tasks until SIGTERM comes or the process `parent` is gone; return an exit status.

    listen: (host, port), None for no HTTP; port 0 is any port, logged. parent: the master's process id, taken
    before the fork. tasks: each is called in a thread with an event to watch; one that raises is logged and
    called again after ``TASK_PAUSE``; one that returns is done. checks: name to a function that returns why
    the daemon is not healthy, or ""; they are asked at most each ``CHECK_SECONDS``. site: makes what is
    served, of a function that says why the daemon is not healthy; by default metrics and health only.
    """
    # Blocked and waited for, instead of a handler: a handler that sets an event can interrupt the very
    # wait on that event and lock up. Set before any thread starts, for threads inherit the mask.
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in (signal.SIGINT, signal.SIGHUP):  # the terminal sends them to all; the master decides
        signal.signal(other, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})

    privileges.step_back()
    stop = threading.Event()
    jobs = [_guarded(task, report) for task in tasks]
    if listen is not None:
        health = Readiness(shared.board, checks or {})
        make = site or partial(_plain_site, shared)
        jobs.append(
            _guarded(partial(serve, listen, shared.board, partial(make, health.reasons), report), report)
        )
    threads = [threading.Thread(target=job, args=(stop,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    while os.getppid() == parent:
        if signal.sigtimedwait({signal.SIGTERM}, 1.0) is not None:
            break
    stop.set()
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return 0


def _guarded(task: Task, report: Report) -> Task:
    """Return `task` such that a bug in it is told, and tried again, instead of ending its thread unseen."""
    kind = f"keeper task:{_name(task)}"

    def guarded(stop: threading.Event) -> None:
        last = ""
        while not stop.is_set():
            try:
                task(stop)
            except Exception as error:  # any task's any bug: the others and mail go on
                said = f"{type(error).__name__}: {error}"
                if said != last:  # the frames once; how often it happens is the report's part
                    logs.get().error("keeper task failed", exc_info=error)
                last = said
                report.failing(kind, error=said)
                stop.wait(TASK_PAUSE)
            else:
                # One that ends because it was told to has not shown that it works.
                if not stop.is_set():
                    report.recovered(kind)
                return

    return guarded


def _name(task: Task) -> str:
    inner = task.func if isinstance(task, partial) else task
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))


class Readiness:
    """Whether the daemon is ready, and why not. What checks said is kept a while: they may be slow."""

    def __init__(
        self, board: Board, checks: Mapping[str, Check], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._board = board
        self._checks = checks
        self._clock = clock
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._said: list[str] = []

    def reasons(self) -> list[str]:
        """Return why the daemon is not healthy, one line each; nothing when it is."""
        board = self._board
        found = [] if board.ready else ["not ready: not accepting connections"]
        if board.alive < max(1, board.wanted):
            found.append(f"workers: {board.alive} of {board.wanted} alive")
        return found + self._checked()

    def _checked(self) -> list[str]:
        with self._lock:  # one asks, the others wait for its answer
            if self._clock() - self._asked >= CHECK_SECONDS:
                self._said = [
                    f"{name}: {said}" for name, check in self._checks.items() if (said := _ask(check))
                ]
                self._asked = self._clock()
            return self._said


def _ask(check: Check) -> str:
    try:
        return clean(check())
    except Exception as error:  # a check that raises has failed; its text may hold a secret
        return f"failed ({type(error).__name__})"


def _plain_site(shared: Shared, health: Callable[[], list[str]]) -> Site:
    from hybridgrey.page import site  # only here: the master and workers do without it

    return site.Site(shared, health)


def serve(
    listen: tuple[str, int], board: Board, site: Callable[[], Site], report: Report, stop: threading.Event
) -> None:
    """Answer HTTP until `stop` is set; while the port is in use, say so once and try again."""
    made = site()
    tries = 0
    while not stop.is_set():
        try:
            server = Server(listen, made)
        except OSError as error:
            tries += 1
            # After a reload the keeper before us may take a moment to let go of the port.
            if tries > HANDOVER_TRIES:
                where = endpoint_text(*listen)
                report.failing("metrics listener", address=where, error=error.strerror or str(error))
            stop.wait(RETRY if tries > HANDOVER_TRIES else HANDOVER_PAUSE)
            continue
        report.recovered("metrics listener")
        with server:
            host, port = server.server_address[:2]
            log = logs.get()
            # Each reload brings a new keeper; only a new place is news
            tell = log.info if board.served(f"{host!r} {port}") else log.debug
            tell("metrics served", address=str(host), port=port)
            while not stop.is_set():
                server.handle_request()
                server.close_overdue()
