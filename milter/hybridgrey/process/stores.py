"""The store of a configuration and the greylist in it: what commands, too, want of the daemon."""

from __future__ import annotations

from hybridgrey.config.load import Config
from hybridgrey.greylist.triplets import Greylist
from hybridgrey.store.connection import Store
from hybridgrey.trouble.reporter import Report


def store_url(config: Config, embedded_url: str) -> str:
    """Where the store is; an embedded one where its server has been started."""
    return embedded_url if config.store.embedded else config.store.url.get_secret_value()


def open_store(config: Config, url: str, reports: Report) -> Store:
    """The store of a configuration, with its outages told."""

    def changed(available: bool, reason: str) -> None:
        if available:
            reports.recovered("store")
        else:
            reports.failing("store", error=reason)

    return Store.open(url, config.store.timeout, on_change=changed)


def open_greylist(config: Config, store: Store) -> Greylist:
    """The greylist of a configuration."""
    secret = config.store.key_secret.get_secret_value()
    return Greylist(store, config.greylist, key_secret=secret, clients=config.dns.clients)
