"""Durations of the config file."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.config import durations

GOOD = [
    # written, seconds
    ("500ms", 0.5),
    ("2s", 2),
    ("5m", 300),
    ("1h30m", 5400),
    ("2d", 172800),
    ("36d", 3110400),
    ("1w2d3h4m5s6ms", 788645.006),
    ("90", 90),
    (" 5m ", 300),
    ("0s", 0),
    (300, 300),
    (0, 0),
]

BAD = ["", "m", "5 min", "-1s", "5m5m", "5s1m", "1.5s", "5M", "٣s", "1e3s", "9" * 10, "5m\n5s", -1, 10**9]
BAD += [True, 1.5, None, [], {}]


@pytest.mark.parametrize(("text", "seconds"), GOOD)
def test_duration_is_seconds(text, seconds):
    """A duration is a sum of amounts from large to small units; a bare number is seconds."""
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("value", BAD)
def test_bad_duration_is_refused_unquoted(value):
    """What is no duration is an error that says how one looks and does not repeat it."""
    with pytest.raises(ValueError, match=r"duration|must be from") as error:
        durations.parse(value)
    if isinstance(value, str) and len(value) > 5:
        assert value not in str(error.value)


@settings(deadline=None)
@given(st.integers(0, 10**12))
def test_shown_duration_reads_back(milliseconds):
    """What `show` prints is read as the same duration."""
    seconds = milliseconds / 1000
    assert durations.parse(durations.show(seconds)) == seconds


@pytest.mark.parametrize(
    ("reader", "value", "wanted"),
    [
        (durations.between("1ms", "30s"), "1ms", 0.001),
        (durations.between("1ms", "30s"), "30s", 30),
        (durations.between("1ms", "30s"), "0s", None),
        (durations.between("1ms", "30s"), "31s", None),
        (durations.whole("1s", "1d"), "1d", 86400),
        (durations.whole("1s", "1d"), "1s1ms", None),
        (durations.whole("1s", "1d"), "500ms", None),
    ],
)
def test_range_includes_its_ends(reader, value, wanted):
    """A duration outside of its key's range, or broken where whole seconds count, is an error."""
    if wanted is None:
        with pytest.raises(ValueError, match="must be"):
            reader(value)
    else:
        assert reader(value) == wanted
