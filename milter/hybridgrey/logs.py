"""Log lines: one event, one line, one write, to standard error.

``configure`` sets structlog up once a process (children inherit it over fork) and ``get`` returns a logger:

    log = logs.get()
    log.info("verdict", client="192.0.2.1", helo=helo, rule="the rest", wait_ms=12)

Two forms. *json*: an ASCII JSON object with ``ts`` (UTC, milliseconds), ``level`` and ``event`` first.
*text*: for eyes, coloured on a terminal only. *auto* is text on a terminal, else json.

What clients send is data. Every value passes through ``clean``, so nobody has to remember to: control
characters, line ends, bidirectional overrides, undecodable bytes and lone surrogates come out as visible
escapes, even after a reader has decoded the JSON. A line is never longer than ``LINE_MAX``, for a pipe keeps
lines of several writers apart only up to that size.

Logging never breaks mail: a reader that stands still, a closed pipe or a value that cannot be printed costs
the line, never the caller.
"""

from __future__ import annotations

import io
import json
import math
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from itertools import islice
from typing import Any, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger

LINE_MAX = 4096
"""Bytes of the longest line, its newline included: PIPE_BUF, what a pipe takes in one piece."""
TEXT_MAX = 400
"""Characters of the longest text value: above any address (RFC 5321 §4.5.3.1: 64 + 1 + 255)."""

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
FORMATS = ("auto", "json", "text")

_ITEMS_MAX = 32
_DEPTH_MAX = 4
_INT_MAX = 1 << 63
_FRAMES_MAX = 8
_SHORTER = (TEXT_MAX, 100, 24)
_WAIT_MS = 100
_PAUSE = 1.0
_NAMED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

Fields = dict[str, Any]
Plain = None | bool | int | float | str | list[Any] | dict[str, Any]


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Set up structlog for this process.

    level: one of ``LEVELS``; lines below it cost a call and nothing more. format: one of ``FORMATS``.
    stream: standard error if None. Raises ValueError for another level or format.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; known: {', '.join(LEVELS)}")
    if format not in FORMATS:
        raise ValueError(f"unknown log format {format!r}; known: {', '.join(FORMATS)}")
    stream = sys.stderr if stream is None else stream
    terminal = stream is not None and stream.isatty()
    as_text = format == "text" or (format == "auto" and terminal)
    render: Callable[[str, Fields], bytes] = (
        _Text(
            colour=terminal and _wants_colour(), encoding=getattr(stream, "encoding", None) or "ascii"
        ).render
        if as_text
        else _Json().render
    )
    structlog.configure(
        processors=[_Renderer(render)],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_Factory(_writer(stream)),
        cache_logger_on_first_use=True,
    )


def get(**fields: object) -> FilteringBoundLogger:
    """Return a logger whose lines all carry `fields`. Call it after `configure`, not while importing."""
    # A bound logger, not structlog's lazy proxy: the proxy binds again for every line.
    return cast("FilteringBoundLogger", structlog.get_logger().bind(**fields))


def clean(text: str | bytes, limit: int = TEXT_MAX) -> str:
    r"""Return `text` printable, on one line and at most `limit` characters.

    ``\xNN`` is an undecodable byte or an ASCII control, ``\uNNNN`` another code point that does not print,
    ``\\`` a backslash: no two texts look alike unless they were cut, which ends in "…".
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if len(text) <= limit and text.isprintable() and "\\" not in text:
        return text
    return _escaped(text, limit)


def _escaped(text: str, limit: int) -> str:
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


def _plain(value: object, limit: int, depth: int = 0) -> Plain:
    """Return `value` as something JSON has, cleaned, bounded in length, number and depth."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # str() of a huge int raises; hex() does not.
        return int(value) if abs(value) < _INT_MAX else clean(hex(value), limit)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, (str, bytes)):
        return clean(value if isinstance(value, bytes) else str(value), limit)
    if depth < _DEPTH_MAX and isinstance(value, (list, tuple, set, frozenset)):
        some = [_plain(item, limit, depth + 1) for item in islice(value, _ITEMS_MAX)]
        return [*some, *_rest(len(value)).values()]
    if depth < _DEPTH_MAX and isinstance(value, Mapping):
        items = islice(value.items(), _ITEMS_MAX)
        short = {clean(_shown(key), min(limit, 80)): _plain(item, limit, depth + 1) for key, item in items}
        return short | _rest(len(value))
    return clean(_shown(value), limit)


def _rest(length: int) -> dict[str, str]:
    return {"…": f"{length - _ITEMS_MAX} more"} if length > _ITEMS_MAX else {}


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # a foreign __str__ may raise anything; the line matters more
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _exception(exc_info: object) -> Fields:
    """Return what an ``exc_info`` says as two one-line fields, innermost frame last."""
    error = exc_info if isinstance(exc_info, BaseException) else None
    if error is None and isinstance(exc_info, tuple) and len(exc_info) > 1:
        error = exc_info[1]
    elif error is None and exc_info:
        error = sys.exc_info()[1]
    if error is None:
        return {}
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    said = f"{type(error).__name__}: {_shown(error)}"
    if error.__cause__ is not None:
        said += f" (from {type(error.__cause__).__name__}: {_shown(error.__cause__)})"
    where = (f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames)  # noqa: PTH119
    return {"exception": said, "traceback": " > ".join(where)}


