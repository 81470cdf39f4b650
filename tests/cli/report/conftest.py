"""The world of a report."""

from __future__ import annotations

import gzip
import os

import pytest

from cli.report.world import World, day_of_log
from hybridgrey.report.bins import DAY
from parts.redisserver import Redis


@pytest.fixture(scope="module")
def redis():
    with Redis() as running:
        yield running


@pytest.fixture
def world(tmp_path, redis):
    with redis.client() as client:
        client.flushall()
    return World(tmp_path, redis)


@pytest.fixture
def logs(world):
    """Three rotated logs, the newest first, as a shell gives them: two days before the switch, one after."""
    made = []
    for back, name in ((1, "mail.log"), (2, "mail.log.1"), (3, "mail.log.2.gz")):
        path = world.folder / name
        text = "".join(day_of_log(world.now - back * DAY, on=back == 1)).encode()
        path.write_bytes(
            gzip.compress(text, mtime=world.now - (back - 1) * DAY) if name.endswith("gz") else text
        )
        os.utime(path, (world.now - (back - 1) * DAY,) * 2)
        made += ["--mail-log", path]
    return made
