"""A store for commands to look at, and a way to write the configuration that names it."""

from __future__ import annotations

import pytest

from parts.daemon import toml
from parts.redisserver import Redis


@pytest.fixture(scope="module")
def server():
    with Redis() as part:
        yield part


@pytest.fixture
def write(tmp_path):
    """A function that writes a config for a store and gives its path."""

    def write(url, **settings):
        path = tmp_path / "hg.toml"
        path.write_text(toml({"store": {"url": url, **settings.pop("store", {})}, **settings}))
        return path

    return write