def _fields(level: str, given: Mapping[str, Any], limit: int) -> Fields:
    """Return the line's fields in their order, each one safe to print."""
    # The three come first by being there first; set again at the end so that no field can pose as one.
    line: Fields = {"ts": None, "level": None, "event": None, **given}
    for key, value in given.items():
        # What nearly every field is, settled without a call: half of the line's cost is here.
        kind = type(value)
        if kind is str:
            if len(value) > limit or not value.isprintable() or "\\" in value:
                line[key] = _escaped(value, limit)
        elif not (value is None or kind is bool or (kind is int and -_INT_MAX < value < _INT_MAX)):
            line[key] = _plain(value, limit)
    line["ts"] = _timestamp()
    line["level"] = level
    return line


def _timestamp() -> str:
    now = time.time()
    # By hand: datetime's way takes three times as long.
    return f"{_second(int(now))}.{int(now % 1 * 1000):03d}Z"


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


class _Json:
    def __init__(self) -> None:
        self._encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode

    def render(self, level: str, given: Fields) -> bytes:
        for limit in _SHORTER:
            line = (self._encode(_fields(level, given, limit)) + "\n").encode("ascii")
            if len(line) <= LINE_MAX:
                return line
        short = {"event": given.get("event"), "truncated": True}
        return (self._encode(_fields(level, short, 200)) + "\n").encode("ascii")


class _Text:
    def __init__(self, *, colour: bool, encoding: str) -> None:
        self._colour = colour
        self._encoding = encoding

    def render(self, level: str, given: Fields) -> bytes:
        for limit in _SHORTER:
            line = self._line(_fields(level, given, limit))
            if len(line) <= LINE_MAX:
                return line
        return self._line(_fields(level, {"event": given.get("event"), "truncated": True}, 200))

    def _line(self, fields: Fields) -> bytes:
        ts, level, event = (fields.pop(key) for key in ("ts", "level", "event"))
        parts = [
            self._paint("2", f"{ts[:10]} {ts[11:]}"),
            self._paint(_COLOURS.get(level, "0"), f"{level:<8}"),
            self._paint("1", str(event)),
        ]
        parts += [f"{self._paint('36', clean(key, 80))}={_quoted(value)}" for key, value in fields.items()]
        # The stream's own encoding: UTF-8 bytes are C1 controls to a terminal that reads Latin-1.
        return " ".join(parts).encode(self._encoding, "backslashreplace") + b"\n"

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def _quoted(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value and not (" " in value or '"' in value or "=" in value):
        return value
    # Backslashes are doubled by clean already; JSON would double them again.
    return '"' + value.replace('"', '\\"') + '"'


def _wants_colour() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _Renderer:
    """structlog's only processor: an event dictionary in, the bytes of a line out."""

    def __init__(self, render: Callable[[str, Fields], bytes]) -> None:
        self._render = render

    def __call__(self, _logger: object, method: str, event_dict: MutableMapping[str, Any]) -> bytes:
        given = cast("Fields", event_dict)
        try:
            if "exc_info" in given:
                given.update(_exception(given.pop("exc_info")))
            return self._render(method, given)
        except Exception as error:  # whatever a foreign value raised, the caller's work goes on
            return self._render(method, {"event": "unprintable log event", "error": type(error).__name__})


class FdWriter:
    """Writes whole lines to a descriptor that several processes share; never raises, never hangs long."""

    def __init__(self, fd: int, owner: object = None) -> None:
        self._fd = fd
        self._owner = owner  # kept, for a stream that is collected closes its descriptor
        self._stuck_until = 0.0
        self._torn = False
        self.lost = 0
        """Lines (or ends of lines) that could not be written."""

    def write(self, line: bytes) -> None:
        """Write `line`, which ends in a newline, in one piece; drop it when the reader stands still."""
        try:
            self._write(b"\n" + line if self._torn else line)
        except OSError:  # the reader is gone: there is nobody left to tell, but counters
            self.lost += 1

    def _write(self, line: bytes) -> None:
        # Asked first, for standard error is a blocking descriptor: without it a log reader that stops
        # would stop all mail. O_NONBLOCK is no way out, as it would change our parent's terminal as well.
        if not self._ready():
            self.lost += 1
            return
        rest = line[os.write(self._fd, line) :]
        self._torn = bool(rest)
        if rest and self._ready():
            self._torn = os.write(self._fd, rest) < len(rest)
        self.lost += self._torn

    def _ready(self) -> bool:
        stuck = self._stuck_until and time.monotonic() < self._stuck_until
        poll = select.poll()  # a new one each time: an object in use by another thread raises
        poll.register(self._fd, select.POLLOUT)
        if poll.poll(0 if stuck else _WAIT_MS):
            self._stuck_until = 0.0
            return True
        self._stuck_until = self._stuck_until if stuck else time.monotonic() + _PAUSE
        return False


class _StreamWriter:
    """Writes to a stream that has no file descriptor, as under a test's capture."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        try:
            self._stream.write(line.decode("utf-8", "replace"))
        except (OSError, ValueError):  # closed: nobody reads it any more
            return


class _Logger:
    """What structlog calls with the finished line, under the level's name."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write


class _Factory:
    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._logger = _Logger(write)

    def __call__(self, *_names: Iterable[object]) -> _Logger:
        return self._logger


def _writer(stream: TextIO | None) -> Callable[[bytes], None]:
    if stream is None:  # started with standard error closed
        return FdWriter(2).write
    try:
        return FdWriter(stream.fileno(), stream).write
    except (AttributeError, io.UnsupportedOperation):
        return _StreamWriter(stream).write
