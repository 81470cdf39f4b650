"""When a line of a log was written, without a year in it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest

from hybridgrey.report.logtime import Clock


def at(text):
    """Unix seconds of an ISO time, which is UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@pytest.fixture
def zone():
    """A function that gives this process another time zone."""

    def change(name):
        os.environ["TZ"] = name
        time.tzset()

    before = os.environ.get("TZ")
    change("UTC")
    yield change
    if before is None:
        del os.environ["TZ"]
        time.tzset()
    else:
        change(before)


NOW = "2026-11-22T12:00"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("Nov 22 06:25:01 mx postfix", "2026-11-22T06:25"),
        ("Nov  2 06:25:01 mx postfix", "2026-11-02T06:25"),
        ("Nov 22 06:25:01.123456 mx postfix", "2026-11-22T06:25"),
        ("<22>Nov 22 06:25:01 mx postfix", "2026-11-22T06:25"),
        # Tomorrow is a clock that goes wrong a little, the day after it was a year ago
        ("Nov 23 11:00:00 mx postfix", "2026-11-23T11:00"),
        ("Nov 24 11:00:00 mx postfix", "2025-11-24T11:00"),
        ("Dec 31 23:59:59 mx postfix", "2025-12-31T23:59"),
        ("Feb 29 10:00:00 mx postfix", "2024-02-29T10:00"),
        ("2026-11-22T06:25:01.123456+01:00 mx postfix", "2026-11-22T05:25"),
        ("2026-11-22T06:25:01+0100 mx postfix", "2026-11-22T05:25"),
        ("2026-11-22T06:25:01Z mx postfix", "2026-11-22T06:25"),
        ("2026-11-22 06:25:01,5 mx postfix", "2026-11-22T06:25"),
        ("<22>1 2026-11-22T06:25:01.5-08:00 mx postfix", "2026-11-22T14:25"),
    ],
)
def test_a_time(zone, line, wanted):
    """Each form is read to the minute, and the host's name follows."""
    moment, start = Clock(at(NOW)).read(line.encode())
    assert moment == at(wanted)
    assert line[start:].startswith("mx postfix")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Nov",
        "mx postfix/smtpd[1]: x",
        "Nov 31 06:25:01 mx x",
        "Nov  0 06:25:01 mx x",
        "Nov 22 24:00:00 mx x",
        "Feb 30 06:25:01 mx x",
        "Foo 22 06:25:01 mx x",
        "nov 22 06:25:01 mx x",
        "2026-13-01T00:00:00Z mx x",
        "2026-11-22T06:25:01+99:99 mx x",
        "0001-01-01T00:00:00+14:00 mx x",
        "9999-12-31T23:59:59-14:00 mx x",
        "2027-11-22T06:25:01Z mx x",  # the future
        "2011-11-22T06:25:01Z mx x",  # a clock that was wrong
        "\N{ARABIC-INDIC DIGIT ONE}026-11-22T06:25:01Z mx x",
    ],
)
def test_no_time(zone, line):
    """What is no time, cannot be one, or lies in the future is none."""
    assert Clock(at(NOW)).read(line.encode())[0] is None


def moments(clock, days):
    return [clock.read(f"{day} 10:00:00 mx x".encode())[0] for day in days]


def test_a_new_year(zone):
    """The year changes from December to January, and back for a line that is late."""
    clock = Clock(at("2027-01-02T00:00"))
    days = ["Nov 30", "Dec 31", "Jan  1", "Dec 31", "Jan  1"]
    wanted = [
        "2026-11-30T10:00",
        "2026-12-31T10:00",
        "2027-01-01T10:00",
        "2026-12-31T10:00",
        "2027-01-01T10:00",
    ]
    assert moments(clock, days) == [at(day) for day in wanted]
    assert clock.excess == 0


def test_a_clock_that_starts_in_january(zone):
    """Lines of a machine that has not heard the time yet change nothing for those that follow."""
    clock = Clock(at(NOW))
    assert moments(clock, ["Nov 20", "Jan  1", "Nov 21"]) == [
        at("2026-11-20T10:00"),
        None,
        at("2026-11-21T10:00"),
    ]
    assert clock.excess == 0


@pytest.mark.parametrize("years", [1, 2, 5])
def test_more_than_a_year(zone, years):
    """A log of several years is found out at its end, and then read right."""
    days = ["Mar 01", "Jul 01", "Dec 01"] * years + ["Mar 01", "Jul 01", "Nov 01"]
    clock = Clock(at(NOW))
    moments(clock, days)
    back = 0
    while clock.excess:
        back += clock.excess
        clock = Clock(at(NOW), back)
        found = moments(clock, days)
    assert back == years
    assert found[0] == at(f"{2026 - years}-03-01T10:00")
    assert found[-1] == at("2026-11-01T10:00")


@pytest.mark.parametrize("line", ["nonsense", "2026-11-20T10:00:00Z x", "Feb 30 10:00:00 x"])
def test_a_log_that_was_written_before_1970(zone, line):
    """A file's time may be anything: a log that has no line without a year has none to look for."""
    clock = Clock(at("1901-01-01T10:00"))
    assert clock.read(line.encode())[0] is None
    assert clock.excess == 0


def test_the_zone_is_the_machines(zone):
    """A time without a zone is local, also over the change of daylight saving time."""
    zone("Europe/Berlin")
    clock = Clock(at(NOW))
    assert moments(clock, ["Jul 01", "Nov 01"]) == [at("2026-07-01T08:00"), at("2026-11-01T09:00")]
