"""Which engine a fault is tried on where HYBRIDGREY_ENGINE says nothing: one each, to spare time.

Both were measured with all faults (contrib/guides/faults.md).
"""

from __future__ import annotations

from unittest import mock

import pytest

from parts.base import ENGINE
from parts.daemon import DEFAULTS

NATIVE = {
    "test_all_nameservers_refuse",
    "test_cluster_shard_lost",
    "test_datagram_loss",
    "test_disk_full",
    "test_drain",
    "test_network_to_redis_cut",
    "test_one_nameserver_silent",
    "test_one_zone_begins_to_list_the_world",
    "test_primary_killed_under_sentinel",
    "test_redis_frozen",
    "test_redis_restarted",
    "test_workers_killed",
}


@pytest.fixture(autouse=True)
def engine(request):
    """The engine of the daemons of a test."""
    name = request.node.originalname
    wanted = "native" if ENGINE == "auto" and name in NATIVE else ENGINE
    with mock.patch.dict(DEFAULTS, engine=wanted):
        yield wanted
