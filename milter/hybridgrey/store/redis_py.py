"""Where the store is: the kinds of URL, and one script call to each kind of server.

    redis://[user:password@]host[:port][/db]       TCP
    rediss://...                                   TLS, verified; ?ssl_ca_certs=FILE, ?ssl_cert_reqs=none, ...
    unix://[user:password@]/path[?db=N]            unix socket
    sentinel://[user:password@]host:port,.../name[/db]
                                                   the primary that the sentinels name; ?ssl=true for it,
                                                   ?sentinel_username=, ?sentinel_password= for the sentinels
    cluster://[user:password@]host:port,...        Redis Cluster; ?ssl=true

The options after `?` are those of redis-py's connections. link.py makes the calls to a single server; the
commonest kinds are `plain`'s and need nothing from here.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from hybridgrey.store.link import (
    Arguments,
    Backend,
    Direct,
    Link,
    LostError,
    Script,
    StoreError,
    clean,
    reason,
    split,
)

_SAMPLES: Final = 10_000  # keys tried to have one in each shard


def backend(url: str, timeout: float) -> Backend:
    """The backend for a store URL; nothing is connected yet. Raises StoreError for a bad URL."""
    try:
        parts = split(url)
        if parts.scheme == "sentinel":
            return Direct(_Sentinels(parts, timeout))
        if parts.scheme == "cluster":
            return Cluster(parts, timeout)
        return Direct(_Fixed(url, timeout))
    except (ValueError, TypeError, redis.RedisError) as error:
        raise StoreError(f"bad store URL: {clean(str(error), url)}") from None


def primaries(url: str, timeout: float) -> list[redis.Redis]:
    """redis-py's clients for the servers that hold the keys, all primaries of a cluster: for looking through.

    Raises StoreError for a bad URL or when the servers cannot be found; the calls themselves raise redis-py's
    errors.
    """
    kind = backend(url, timeout)
    if isinstance(kind, Cluster):
        return kind.primaries()
    where = kind.where if isinstance(kind, Direct) else None
    if not isinstance(where, _Fixed | _Sentinels):
        raise StoreError("this kind of store cannot be looked through")
    return [redis.Redis(connection_pool=where.pool(timeout))]


class _Fixed:
    """A server whose address the URL gives."""

    remembered: Final = False

    def __init__(self, url: str, timeout: float) -> None:
        options = dict(parse_url(url))  # type: ignore[no-untyped-call]
        self._class: Callable[..., AbstractConnection] = options.pop("connection_class", Connection)
        self._options = options | _quiet()
        self.connection(timeout)  # an unknown option in the URL is an error now, not at the first mail

    def connection(self, timeout: float) -> AbstractConnection:
        """A connection that is not yet connected."""
        return self._class(**(self._options | _timeouts(timeout)))

    def link(self, timeout: float) -> Link:
        """As in Where."""
        return _link(self.connection(timeout), timeout)

    def pool(self, timeout: float) -> redis.ConnectionPool:
        """Connections for a client of redis-py."""
        return _pool(self._class, self._options | _timeouts(timeout))

    def forget(self) -> None:
        """Nothing is remembered."""


class _Sentinels:
    """The primary that the sentinels name; asked again after every lost connection."""

    def __init__(self, parts: SplitResult, timeout: float) -> None:
        path = unquote(parts.path).strip("/").split("/")
        if not path[0]:
            raise ValueError("sentinel://host:port,…/NAME: the name of the primary is missing")
        query = _query(parts)
        sentinel_options = {
            name.removeprefix("sentinel_"): query.pop(name)
            for name in ("sentinel_username", "sentinel_password")
            if name in query
        }
        self._name = path[0]
        self._class = SSLConnection if _is_true(query.pop("ssl", "")) else Connection
        self._options = _credentials(parts) | query | _quiet()
        self._options["db"] = int(path[1]) if len(path) > 1 else 0
        hosts = _hosts(parts, 26379)
        # They are asked one after the other: with the whole network away, each must have only its share.
        share = _timeouts(timeout / len(hosts))
        self._sentinels = Sentinel(  # type: ignore[no-untyped-call]
            hosts, sentinel_kwargs=sentinel_options | _quiet() | share
        )
        self._address: tuple[str, int] | None = None
        self._class(host="localhost", **self._options)

    @property
    def remembered(self) -> bool:
        """As in Where."""
        return self._address is not None

    def connection(self, timeout: float) -> AbstractConnection:
        """A connection that is not yet connected; asks the sentinels when the primary is not known."""
        address = self._address
        if address is None:
            try:
                address = self._sentinels.discover_master(self._name)  # type: ignore[no-untyped-call]
            except MasterNotFoundError:
                # Not its text, which is that of all the library's objects.
                raise LostError(f"no sentinel can name a working primary {self._name}") from None
            except (OSError, redis.RedisError) as error:
                raise LostError(reason(error)) from None
            self._address = address
        return self._class(host=address[0], port=address[1], **(self._options | _timeouts(timeout)))

    def link(self, timeout: float) -> Link:
        """As in Where."""
        return _link(self.connection(timeout), timeout)

    def pool(self, timeout: float) -> redis.ConnectionPool:
        """Connections to the primary for a client of redis-py."""
        self.connection(timeout)
        host, port = self._address or ("", 0)
        return _pool(self._class, self._options | _timeouts(timeout) | {"host": host, "port": port})

    def forget(self) -> None:
        """As in Where."""
        self._address = None


class Cluster:
    """A Redis Cluster, by redis-py's client: it follows the slots.

    A shard is one primary. A call can take a few times the timeout while nodes are away, since the client
    asks several; the breaker of the shard bounds how often.
    """

    def __init__(self, parts: SplitResult, timeout: float) -> None:
        query = _query(parts)
        # Not _quiet: the client refuses a new connection with unread bytes, as TLS session tickets are until
        # the server has answered something, and its answer to the client's name is the first.
        self._options = _credentials(parts) | query | _once() | _timeouts(timeout)
        self._options["ssl"] = _is_true(query.pop("ssl", ""))
        self._nodes = [
            ClusterNode(host, port)  # type: ignore[no-untyped-call]
            for host, port in _hosts(parts, 6379)
        ]
        self._timeout = timeout
        self._client: redis.RedisCluster | None = None
        self._lock = threading.Lock()

    def evaluate(self, script: Script, keys: Sequence[bytes], args: Arguments, _timeout: float) -> object:
        """As in Backend."""
        shard = self.shard(keys)
        try:
            client: Any = self._connected()
            try:
                return client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return client.execute_command("EVAL", script.text, len(keys), *keys, *args)
        except (OSError, redis.RedisError, redis.exceptions.RedisClusterException) as error:
            raise StoreError(f"{shard}: {reason(error)}" if shard else reason(error)) from None

    def shard(self, keys: Sequence[bytes], /) -> str:
        """As in Backend: the primary, by the slots as they are known now; "" while they are not."""
        client: Any = self._client
        if client is None or not keys:
            return ""
        try:
            return str(client.get_node_from_key(keys[0]).name)
        except (redis.RedisError, redis.exceptions.RedisClusterException):
            return ""  # nobody has the slot

    def samples(self, key: bytes, /) -> Sequence[bytes]:
        """As in Backend."""
        client: Any = self._client
        wanted = len(client.get_primaries()) if client is not None else 0
        by_shard: dict[str, bytes] = {}
        for number in range(_SAMPLES):
            if len(by_shard) >= wanted:
                break
            sample = b"%s:{%d}" % (key, number)
            by_shard.setdefault(self.shard((sample,)), sample)
        return tuple(by_shard.values()) or (key,)

    def primaries(self) -> list[redis.Redis]:
        """A client for each primary."""
        try:
            client: Any = self._connected()
            return [client.get_redis_connection(node) for node in client.get_primaries()]
        except (OSError, redis.RedisError, redis.exceptions.RedisClusterException) as error:
            raise StoreError(reason(error)) from None

    def close(self) -> None:
        """As in Backend."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> redis.RedisCluster:
        """The client; making it asks a node for the slots, so it is not made before it is needed."""
        if self._client is not None:
            return self._client
        # Not for ever: who is before us may wait for every node in vain.
        if not self._lock.acquire(timeout=self._timeout):
            raise StoreError("no answer in time")
        try:
            if self._client is None:
                self._client = redis.RedisCluster(startup_nodes=self._nodes, **self._options)
            return self._client
        finally:
            self._lock.release()


