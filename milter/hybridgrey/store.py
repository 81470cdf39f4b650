"""The connection to Redis or Valkey: one script call a round trip, and a breaker around it.

`Store.run` is all that the hot path needs. It takes an idle connection (or makes one), sends EVALSHA,
reads the answer, and falls back to EVAL where the server has forgotten the script. A server on TCP or a unix
socket is plain.py's, the other kinds (TLS, Sentinel, Cluster) are endpoints.py's; the exchange is in link.py.

When the server is away, mail must not wait for it: after a few failures in a row the *breaker* opens and
every call fails at once, without a system call, until a probe succeeds. The worker's housekeeping calls
`probe` every second; without it one caller a second is the probe.

StoreError is the only error that leaves this module; its text holds no secret. A `Store` belongs to one
process: open it after the fork. All methods may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from hybridgrey import plain
from hybridgrey.link import Arguments, Backend, Direct, Script, StoreError

__all__ = ["Breaker", "OnChange", "Script", "Store", "StoreError"]

PROBE_KEY: Final = b"hg1:probe"  # no hash tag: never taken for a triplet
_PROBE_SECONDS: Final = 60

OnChange = Callable[[bool, str], None]


class Breaker:
    """Opens after `limit` failures in a row; while open one caller each `pause` seconds may try.

    Without I/O; `clock` gives seconds. `on_change(available, reason)` is called once a change, under the
    lock, so that two changes cannot be reported in the wrong order: it must not call back. The lock is only
    taken when something is or was wrong.
    """

    def __init__(
        self,
        on_change: OnChange,
        *,
        limit: int = 3,
        pause: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_change = on_change
        self._limit = limit
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0
        self._reason = ""
        self._open = False

    @property
    def open(self) -> bool:
        """Whether calls are refused."""
        return self._open

    @property
    def reason(self) -> str:
        """The last failure; "" when the last call succeeded."""
        return self._reason

    def admits(self) -> bool:
        """Whether the caller may try now; while open True for one caller in each pause."""
        if not self._open:
            return True
        with self._lock:
            if self._open and self._clock() < self._next_try:
                return False
            self._next_try = self._clock() + self._pause
            return True

    def claim(self) -> None:
        """A prober is at work: callers leave the tries to it, unless it is not heard of for three pauses."""
        with self._lock:
            self._next_try = self._clock() + 3 * self._pause

    def succeeded(self) -> None:
        """Note a success: the breaker closes."""
        if not self._failures and not self._open:
            return
        with self._lock:
            self._failures = 0
            self._reason = ""
            if self._open:
                self._open = False
                self._on_change(True, "")

    def failed(self, reason: str) -> None:
        """Note a failure; the one that reaches the limit opens the breaker."""
        with self._lock:
            self._failures += 1
            self._reason = reason
            self._next_try = max(self._next_try, self._clock() + self._pause)
            if not self._open and self._failures >= self._limit:
                self._open = True
                self._on_change(False, reason)


class Store:
    """One shared store as this process sees it."""

    # Written, not only answered: a replica, a full disk and a full memory answer PING and refuse to serve.
    _probe = Script("redis.call('SET', KEYS[1], 1, 'EX', ARGV[1]) return {1}")

    def __init__(
        self, backend: Backend, timeout: float, *, on_change: OnChange | None = None, failures: int = 3
    ) -> None:
        self._backend = backend
        self._timeout = timeout
        self._breaker = Breaker(on_change or _unheard, limit=failures)

    @classmethod
    def open(cls, url: str, timeout: float, *, on_change: OnChange | None = None, failures: int = 3) -> Store:
        """The store at `url`, each call bounded to about `timeout` seconds; connects at the first call.

        redis://, rediss://, unix://, sentinel://, cluster:// as in endpoints.py; embedded: is resolved by the
        caller to the unix:// URL of its server. Host names are resolved by the system, which has time limits
        of its own: addresses are safer. `on_change(available, reason)` is called once each time the breaker
        opens or closes, which it does after `failures` in a row. Raises StoreError for a bad URL.
        """
        return cls(_backend(url, timeout), timeout, on_change=on_change, failures=failures)

    @property
    def available(self) -> bool:
        """False while the breaker is open."""
        return not self._breaker.open

    @property
    def reason(self) -> str:
        """Why the last call failed; "" when it did not."""
        return self._breaker.reason

    def run(self, script: Script, keys: Sequence[bytes], args: Arguments) -> list[int]:
        """Run a script that returns integers: one round trip. Raises StoreError.

        The keys of one call must share a hash tag. A connection found dead is replaced once and the call
        repeated, so the script must bear being run twice.
        """
        if not self._breaker.admits():
            raise StoreError(f"the store is down: {self._breaker.reason}")
        return self._attempt(script, keys, args)

    def ping(self) -> None:
        """Ask the server to write, whatever the breaker thinks. Raises StoreError."""
        self._attempt(self._probe, (PROBE_KEY,), (_PROBE_SECONDS,))

    def probe(self) -> bool:
        """Look whether a store that was given up is back; called every second by housekeeping.

        While it is called, no caller of `run` has to try, so no mail waits for a dead store.
        """
        if self._breaker.open:
            self._breaker.claim()
            try:
                self.ping()
            except StoreError:
                return False  # the breaker has it
        return True

    def close(self) -> None:
        """Close the idle connections; those in use close when their call ends."""
        self._backend.close()

    def _attempt(self, script: Script, keys: Sequence[bytes], args: Arguments) -> list[int]:
        try:
            reply = self._backend.evaluate(script, keys, args, self._timeout)
        except StoreError as error:
            self._breaker.failed(str(error))
            raise
        if not isinstance(reply, list):
            wrong = f"not a list of integers but a {type(reply).__name__}"
            self._breaker.failed(wrong)
            raise StoreError(wrong)
        self._breaker.succeeded()
        return reply


def _backend(url: str, timeout: float) -> Backend:
    try:
        server = plain.server(url)
    except ValueError:
        server = None  # redis-py's words for what is wrong with it
    if server is not None:
        return Direct(server)
    # Only here: redis-py costs every process 8 MiB.
    from hybridgrey import endpoints

    return endpoints.backend(url, timeout)


def _unheard(_available: bool, _reason: str) -> None:
    """The change of state is not wanted."""
