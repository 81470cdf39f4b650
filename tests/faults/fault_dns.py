"""Nameservers and lists that fail, under load."""

from __future__ import annotations

import time

import pytest

from faults.world import DNS_WAIT, LONG, daemon, lists, measure, seed
from hybridgrey.lists.upstream import DOUBTED_AFTER_MOST
from parts.redisserver import Redis


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        seed(server.unix_url)
        yield server


@pytest.fixture
def servers():
    with lists() as pair:
        yield pair


def run(name, redis, servers, fault, tmp_path, *, seconds=8.0, nameservers=2):
    """One fault of the DNS; mended by making both nameservers good again."""

    def mend():
        for server in servers:
            server.mend()

    with daemon(redis.unix_url, servers[:nameservers]) as milter:
        # Who is greylisted waits for the lists, and then for SPF with a time of its own.
        allowed = 2 * DNS_WAIT
        return measure(name, [milter], fault, mend, seconds=seconds, allowed=allowed, directory=tmp_path)


def test_all_nameservers_silent(redis, servers, tmp_path):
    """All nameservers dead without a word: each list is waited for by a few clients only."""

    def fault():
        for server in servers:
            server.mute = True

    run("all nameservers silent", redis, servers, fault, tmp_path, seconds=30 if LONG else 8).check()


def test_all_nameservers_refuse(redis, servers, tmp_path):
    """All nameservers gone, their ports closed."""

    def fault():
        for server in servers:
            server.shut()

    run("all nameservers gone", redis, servers, fault, tmp_path, seconds=30 if LONG else 8).check()


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
def test_one_nameserver_silent(redis, servers, tmp_path, which):
    """One of two nameservers dead: the other one's answers are enough."""

    def fault():
        servers[which].mute = True

    name = f"{('first', 'second')[which]} of two nameservers silent"
    run(name, redis, servers, fault, tmp_path, seconds=30 if LONG else 8).check()


def test_one_zone_silent(redis, servers, tmp_path):
    """One list dead: the others still decide, and it is waited for by a few clients only."""

    def fault():
        for server in servers:
            server.silent = {"zen.test"}

    run("one list silent", redis, servers, fault, tmp_path, seconds=30 if LONG else 8).check()


def test_one_zone_lists_the_world_from_the_start(redis, servers, tmp_path):
    """A list that lists the world when the daemon starts never has a vote."""
    for server in servers:
        server.world = {"zen.test"}
    run("one list lists the world at start", redis, servers, lambda: None, tmp_path, seconds=5).check()


def test_one_zone_begins_to_list_the_world(redis, servers, tmp_path):
    """A list that begins to list the world in service loses its vote after a few clients.

    Less than `upstream.DOUBTED_AFTER_MOST` of each worker; one may come twice before the world is whole.
    """

    def fault():
        for server in servers:
            server.world = {"zen.test"}

    run("one list begins to list the world", redis, servers, fault, tmp_path, seconds=8).check(
        wrong=2 * (DOUBTED_AFTER_MOST - 1) + 3
    )


def test_datagram_loss(redis, servers, tmp_path):
    """A fifth of all datagrams lost, both ways."""

    def fault():
        for server in servers:
            server.loss = 0.2

    run("20 % of datagrams lost", redis, servers, fault, tmp_path, seconds=30 if LONG else 8).check()


def test_start_with_silent_nameservers(redis, servers, tmp_path):
    """Without DNS the daemon is ready about as soon as with it."""
    for server in servers:
        server.mute = True
    begun = time.monotonic()
    with daemon(redis.unix_url, servers):
        assert time.monotonic() - begun < 4.0
