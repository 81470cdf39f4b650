"""A list that begins to list everybody, and how it is found out."""

from __future__ import annotations

import pytest

from hybridgrey.lists import upstream
from hybridgrey.lists.upstream import DOUBTED_AFTER
from lists.asking import (
    LISTED,
    Told,
    build,
    one,
    resolver,
)
from parts.fakedns import FakeDns


def test_a_list_that_begins_to_list_the_world():
    """After a few clients in a row a list is checked; one that lists anything has no vote, and comes back."""
    told = Told()
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED)
        by = resolver(server, reporter=told, timeout=3.0)
        assert one(by, "192.0.2.9") == "no"
        server.zone("bl.test", everything="127.0.0.2")
        said = [one(by, f"198.51.100.{i}") for i in range(DOUBTED_AFTER + 4)]
        assert said[DOUBTED_AFTER - 1 :] == ["lists any address, and so perhaps the world"] * 5
        assert said[: DOUBTED_AFTER - 1] == ["127.0.0.2"] * (DOUBTED_AFTER - 1)
        server.zone("bl.test", listed=LISTED)
        # Not even those who were listed before the check are still thought to be so.
        assert [one(by, f"198.51.100.{i}") for i in range(8)] == ["no"] * 8
        assert one(by) == "127.0.0.2"
    assert told.events == [
        "list:bl.test failing: lists any address, and so perhaps the world",
        "list:bl.test recovered",
    ]


@pytest.mark.parametrize("family", ["198.51.100.", "2001:db8::"])
def test_a_list_that_has_many_clients_in_a_row(family):
    """A run of listings is checked, ever more seldom, and counts: all of them are listed."""
    clients = [f"{family}{i}" for i in range(1, 61)]
    with FakeDns() as server:
        server.zone("bl.test", listed=dict.fromkeys(clients, "127.0.0.2"))
        by = resolver(server, timeout=3.0)
        assert [one(by, client) for client in clients] == ["127.0.0.2"] * len(clients)
        # After 2 clients, 4 more (less a little for each new run), and then each time 8 more.
        assert len(clients) + 8 <= server.count("bl.test", "A") <= len(clients) + 10


def test_a_check_without_an_answer_is_no_vote():
    """A list that does not answer its check has not shown that it is a list."""
    clients = [f"198.51.100.{i}" for i in range(DOUBTED_AFTER)]
    with FakeDns() as server:
        server.zone("127.bl.test", silent=True)
        server.zone("bl.test", listed=dict.fromkeys(clients, "127.0.0.2"))
        by = resolver(server, timeout=0.5)
        assert [one(by, client) for client in clients] == [
            *["127.0.0.2"] * (len(clients) - 1),
            "no answer in time",
        ]


def test_runs_that_are_common_are_not_checked_for_ever():
    """Short runs bring the suspicion back that long ones have put to sleep."""
    lists = upstream.Lists(build("bl.test"), upstream.NoReporter())
    (zone,) = build("bl.test")
    for _ in range(10):
        lists.checked(zone)
    assert [lists.doubts(zone) for _ in range(20)].index(True) == upstream.DOUBTED_AFTER_MOST - 1
    for _ in range(100):
        lists.run["bl.test"] = 0
        lists.doubts(zone)
    lists.run["bl.test"] = 0
    assert [lists.doubts(zone) for _ in range(20)].index(True) == upstream.DOUBTED_AFTER - 1


def test_an_unchecked_list_is_not_doubted():
    """A list without an unlisted test point, such as hostkarma, may list whom it likes."""
    with FakeDns() as server:
        server.zone("hostkarma.junkemailfilter.com", everything="127.0.0.1")
        by = resolver(server, "hostkarma.junkemailfilter.com")
        assert {one(by, f"198.51.100.{i}") for i in range(9)} == {"127.0.0.1"}
