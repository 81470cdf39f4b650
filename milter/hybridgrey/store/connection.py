"""The connection to Redis or Valkey: one script call a round trip, and a breaker around it.

`Store.run` is all that the hot path needs. It takes an idle connection (or makes one), sends EVALSHA,
reads the answer, and falls back to EVAL where the server has forgotten the script. A server on TCP or a unix
socket is `plain`'s, the other kinds (TLS, Sentinel, Cluster) are `redis_py`'s; the exchange is in `link`.

When the server is away, mail must not wait for it: after a few failures in a row the *breaker* opens and
every call fails at once, without a system call, until a probe succeeds. The worker's housekeeping calls
`probe` every second; without it one caller a second is the probe. Each shard of a Redis Cluster has a breaker
of its own (see `breaker`).

StoreError is the only error that leaves this module; its text holds no secret. A `Store` belongs to one
process: open it after the fork. All methods may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hybridgrey.breaker import Breaker, OnChange, unheard
from hybridgrey.store import plain
from hybridgrey.store.breaker import Breakers
from hybridgrey.store.link import Arguments, Backend, Call, Direct, Script, StoreError, Where

__all__ = ["Breaker", "Call", "OnChange", "Script", "Store", "StoreError"]

PROBE_KEY: Final = b"hg1:probe"  # no hash tag: never taken for a triplet
_PROBE_SECONDS: Final = 60


class Store:
    """One shared store as this process sees it."""

    # Written, not only answered: a replica, a full disk and a full memory answer PING and refuse to serve.
    _probe = Script("redis.call('SET', KEYS[1], 1, 'EX', ARGV[1]) return {1}")

    def __init__(
        self, backend: Backend, timeout: float, *, on_change: OnChange | None = None, failures: int = 3
    ) -> None:
        self._backend = backend
        self._timeout = timeout
        self._breakers = Breakers(unheard if on_change is None else on_change, limit=failures)
        # What to ask for to see whether a shard is back: a key of its own, by breaker.
        self._probes: dict[Breaker, bytes] = {}

    @classmethod
    def open(cls, url: str, timeout: float, *, on_change: OnChange | None = None, failures: int = 3) -> Store:
        """The store at `url`, each call bounded to about `timeout` seconds; connects at the first call.

        redis://, rediss://, unix://, sentinel://, cluster:// as in `redis_py`; embedded: is resolved by the
        caller to the unix:// URL of its server. Host names are resolved by the system, which has time limits
        of its own: addresses are safer. `on_change(available, reason)` is called once when a breaker opens,
        after `failures` in a row, and once when none is open any more. Raises StoreError for a bad URL.
        """
        return cls(_backend(url, timeout), timeout, on_change=on_change, failures=failures)

    @property
    def available(self) -> bool:
        """False while a breaker is open."""
        return not self._breakers.given_up()

    @property
    def reason(self) -> str:
        """Why a call failed; "" when the last one to each shard did not."""
        return self._breakers.reason

    def run(
        self, script: Script, keys: Sequence[bytes], args: Arguments, seconds: float | None = None
    ) -> list[int]:
        """Run a script that returns integers: one round trip, of at most `seconds`. Raises StoreError.

        The keys of one call must share a hash tag. A connection found dead is replaced once and the call
        repeated, so the script must bear being run twice.
        """
        timeout = self._timeout if seconds is None else min(seconds, self._timeout)
        return self._attempt(self.admitted(keys), script, keys, args, timeout)

    @property
    def where(self) -> Where | None:
        """How to connect to the one server that has all keys; None if there is no such server."""
        return self._backend.where if isinstance(self._backend, Direct) else None

    @property
    def timeout(self) -> float:
        """Seconds that a call may take."""
        return self._timeout

    def admitted(self, keys: Sequence[bytes]) -> Breaker:
        """The breaker of a shard, which is to be told how the call went. Raises StoreError if it is open."""
        breaker = self._breakers.of(self._backend.shard(keys))
        if not breaker.admits():
            raise StoreError(f"the store is down: {breaker.reason}")
        return breaker

    def checked(self, breaker: Breaker, reply: object, keys: Sequence[bytes]) -> list[int]:
        """A reply as a list of integers. Raises StoreError if it is none; the breaker is told."""
        if not isinstance(reply, list):
            wrong = f"not a list of integers but a {type(reply).__name__}"
            self.failed(breaker, wrong, keys)
            raise StoreError(wrong)
        breaker.succeeded()
        return reply

    def failed(self, breaker: Breaker, reason: str, keys: Sequence[bytes]) -> None:
        """Tell a breaker why a call about these keys failed."""
        self._probes[breaker] = _probe_key(keys)
        breaker.failed(reason)

    def run_everywhere(self, script: Script) -> list[list[int]]:
        """Run a script without arguments on every shard. Raises StoreError when one does not answer."""
        return [self.run(script, (key,), ()) for key in self._backend.samples(PROBE_KEY)]

    def ping(self) -> None:
        """Ask every shard to write, whatever the breakers think. Raises StoreError when one does not."""
        failed = None
        for key in self._backend.samples(PROBE_KEY):
            try:
                self._try(self._breakers.of(self._backend.shard((key,))), key)
            except StoreError as error:
                failed = error
        if failed is not None:
            raise failed

    def probe(self) -> bool:
        """Look whether what was given up is back; called every second by housekeeping.

        While it is called, no caller of `run` has to try, so no mail waits for a dead store.
        """
        given_up = self._breakers.given_up()
        for breaker in given_up:
            breaker.claim()
        for breaker in given_up:
            try:
                # Its own keys, wherever they are now: another server may have taken them over.
                self._try(breaker, self._probes.get(breaker, PROBE_KEY))
            except StoreError:
                continue  # the breaker has it
        return not self._breakers.given_up()

    def close(self) -> None:
        """Close the idle connections; those in use close when their call ends."""
        self._backend.close()

    def _try(self, breaker: Breaker, key: bytes) -> None:
        self._attempt(breaker, self._probe, (key,), (_PROBE_SECONDS,), self._timeout)

    def _attempt(
        self, breaker: Breaker, script: Script, keys: Sequence[bytes], args: Arguments, timeout: float
    ) -> list[int]:
        try:
            reply = self._backend.evaluate(script, keys, args, timeout)
        except StoreError as error:
            self.failed(breaker, str(error), keys)
            raise
        return self.checked(breaker, reply, keys)


def _probe_key(keys: Sequence[bytes]) -> bytes:
    """A key that is where these are: with their hash tag, and never taken for a triplet."""
    _, brace, tag = keys[0].partition(b"{") if keys else (b"", b"", b"")
    tag, end, _ = tag.partition(b"}")
    return PROBE_KEY + b":{" + tag + b"}" if brace and end and tag else PROBE_KEY


def _backend(url: str, timeout: float) -> Backend:
    try:
        server = plain.server(url)
    except ValueError:
        server = None  # redis-py's words for what is wrong with it
    if server is not None:
        return Direct(server)
    # Only here: redis-py costs every process 8 MiB.
    from hybridgrey.store import redis_py

    return redis_py.backend(url, timeout)