def _link(connection: AbstractConnection, timeout: float) -> Link:
    """A connection of redis-py, connected and ready for exchanges past it."""
    try:
        connection.connect()  # type: ignore[no-untyped-call]
    except (OSError, redis.RedisError, AttributeError, UnicodeError) as error:
        # AttributeError: redis-py 8 looks for the host of a unix socket that timed out.  UnicodeError: a name
        # that DNS cannot have.
        raise LostError(reason(error)) from None
    # redis-py has no public name for the socket; this one has been there in all its versions.
    connected: Any = connection
    return Link(connected._sock, connected.disconnect, timeout)


def _pool(kind: Callable[..., AbstractConnection], options: dict[str, Any]) -> redis.ConnectionPool:
    return redis.ConnectionPool(connection_class=kind, **options)


def _once() -> dict[str, Any]:
    """Options of a connection that does not retry: that is the caller's, under its deadline."""
    return {"retry": Retry(NoBackoff(), 0), "protocol": 2}


def _quiet() -> dict[str, Any]:
    """Options of a connection that moreover does not tell the server who we are.

    The name of the client library costs two round trips; the option to leave it out has changed its name.
    """
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters:
        return _once() | {"driver_info": None}
    return _once() | {"lib_name": None, "lib_version": None}


def _timeouts(timeout: float) -> dict[str, float]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout}


def _credentials(parts: SplitResult) -> dict[str, Any]:
    pairs = {"username": parts.username, "password": parts.password}
    return {name: unquote(value) for name, value in pairs.items() if value}


def _query(parts: SplitResult) -> dict[str, Any]:
    """The options of a URL that redis-py does not read itself, so its types are ours to give."""
    query: dict[str, Any] = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if "ssl_check_hostname" in query:
        query["ssl_check_hostname"] = _is_true(query["ssl_check_hostname"])
    return query


def _is_true(text: str) -> bool:
    return text.lower() in {"1", "true", "yes", "on"}


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """The (host, port) pairs of `a:1,b:2,[::1]:3`. Raises ValueError."""
    hosts = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        place = urlsplit(f"//{text}")
        if not place.hostname:
            raise ValueError("a host name is missing")
        hosts.append((place.hostname, place.port or default_port))
    return hosts
