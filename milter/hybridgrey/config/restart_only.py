"""What a reload cannot change: the socket, the user, the priority, and where the embedded store is.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from hybridgrey.config.load import Config

KEYS = ("listen", "socket_mode", "socket_group", "user", "pid_file", "nice")


def keep(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """`new` with the values of `old` where only a restart can change them, and the names of those keys."""
    update: dict[str, object] = {
        key: getattr(old, key) for key in KEYS if getattr(new, key) != getattr(old, key)
    }
    names = list(update)
    # From one server elsewhere to another is easy; ours is started before privileges are dropped.
    if old.store.url != new.store.url and (old.store.embedded or new.store.embedded):
        update["store"] = new.store.model_copy(update={"url": old.store.url})
        names.append("store.url")
    return new.model_copy(update=update), tuple(names)


def values(config: Config) -> dict[str, Any]:
    """What `keep` may have kept, its secrets in clear text."""
    return {
        **{key: getattr(config, key) for key in KEYS},
        "store.url": config.store.url.get_secret_value(),
    }


def restored(config: Config, kept: Mapping[str, Any]) -> Config:
    """A configuration with the `values` of another, those of them that are there."""
    update = {key: kept[key] for key in KEYS if key in kept}
    if "store.url" in kept:
        update["store"] = config.store.model_copy(update={"url": SecretStr(kept["store.url"])})
    return config.model_copy(update=update)
