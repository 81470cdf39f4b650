"""Whether the store serves and how many keys it has, for `status` and Prometheus.

*Keys* are what the server counts in its database, which costs it nothing: entries of the greylist, their
notes, and the history; and those of others who share the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from hybridgrey.store.connection import Script, Store, StoreError

SECONDS: Final = 15.0
"""Between two looks."""

_COUNT: Final = Script("""
local size = redis.pcall('DBSIZE')
return {type(size) == 'number' and size or -1}
""")


def ask(store: Store) -> int:
    """The keys of all shards, -1 where one does not say.  Raises StoreError when one does not serve."""
    store.ping()
    counts = [count for (count,) in store.run_everywhere(_COUNT)]
    return -1 if min(counts) < 0 else sum(counts)


def watch(store: Store, note: Callable[[bool, int], None], stop: threading.Event) -> None:
    """Look now and then until `stop` is set; `note` gets whether it serves, and the keys (-1: unknown)."""
    while True:
        try:
            keys, serves = ask(store), True
        except (StoreError, ValueError):  # ValueError: an answer that the script does not give
            keys, serves = -1, False
        note(serves, keys)
        if stop.wait(SECONDS):
            return
