"""Processes that die, reload and end, under load."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from faults.world import DNS_WAIT, daemon, lists, measure, seed
from parts.baredaemon import children, title
from parts.base import wait_until
from parts.redisserver import Redis

# A worker that dies takes its open sessions along: at this load some 3 of its own, each time.
OF_ONE_WORKER = 12


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        seed(server.unix_url)
        yield server


@pytest.fixture(scope="module")
def servers():
    with lists() as pair:
        yield pair


def workers(milter):
    """The pids of the daemon's workers."""
    return [pid for pid in children(milter.pid) if "hg-worker" in title(pid)]


def nothing():
    """Nothing to do."""


def test_workers_killed(redis, servers, tmp_path):
    """Three workers killed with -9: each takes its own sessions along, and no connection is refused."""
    with daemon(redis.unix_url, servers) as milter:

        def kill():
            for _ in range(3):
                os.kill(random.choice(workers(milter)), signal.SIGKILL)
                time.sleep(1)
            wait_until(lambda: len(workers(milter)) == 2, "two workers")

        measure(
            "3 workers killed -9", [milter], kill, nothing, seconds=4, allowed=DNS_WAIT, directory=tmp_path
        ).check(cut=3 * OF_ONE_WORKER)


def test_reloads(redis, servers, tmp_path):
    """Twenty reloads: no session and no connection is lost."""
    with daemon(redis.unix_url, servers) as milter:

        def reload():
            for _ in range(20):
                milter.reload()

        measure(
            "20 reloads", [milter], reload, nothing, seconds=0, allowed=DNS_WAIT, directory=tmp_path
        ).check()
        assert len(milter.events("reloaded")) == 20


# Sessions that the kernel had taken and no worker yet when the last holder of the listening socket went away.
BACKLOG = 2


def test_drain(redis, servers, tmp_path):
    """SIGTERM under load: open sessions come to their end; new ones are refused until the next start."""
    with daemon(redis.unix_url, servers) as milter:

        def drain():
            assert milter.stop() == 0

        row = measure(
            "SIGTERM, then a start", [milter], drain, milter.start,
            seconds=2, allowed=DNS_WAIT, directory=tmp_path,
        )  # fmt: skip
        row.check(unserved=10**6, cut=BACKLOG)


def test_master_killed(redis, servers, tmp_path):
    """The master killed with -9: its workers finish their sessions and go, and the next start serves."""
    with daemon(redis.unix_url, servers) as milter:
        row = measure(
            "master killed -9, then a start", [milter], milter.kill, milter.start,
            seconds=2, allowed=DNS_WAIT, directory=tmp_path,
        )  # fmt: skip
        row.check(unserved=10**6, cut=BACKLOG)
