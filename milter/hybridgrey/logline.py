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


def read(line: bytes) -> dict[str, Any]:
    """The JSON object of a line.  Raises ValueError, which says what is wrong with it."""
    outer = _object(line)
    if _MESSAGE not in outer:
        return outer
    message, host = outer[_MESSAGE], outer.get(_HOST)
    if isinstance(message, list):
        with contextlib.suppress(TypeError, ValueError):
            message = bytes(message).decode("utf-8", "replace")
    inner = _object(message.encode("utf-8", "replace") if isinstance(message, str) else b"")
    if isinstance(host, str):
        inner.setdefault("mx", host)
    return inner


def event(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None for a line without one."""
    try:
        return read(line)
    except ValueError:
        return None


def verdict(line: bytes) -> dict[str, Any] | None:
    """The record of a verdict: its event with `t`, Unix seconds; None for any other line."""
    record = event(line) if VERDICT.encode() in line or _MESSAGE.encode() in line else None
    if record is None or record.get("event") != VERDICT:
        return None
    record["t"] = moment(record.get("ts"))
    return record if 0 < record["t"] < LATEST else None


def moment(text: object) -> float:
    """The time of an event, Unix seconds; 0 for what is none."""
    try:
        when = datetime.fromisoformat(text) if isinstance(text, str) else None
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() if when else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _object(line: bytes) -> dict[str, Any]:
    start = line.find(b"{")
    if start < 0:
        raise ValueError("no JSON object")
    try:
        content = orjson.loads(line[start:])
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg}") from None
    if isinstance(content, dict):
        return content
    raise ValueError("no JSON object")
