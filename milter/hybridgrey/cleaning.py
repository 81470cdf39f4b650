"""Foreign values made fit to print: bounded, on one line, without anything that steers a terminal.

``clean`` is for texts, ``plain`` for any value that goes into a log line, ``exception`` for errors. None of
them raises. What they return is safe in JSON and in plain text, and stays safe after a reader has decoded it.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Mapping
from itertools import islice
from typing import Any

TEXT_MAX = 400
"""Characters of the longest text value: above any address (RFC 5321 §4.5.3.1: 64 + 1 + 255)."""
INT_MAX = 1 << 63

Plain = None | bool | int | float | str | list[Any] | dict[str, Any]

_ITEMS_MAX = 32
_DEPTH_MAX = 4
_FRAMES_MAX = 8
_NAMED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def clean(text: str | bytes, limit: int = TEXT_MAX) -> str:
    r"""Return `text` printable, on one line and at most `limit` characters.

    ``\xNN`` is an undecodable byte or an ASCII control, ``\uNNNN`` another code point that does not print,
    ``\\`` a backslash: no two texts look alike unless they were cut, which ends in "…".
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if len(text) <= limit and text.isprintable() and "\\" not in text:
        return text
    return escaped(text, limit)


def escaped(text: str, limit: int) -> str:
    """Return what ``clean`` does for a text already known to need it."""
    pieces = [char if char.isprintable() and char != "\\" else _escape(char) for char in text[: limit + 1]]
    if len(whole := "".join(pieces)) <= limit:
        return whole
    room = limit - 1
    kept: list[str] = []
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + "…" if limit > 0 else ""


def _escape(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def plain(value: object, limit: int, depth: int = 0) -> Plain:
    """Return `value` as something JSON has, cleaned, bounded in length, number and depth."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # str() of a huge int raises; hex() does not.
        return int(value) if abs(value) < INT_MAX else clean(hex(value), limit)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, (str, bytes)):
        return clean(value if isinstance(value, bytes) else str(value), limit)
    if depth < _DEPTH_MAX and isinstance(value, (list, tuple, set, frozenset)):
        some = [plain(item, limit, depth + 1) for item in islice(value, _ITEMS_MAX)]
        return [*some, *_rest(len(value)).values()]
    if depth < _DEPTH_MAX and isinstance(value, (dict, Mapping)):
        items = islice(value.items(), _ITEMS_MAX)
        short = {clean(shown(key), min(limit, 80)): plain(item, limit, depth + 1) for key, item in items}
        return short | _rest(len(value))
    return clean(shown(value), limit)


def _rest(length: int) -> dict[str, str]:
    return {"…": f"{length - _ITEMS_MAX} more"} if length > _ITEMS_MAX else {}


def shown(value: object) -> str:
    """Return str(value), or what went wrong with that."""
    try:
        return str(value)
    except Exception as error:  # a foreign __str__ may raise anything; the line matters more
        return f"<{type(value).__name__}: {type(error).__name__}>"


def exception(exc_info: object) -> dict[str, str]:
    """Return what an ``exc_info`` says as two one-line fields, innermost frame last."""
    error = exc_info if isinstance(exc_info, BaseException) else None
    if error is None and isinstance(exc_info, tuple) and len(exc_info) > 1:
        error = exc_info[1]
    elif error is None and exc_info:
        error = sys.exc_info()[1]
    if error is None:
        return {}
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    said = f"{type(error).__name__}: {shown(error)}"
    if error.__cause__ is not None:
        said += f" (from {type(error.__cause__).__name__}: {shown(error.__cause__)})"
    where = (f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames)  # noqa: PTH119
    return {"exception": said, "traceback": " > ".join(where)}
