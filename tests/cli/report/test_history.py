"""What the history says of before and after."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli.report.world import rates
from hybridgrey.history.records import Mark
from hybridgrey.report.bins import DAY, HOUR


def test_history(world):
    """Before and after are told apart by what was carried out; in observe mode all mail was accepted."""
    world.write(world.switched())
    document = world.document()
    assert document["switched_on"] == pytest.approx(world.on, abs=HOUR)
    assert (document["sources"], document["step"]) == (["the store's history"], 3 * HOUR)
    found = rates(document)
    assert found["accepted"] == (pytest.approx(1.0, rel=0.02), pytest.approx(0.3, rel=0.02))
    assert found["rejected"] == (0.0, pytest.approx(0.5, rel=0.02))
    assert found["greylisted"] == (0.0, pytest.approx(0.2, rel=0.02))
    assert found["deferred"] == (0.0, pytest.approx(0.01, rel=0.02))
    assert found["would_reject"][0] == pytest.approx(0.5, rel=0.02)
    assert document["lists"]["zen.spamhaus.org"] == {"sole": 1200 * 240, "shared": 500 * 240}
    assert document["per_second"]["rejected"]["total"] == 1800 * 240


def test_hosts(world):
    """The hosts are added up, or one is chosen; one that has no history is named with those that have."""
    world.write(world.switched())
    world.write(world.switched(factor=3), host="mx2.example.org")
    assert rates(world.document())["accepted"][0] == pytest.approx(4.0, rel=0.02)
    assert rates(world.document("--host", "mx2.example.org"))["accepted"][0] == pytest.approx(3.0, rel=0.02)
    done = world.run("-o", world.folder / "x.svg", "--host", "mx3")
    assert done.status == 1
    assert done.error == "hybridgrey: no history of mx3; there is that of: mx1.example.org, mx2.example.org\n"


def test_the_moment_is_the_switch_not_the_first_mail(world):
    """A mark of the change to enforce near the first verdict that was carried out is the moment."""
    mark = Mark(world.on - 777, "mx1.example.org", "mode", "enforce")
    other = Mark(world.on - 1800, "mx1.example.org", "mode", "observe")
    world.write(world.switched(), marks=[mark, other])
    assert world.document()["switched_on"] == world.on - 777


def test_the_moment_may_be_said(world):
    """--switched-on counts more than what is found; outside of what is drawn it is only told."""
    world.write(world.switched())
    at = datetime.fromtimestamp(world.on + 5 * DAY, UTC)
    document = world.document("--switched-on", at.isoformat())
    assert document["switched_on"] == world.on + 5 * DAY
    assert rates(document)["accepted"][0] == pytest.approx((10 + 5 * 0.3) / 15, rel=0.02)
    document = world.document("--since", "3d")
    assert rates(document)["accepted"] == (None, pytest.approx(0.3, rel=0.05))
    assert "It was on in all of this time" in " ".join(document["notes"])
    assert "lies after this time" in " ".join(world.document("--until", "15d")["notes"])


def test_on_from_the_beginning(world):
    """Where it was on from the first verdict, the report says where what was before comes from."""
    world.write([(world.on + HOUR, "outcome:accept:enforced", 10)])
    notes = " ".join(world.document()["notes"])
    assert "It was on in all of this time" in notes
    assert "--mail-log" in notes


def test_since_and_until(world):
    """Only what is asked for is drawn, as finely as it is kept."""
    world.write(world.switched())
    document = world.document("--since", "2d", "--until", "1d")
    assert document["end"] - document["start"] == pytest.approx(DAY, abs=5)
    assert document["step"] == 300
    # A mail in the bin at each end of the day makes one more.
    assert document["per_second"]["rejected"]["total"] in (1800 * 24, 1800 * 25)


def test_a_year_of_history(world):
    """A year of two hosts is drawn in days."""
    for host in ("mx1.example.org", "mx2.example.org"):
        world.write(
            ((world.now - day * DAY, "outcome:accept:enforced", 864) for day in range(365)), host=host
        )
    document = world.document()
    assert document["step"] == DAY
    assert document["per_second"]["accepted"]["total"] == 2 * 365 * 864
