"""What all look-ups of a worker share: nameservers, the lists, the cache, and who is silent."""

from __future__ import annotations

from collections.abc import Sequence

from hybridgrey.lists.cache import Cache
from hybridgrey.lists.exchange import Exchange, MakeExchange
from hybridgrey.lists.texts import Reasons
from hybridgrey.lists.upstream import Lists, Nameservers, NoReporter
from hybridgrey.lists.zones import Zone
from hybridgrey.trouble.reporter import Report


class Resolver:
    """One for each worker; safe for threads."""

    def __init__(
        self,
        zones: Sequence[Zone],
        nameservers: Sequence[tuple[str, int]],
        *,
        timeout: float = 2.0,
        suspended: Sequence[int] | bytearray | memoryview = b"",
        reporter: Report | None = None,
        cache: Cache | None = None,
        exchange: MakeExchange = Exchange,
    ) -> None:
        """`nameservers`: at least one; `suspended`: a byte for each zone, by its index.

        `exchange` makes the wire of a client.
        """
        reporter = reporter or NoReporter()
        self.zones = {z.name: z for z in zones}
        self.servers = Nameservers(nameservers, reporter)
        self.lists = Lists(zones, reporter)
        self.reasons = Reasons()
        self.timeout = timeout
        self.exchange = exchange
        # An empty cache is false, so no `or` here.
        self.cache = Cache() if cache is None else cache
        # When a list was found to be none: what look-ups that are older have of it is worth nothing.
        self.forgot_at = float("-inf")
        self._suspended = suspended if len(suspended) else bytes(max((z.index for z in zones), default=0) + 1)

    def suspended(self) -> bytes:
        """Which lists have no vote at the moment: a byte for each zone, by its index."""
        return bytes(self._suspended)

    def forget(self, zone: str, now: float) -> None:
        """What a list has said of any client is worth nothing."""
        self.cache.forget(zone)
        self.forgot_at = now
