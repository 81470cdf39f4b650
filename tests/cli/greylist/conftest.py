"""The store that the commands look at."""

import pytest

from cli.greylist.mails import fill


@pytest.fixture
def config(server, write):
    """The config of an empty store that has then seen MAILS."""
    with server.client() as client:
        client.flushall()
    fill(server.unix_url)
    return write(server.unix_url)
