"""A line of our own log, read back: as the daemon writes it, or as syslog or journald pass it on.

Syslog and ``journalctl -o short`` put words of their own before the JSON; ``journalctl -o json`` has it in
an object of its own, as text or, where it is not plain, as a row of bytes.

Pure.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any, Final

import orjson

_MESSAGE: Final = "MESSAGE"
_HOST: Final = "_HOSTNAME"
VERDICT: Final = "verdict"
LATEST: Final = 4e9
"""Unix seconds; what is beyond, or before 1970, is no time of ours, and some of it no calendar has."""


def event(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None for a line without one."""
    found = _object(line)
    if found is None or _MESSAGE not in found:
        return found
    message, host = found[_MESSAGE], found.get(_HOST)
    if isinstance(message, list):
        with contextlib.suppress(TypeError, ValueError):
            message = bytes(message).decode("utf-8", "replace")
    inner = _object(message.encode("utf-8", "replace")) if isinstance(message, str) else None
    if inner is not None and isinstance(host, str):
        inner.setdefault("mx", host)
    return inner


def verdict(line: bytes) -> dict[str, Any] | None:
    """The record of a verdict: its event with `t`, Unix seconds; None for any other line."""
    found = event(line) if VERDICT.encode() in line or _MESSAGE.encode() in line else None
    if found is None or found.get("event") != VERDICT:
        return None
    found["t"] = moment(found.get("ts"))
    return found if 0 < found["t"] < LATEST else None


def moment(text: object) -> float:
    """The time of an event, Unix seconds; 0 for what is none."""
    try:
        when = datetime.fromisoformat(text) if isinstance(text, str) else None
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() if when else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _object(line: bytes) -> dict[str, Any] | None:
    start = line.find(b"{")
    if start < 0:
        return None
    try:
        found = orjson.loads(line[start:])
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
