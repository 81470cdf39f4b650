"""What the commands need of the world: the configuration, the store, and words for what is down."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hybridgrey.cli import bad_config
from hybridgrey.cli.output import fail, warn
from hybridgrey.config import store_url
from hybridgrey.config.load import Config, ConfigError, load
from hybridgrey.greylist.entries import Entries
from hybridgrey.greylist.triplets import Greylist
from hybridgrey.process import configcopy, privileges, stores
from hybridgrey.process.configcopy import NoCopyError
from hybridgrey.store.connection import Store, StoreError
from hybridgrey.store.embedded import EmbeddedServer

UNAVAILABLE = os.EX_UNAVAILABLE


def configured(path: Path) -> Config:
    """The configuration; where its file is broken the one in effect, with a warning, if a daemon runs.

    Else it ends with status 78 and all that is wrong.  Where an account has written what is in effect, root
    goes on as that account: a URL or a path in it is no way to what only root may reach.
    """
    try:
        return load(path)
    except ConfigError as error:
        problems = error.problems
    try:
        config, owner = configcopy.find(path)
        account = privileges.act_as(owner)
    except NoCopyError as error:
        told = (f"what is in effect cannot be read: {error}",) if str(error) else ()
        bad_config((*problems, *told))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    by = f", as {account}, whose it is" if account else ""
    warn(f"{problems[0]}{more}; this is by the configuration in effect{by}")
    return config


def configured_if_any(path: Path) -> Config | None:
    """The configuration, or the one in effect, without a word when there is neither.

    For who follows no URL or path of it.
    """
    try:
        return load(path)
    except ConfigError:
        with contextlib.suppress(NoCopyError):
            return configcopy.find(path).config
    return None


def as_written(path: Path, consequence: str = "") -> Config:
    """The configuration in the file; ends with status 78, all that is wrong with it and the consequence."""
    try:
        return load(path)
    except ConfigError as error:
        bad_config(error.problems, consequence)


def url_of(config: Config) -> str:
    """The URL of the store; an embedded one is reached through its server's socket."""
    folder = config.store.embedded
    return EmbeddedServer(folder).url if folder else config.store.url.get_secret_value()


def store_trouble(config: Config, error: StoreError) -> str:
    """One line about a store that does not serve: which, why, what to do."""
    url = config.store.url.get_secret_value()
    advice = "check [store] url and that its server runs"
    if config.store.embedded:
        advice = "it runs with the daemon: is that started, and may you read its folder?"
    return f"store {store_url.mask(url)}: {error}; {advice}"


def open_store(config: Config) -> Store:
    """The store, not connected yet; ends with a line when its URL cannot be used."""
    try:
        return Store.open(url_of(config), config.store.timeout)
    except StoreError as error:
        fail(store_trouble(config, error), UNAVAILABLE)


def open_entries(config: Config) -> tuple[Entries, Greylist]:
    """The entries of the configured store, and the greylist that names their keys."""
    store = open_store(config)
    try:
        entries = Entries(url_of(config), config.store.timeout, store, config.greylist)
    except StoreError as error:
        fail(store_trouble(config, error), UNAVAILABLE)
    return entries, stores.open_greylist(config, store)
