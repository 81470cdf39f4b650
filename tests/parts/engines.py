"""Which tests of whole daemons run with which engine: one table for all of them.

What depends on how sessions are carried runs with both engines, the rest once: some with native, others with
what `auto` chooses, libmilter. Rows of hosts have both side by side, with one store. HYBRIDGREY_ENGINE is
for all tests, whatever the table says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from hybridgrey.process import engines, worker
from parts.base import ENGINE
from parts.daemon import DEFAULTS

LIBMILTER, NATIVE = "libmilter", "native"
BOTH = (LIBMILTER, NATIVE)

TABLE: dict[str, tuple[str, ...]] = {
    "filter/test_hostile_peers": BOTH,
    "filter/test_session": BOTH,
    "filter/test_session_headers": BOTH,
    "filter/test_through_the_daemon": (NATIVE,),
    "mta/test_addresses": (NATIVE,),
    "mta/test_correspondents": BOTH,
    "mta/test_dialogues": BOTH,
    "mta/test_forged_headers": BOTH,
    "mta/test_greylisting": (NATIVE,),
    "mta/test_gtube": (NATIVE,),
    "mta/test_hierarchy": (NATIVE,),
    "mta/test_lifecycle": BOTH,
    "mta/test_odd_text": BOTH,
    "mta/test_open_connections": BOTH,
    "mta/test_postfix_default_action": (NATIVE,),
    "mta/test_postfix_opendkim": (NATIVE,),
    "mta/test_postfix_protocol": BOTH,
    "mta/test_postfix_sessions": (NATIVE,),
    "mta/test_score": BOTH,
    "mta/test_sender_pools": BOTH,
    "mta/test_sendmail_field": (NATIVE,),
    "mta/test_sessions": BOTH,
    "mta/test_store_down": BOTH,
    "mta/test_stores": BOTH,
    # Each fault once; contrib/guides/faults.md has all of them with both.
    "faults/test_all_nameservers_refuse": (NATIVE,),
    "faults/test_cluster_shard_lost": (NATIVE,),
    "faults/test_datagram_loss": (NATIVE,),
    "faults/test_disk_full": (NATIVE,),
    "faults/test_drain": (NATIVE,),
    "faults/test_network_to_redis_cut": (NATIVE,),
    "faults/test_one_nameserver_silent": (NATIVE,),
    "faults/test_one_zone_begins_to_list_the_world": (NATIVE,),
    "faults/test_primary_killed_under_sentinel": (NATIVE,),
    "faults/test_redis_frozen": (NATIVE,),
    "faults/test_redis_restarted": (NATIVE,),
    "faults/test_workers_killed": (NATIVE,),
    "upgrade/test_embedded_store_goes_over": BOTH,
    "upgrade/test_two_versions_side_by_side": (NATIVE,),
    "upgrade/test_two_versions_under_load": (NATIVE,),
}
"""By suite and module, or suite and test, which goes before; what is not named has what `auto` chooses."""

NATIVE_HOSTS = {"field": {"mx2", "mx3"}, "page": {"mx2.test"}}
"""The hosts of a suite's row that have native; the others have what `auto` chooses."""


def of(suite: str, module: str, test: str) -> tuple[str, ...]:
    """The engines that a test runs with, one after the other."""
    if ENGINE != "auto":
        return (ENGINE,)
    return TABLE.get(f"{suite}/{test}") or TABLE.get(f"{suite}/{module}") or (ENGINE,)


def at(suite: str, host: str) -> str:
    """The engine of a host in a suite's row."""
    return NATIVE if ENGINE == "auto" and host in NATIVE_HOSTS[suite] else ENGINE


def other(engine: str) -> str:
    """The one to change to; the test is skipped where libmilter cannot be used."""
    try:
        engines.chosen(LIBMILTER)
    except worker.UnfitError as error:
        pytest.skip(str(error))
    return LIBMILTER if engine == NATIVE else NATIVE


# -- for the conftest of a suite


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of the table runs with each of its engines."""
    path = Path(metafunc.module.__file__ or "")
    wanted = of(path.parent.name, path.stem, metafunc.function.__name__)
    if wanted != (ENGINE,):
        metafunc.parametrize("engine", wanted, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The engine of the daemons that say nothing of it themselves."""
    wanted = getattr(request, "param", ENGINE)
    with mock.patch.dict(DEFAULTS, engine=wanted):
        yield wanted
