"""Names of the greylist's keys: alike where the keys of the store are.

What makes two attempts the same is `greylist.normalise`'s to say; here it is said once for each client and
mailbox, and without the escapes, digests and HMACs of a key.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Final

from hybridgrey.clientaddress import ClientAddress, ClientReader
from hybridgrey.greylist import normalise
from hybridgrey.greylist.terms import Terms
from hybridgrey.greylist.triplets import ADDRESS_PREFIXES

KEPT: Final = 65_536  # clients and mailboxes that are not read again

Keys = tuple[Hashable, ...]


class Names:
    """The names under the terms of a configuration."""

    def __init__(self, terms: Terms, reader: ClientReader) -> None:
        self._prefixes = terms.ipv4_prefix, terms.ipv6_prefix
        self._reader = reader
        self._client = lru_cache(KEPT)(self._read_client)
        self._sender = lru_cache(KEPT)(normalise.sender)
        self._recipient = lru_cache(KEPT)(normalise.recipient)

    def client(self, text: str) -> ClientAddress:
        """A client as it is read."""
        return self._client(text)[0]

    def of_network(self, client: str, sender: str, recipient: str) -> Keys:
        """The keys of an attempt by the client's network, in the script's order."""
        _, network, address = self._client(client)
        triplet = network, self._sender(sender), self._recipient(recipient)
        return triplet, (network,), (network, "+"), (network, "@", address)

    def of_domain(self, domain: str, sender: str, recipient: str) -> Keys:
        """The keys of an attempt by the domain that SPF proves; none counts what waits."""
        client = "spf", domain
        triplet = client, self._sender(sender), self._recipient(recipient)
        return triplet, (client,), (client, "+")

    def _read_client(self, text: str) -> tuple[ClientAddress, str, str]:
        """A client, its network, and what counts as its address."""
        source = self._reader.read(text)
        network = normalise.client_network(source.listed, *self._prefixes, self._reader)
        return source, network, normalise.client_network(source.listed, *ADDRESS_PREFIXES, self._reader)
