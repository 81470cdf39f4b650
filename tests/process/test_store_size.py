"""Whether the store serves, and its keys, asked of real servers."""

import contextlib

import pytest

from hybridgrey.process.store_size import ask
from hybridgrey.store.connection import Store, StoreError
from parts.redisserver import Redis


def asked(server):
    with contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
        return ask(store)


def test_keys_are_counted():
    """All keys of the database count, that of the look itself too."""
    with Redis() as server, server.client() as client:
        assert asked(server) == 1
        client.mset({f"hg1:{{192.0.2.0/24}}:{number}": 1 for number in range(1000)})
        assert asked(server) == 1001


def test_a_user_who_may_not_ask():
    """Where DBSIZE is forbidden the keys are unknown, and the store serves."""
    with Redis(user="mail", password="x") as server:
        with server.client() as client:
            client.acl_setuser("mail", enabled=True, commands=["-dbsize"])
        assert asked(server) == -1


def full(client):
    client.config_set("maxmemory", 1)


def replica(client):
    client.replicaof("127.0.0.1", 1)


@pytest.mark.parametrize("fault", [full, replica])
def test_a_server_that_takes_nothing(fault):
    """One that answers and takes no entries does not serve."""
    with Redis() as server, server.client() as client:
        fault(client)
        with pytest.raises(StoreError):
            asked(server)
        client.config_set("maxmemory", 0)
        client.replicaof("NO", "ONE")
