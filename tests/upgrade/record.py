"""What a version of hybridgrey writes into its store, as JSON: the layout that others must be able to read.

    PYTHONPATH=TREE/milter python record.py unix:///PATH/redis.sock >entries-VERSION.json

Runs on the `hybridgrey` that is imported and in an empty Redis, so any version can be asked. Each attempt
of `ATTEMPTS` goes through that version's own script; times are minutes since the first attempt.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from types import SimpleNamespace
from typing import Any

import redis

try:
    from hybridgrey.greylist.triplets import Greylist
    from hybridgrey.store.connection import Store
except ImportError:  # version 0.1 had all its modules in one folder
    from hybridgrey.greylist import Greylist
    from hybridgrey.store import Store

LIMITS: dict[str, Any] = {"retry_window": 172800, "lifetime": 3110400, "ipv4_prefix": 24, "ipv6_prefix": 64}
SECRET = "of the fixture"
# client, sender, recipient, how often it comes with no delay: once: it waits; twice: it has passed
ATTEMPTS = (
    ("192.0.2.1", "waiting@example.org", "b@example.net", 1),
    ("192.0.2.1", "passed@example.org", "b@example.net", 2),
    ("198.51.100.1", "", "b@example.net", 2),
    ("203.0.113.1", "one@example.org", "b@example.net", 2),
    ("203.0.113.2", "two@example.org", "b@example.net", 2),
    ("2001:db8::1", "List-Bounces+17=b=example.net@Lists.example.org", "B@Example.Net", 2),
    ("198.18.1.1", "prvs=1234abcdef=batv@example.org", "b@example.net", 2),
    ("198.18.2.1", "SRS0=abcd=12=example.com=srs@example.org", "b@example.net", 2),
    ("198.18.3.1", 'odd%:{name}" x\u00fc@example.org', "b@example.net", 2),
    ("198.18.4.1", "l" * 64 + "@" + ".".join(["d" * 60] * 4), "b@example.net", 1),
)


def under(store: Store, secret: str, **terms: int) -> Greylist:
    """A greylist of whatever version; it takes its terms whole, or one by one as 0.1 did."""
    terms = LIMITS | terms
    if "terms" in inspect.signature(Greylist).parameters:
        whole = SimpleNamespace(**{"auto_allow_interval": 0, "max_waiting": 0, **terms})
        return Greylist(store, whole, key_secret=secret)
    return Greylist(store, key_secret=secret, **terms)


def record(url: str, **bounds: int) -> list[dict[str, object]]:
    """The entries of the store after all attempts, clear and as HMACs; `bounds` are of later versions."""
    found = {}
    with contextlib.closing(Store.open(url, 5.0)) as store, redis.Redis.from_url(url) as client:
        for secret in ("", SECRET):
            greylist = under(store, secret, auto_allow_after=2, **bounds)
            for address, sender, recipient, times in ATTEMPTS:
                for _ in range(times):
                    greylist.touch(address, sender, recipient, 0)
        now = int(client.time()[0])
        for key in client.scan_iter(count=1000):
            value = int(client.get(key) or 0)
            time = abs(value) > 1_000_000_000
            # A few seconds have gone by since the attempts
            found[key.decode("ascii")] = {
                "kind": "count" if not time else "passed" if value < 0 else "waiting",
                "value": round((abs(value) - now) / 60) if time else value,
                "expires": round(client.ttl(key) / 60) * 60,
            }
    return [{"key": key, **entry} for key, entry in sorted(found.items())]


if __name__ == "__main__":
    json.dump(record(sys.argv[1]), sys.stdout, indent=1)
