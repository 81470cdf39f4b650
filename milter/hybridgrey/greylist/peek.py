"""A greylist that is only looked at: what an attempt would meet now, for who explains."""

from __future__ import annotations

from hybridgrey.greylist.triplets import Greylist, Touch
from hybridgrey.store.connection import Call


class Peek:
    """A greylist that is only looked at (`filter.judgement.Triplets`)."""

    def __init__(self, greylist: Greylist) -> None:
        self._greylist = greylist

    def attempt(
        self,
        client: str,
        sender: str,
        recipient: str,
        delay: int,
        _expected: tuple[bytes, bytes] | None = None,
    ) -> Call:
        """What an attempt would meet now; of expected mail it says nothing."""
        return self.glance(client, sender, recipient, delay)

    def glance(self, client: str, sender: str, recipient: str, delay: int) -> Call:
        """The same."""
        return self._greylist.glance(client, sender, recipient, delay)

    def attempt_by_domain(self, domain: str, sender: str, recipient: str, delay: int, network: Touch) -> Call:
        """The same for a client that SPF proves."""
        return self._greylist.glance_by_domain(domain, sender, recipient, delay, network)

    def hand_over(self, _client: str, _sender: str, _recipient: str, _domain: Touch) -> Call | None:
        """Nothing is changed."""
        return None
