"""What a reload cannot change: the listening socket, the user, and where the embedded store is.

Pure.
"""

from __future__ import annotations

from hybridgrey.config.load import Config

KEYS = ("listen", "socket_mode", "socket_group", "user", "pid_file")
_EMBEDDED = "embedded:"


def keep(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """`new` with the values of `old` where only a restart can change them, and the names of those keys."""
    update: dict[str, object] = {
        key: getattr(old, key) for key in KEYS if getattr(new, key) != getattr(old, key)
    }
    names = list(update)
    if _store_needs_restart(old.store.url.get_secret_value(), new.store.url.get_secret_value()):
        update["store"] = new.store.model_copy(update={"url": old.store.url})
        names.append("store.url")
    return new.model_copy(update=update), tuple(names)


def _store_needs_restart(old: str, new: str) -> bool:
    """From one server elsewhere to another is easy; ours is started before privileges are dropped."""
    return old != new and (old.startswith(_EMBEDDED) or new.startswith(_EMBEDDED))
