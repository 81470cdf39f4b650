"""The store that the commands look at."""

import pytest

from cli.greylist.mails import fill
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


@pytest.fixture
def config(server, write):
    """The config of an empty store that has then seen MAILS."""
    with server.client() as client:
        client.flushall()
    fill(server.unix_url)
    return write(server.unix_url)
