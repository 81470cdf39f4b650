"""Lines of our own log are read back, however they were passed on; what is wrong with others is said."""

from __future__ import annotations

import json

import pytest

from hybridgrey import logline

VERDICT = {"ts": "2026-01-31T10:00:00Z", "event": "verdict", "client": "192.0.2.1"}
LINE = json.dumps(VERDICT)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (LINE, VERDICT),
        (f"Jan 31 10:00:00 mx1 hybridgrey[7]: {LINE}", VERDICT),
        (json.dumps({"MESSAGE": LINE}), VERDICT),
        (json.dumps({"MESSAGE": LINE, "_HOSTNAME": "mx1"}), {**VERDICT, "mx": "mx1"}),
        (json.dumps({"MESSAGE": list(LINE.encode())}), VERDICT),
    ],
    ids=["plain", "syslog", "journal", "its host", "bytes"],
)
def test_a_line_is_read(line: str, wanted: dict[str, object]) -> None:
    """As the daemon writes it, and as syslog or journald pass it on."""
    assert logline.read(line.encode()) == wanted == logline.event(line.encode())
    record = logline.verdict(line.encode())
    assert record is not None
    assert record["t"] == 1769853600


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no JSON object"),
        ("[1]", "no JSON object"),
        ('{"event": "ver', "not valid JSON: "),
        (json.dumps({"MESSAGE": "Started hybridgrey."}), "no JSON object"),
        (json.dumps({"MESSAGE": None}), "no JSON object"),
        (json.dumps({"MESSAGE": [300]}), "no JSON object"),
    ],
)
def test_any_other_line_says_why(line: str, why: str) -> None:
    """No line raises anything but that."""
    with pytest.raises(ValueError, match=why):
        logline.read(line.encode())
    assert logline.event(line.encode()) is None
    assert logline.verdict(line.encode()) is None
