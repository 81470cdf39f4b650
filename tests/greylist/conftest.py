"""The servers that a greylist is kept in."""

import pytest

from greylist.touched import Valkey
from hybridgrey.store.connection import Store
from parts.redisserver import Redis


@pytest.fixture(scope="module", params=[Redis, Valkey])
def running(request):
    with request.param() as part:
        yield part


@pytest.fixture
def server(running):
    with running.client() as client:
        client.flushall()
    return running


@pytest.fixture
def store(server):
    store = Store.open(server.unix_url, 5.0)
    yield store
    store.close()
