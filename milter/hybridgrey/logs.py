"""Log lines: one event, one line, one write, to standard error.

``configure`` sets structlog up once a process (children inherit it over fork) and ``get`` returns a logger:

    log = logs.get()
    log.info("verdict", client="192.0.2.1", helo=helo, rule="the rest", wait_ms=12)

Two forms. *json*: an ASCII JSON object with ``ts`` (UTC, milliseconds), ``level`` and ``event`` first.
*text*: for eyes, coloured on a terminal only. *auto* is text on a terminal, else json.

What clients send is data. Every value passes through ``cleaning``, so nobody has to remember to: control
characters, line ends, bidirectional overrides, undecodable bytes and lone surrogates come out as visible
escapes, even after a reader has decoded the JSON. A line is never longer than ``LINE_MAX``, for a pipe keeps
lines of several writers apart only up to that size.

Logging never breaks mail: a reader that stands still, a closed pipe or a value that cannot be printed costs
the line, never the caller.
"""

from __future__ import annotations

import io
import json
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO, cast

import orjson
import structlog

from hybridgrey.cleaning import INT_MAX, TEXT_MAX, clean, escaped, exception, plain
from hybridgrey.logfile import LogFile

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LINE_MAX = 4096
"""Bytes of the longest line, its newline included: PIPE_BUF, what a pipe takes in one piece."""

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
FORMATS = ("auto", "json", "text")

_LONG = re.compile(rb'[^"]{%d,}' % (TEXT_MAX + 1))
_OPTIONS = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)
# What `ts`, `level` and `event` take of a line at most.
_MOST_OF_HEAD = 128
_SHORTER = (TEXT_MAX, 100, 24)
_WAIT_MS = 100
_PAUSE = 1.0
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

Fields = dict[str, Any]
Render = Callable[[str, Fields, float], bytes]
"""The line of an event: its level, what is in it, and when it was in Unix seconds."""


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
    render: Render = (
        _Text(
            colour=terminal and _wants_colour(), encoding=getattr(stream, "encoding", None) or "ascii"
        ).render
        if as_text
        else _Json().render
    )
    structlog.configure(
        processors=[_Renderer(render, json=not as_text)],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_Factory(_writer(stream)),
        cache_logger_on_first_use=True,
    )


def get(**fields: object) -> FilteringBoundLogger:
    """Return a logger whose lines all carry `fields`. Call it after `configure`, not while importing."""
    # A bound logger, not structlog's lazy proxy: the proxy binds again for every line.
    return cast("FilteringBoundLogger", structlog.get_logger().bind(**fields))


class Lines:
    """Lines of events that come in numbers, written together; whether they pass the level is the caller's.

    Not thread safe. Make it after `configure`.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        ours = structlog.get_config()
        renderer: _Renderer = ours["processors"][0]
        self._line: Render = renderer.line
        self._json = renderer.json
        self._write: Callable[[bytes], None] = ours["logger_factory"]().info

    def add(self, level: str, event: str, fields: Mapping[str, Any], at: float) -> bytes | None:
        """Add the line of an event; `at` in Unix seconds; no field is called `ts`, `level` or `event`.

        What is between the braces of `fields` as JSON, if the line has it so; None where it was cleaned, or
        lines are text.
        """
        members = _members(fields) if self._json else None
        if not members:
            self._lines.append(self._line(level, {"event": event, **fields}, at))
            return None
        head = f'{{"ts":"{_timestamp(at)}","level":"{level}","event":"{event}",'
        self._lines.append(b"%b%b}\n" % (head.encode(), members))
        return members

    def flush(self) -> None:
        """Write them, as many at once as a pipe keeps together."""
        piece = b""
        for line in self._lines:
            if len(piece) + len(line) > LINE_MAX:
                self._write(piece)
                piece = b""
            piece += line
        self._lines.clear()
        if piece:
            self._write(piece)


def _fields(level: str, given: Mapping[str, Any], limit: int, at: float) -> Fields:
    """Return the line's fields in their order, each one safe to print."""
    # The three come first by being there first; set again at the end so that no field can pose as one.
    line: Fields = {"ts": None, "level": None, "event": None, **given}
    for key, value in given.items():
        # What nearly every field is, settled without a call: half of the line's cost is here.
        kind = type(value)
        if kind is str:
            if len(value) > limit or not value.isprintable() or "\\" in value:
                line[key] = escaped(value, limit)
        elif not (value is None or kind is bool or (kind is int and -INT_MAX < value < INT_MAX)):
            line[key] = plain(value, limit)
    line["ts"] = _timestamp(at)
    line["level"] = level
    return line


def _timestamp(at: float) -> str:
    # By hand: datetime's way takes three times as long.
    return f"{_second(int(at))}.{int(at % 1 * 1000):03d}Z"


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def _members(fields: Mapping[str, Any]) -> bytes | None:
    """Fields as JSON, without braces, if nothing in them needs cleaning; looked at once, at C's speed.

    An escape in JSON, or a byte that is not ASCII, is the sign of something that must be cleaned.
    """
    try:
        data = orjson.dumps(fields, option=_OPTIONS)
    except TypeError:  # orjson.JSONEncodeError is one: a value that JSON has no word for
        return None
    if not data.isascii() or b"\\" in data or b"\x7f" in data or len(data) > LINE_MAX - _MOST_OF_HEAD:
        return None
    return None if len(data) > TEXT_MAX and _LONG.search(data) else data[1:-1]


class _Json:
    def __init__(self) -> None:
        self._encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode

    def render(self, level: str, given: Fields, at: float) -> bytes:
        return self._as_it_is(level, given, at) or self._cleaned(level, given, at)

    def _as_it_is(self, level: str, given: Fields, at: float) -> bytes | None:
        """The line, if nothing in it needs cleaning, as in nearly every one."""
        if "ts" in given or "level" in given:
            return None
        members = _members({"ts": _timestamp(at), "level": level, "event": None, **given})
        return None if members is None else b"{%b}\n" % members

    def _cleaned(self, level: str, given: Fields, at: float) -> bytes:
        for limit in _SHORTER:
            line = (self._encode(_fields(level, given, limit, at)) + "\n").encode("ascii")
            if len(line) <= LINE_MAX:
                return line
        short = {"event": given.get("event"), "truncated": True}
        return (self._encode(_fields(level, short, 200, at)) + "\n").encode("ascii")


class _Text:
    def __init__(self, *, colour: bool, encoding: str) -> None:
        self._colour = colour
        self._encoding = encoding

    def render(self, level: str, given: Fields, at: float) -> bytes:
        for limit in _SHORTER:
            line = self._line(_fields(level, given, limit, at))
            if len(line) <= LINE_MAX:
                return line
        return self._line(_fields(level, {"event": given.get("event"), "truncated": True}, 200, at))

    def _line(self, fields: Fields) -> bytes:
        ts, level, event = (fields.pop(key) for key in ("ts", "level", "event"))
        parts = [
            self._paint("2", f"{ts[:10]} {ts[11:]}"),
            self._paint(_COLOURS.get(level, "0"), f"{level:<8}"),
            self._paint("1", str(event)),
        ]
        # For a reader, not a program: what there is not, need not be said.
        parts += [
            f"{self._paint('36', clean(key, 80))}={_quoted(value)}"
            for key, value in fields.items()
            if value is not None
        ]
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

    def __init__(self, render: Render, *, json: bool) -> None:
        self._render = render
        self.json = json
        """Whether lines are JSON."""

    def __call__(self, _logger: object, method: str, event_dict: MutableMapping[str, Any]) -> bytes:
        return self.line(method, cast("Fields", event_dict), time.time())

    def line(self, level: str, given: Fields, at: float) -> bytes:
        """The line of an event, come what may."""
        try:
            if "exc_info" in given:
                given.update(exception(given.pop("exc_info")))
            return self._render(level, given, at)
        except Exception as error:  # whatever a foreign value raised, the caller's work goes on
            given = {"event": "unprintable log event", "error": type(error).__name__}
            return self._render(level, given, at)


class FdWriter:
    """Writes whole lines to a descriptor that several processes share; never raises, never hangs long."""

    def __init__(self, fd: int, owner: object = None) -> None:
        self._fd = fd
        self._owner = owner  # kept, for a stream that is collected closes its descriptor
        self._stuck_until = 0.0
        self._torn = False
        self._waits = not _is_file(fd)
        self.lost = 0
        """Lines (or ends of lines) that could not be written."""

    def write(self, line: bytes) -> None:
        """Write lines, each with its newline, in one piece; drop them when the reader stands still."""
        try:
            self._write(b"\n" + line if self._torn else line)
        except OSError:  # the reader is gone: there is nobody left to tell, but counters
            self.lost += line.count(b"\n")

    def _write(self, line: bytes) -> None:
        # Asked first, for standard error is a blocking descriptor: without it a log reader that stops
        # would stop all mail. O_NONBLOCK is no way out, as it would change our parent's terminal as well.
        if self._waits and not self._ready():
            self.lost += line.count(b"\n")
            return
        rest = line[os.write(self._fd, line) :]
        self._torn = bool(rest)
        if rest and self._ready():
            rest = rest[os.write(self._fd, rest) :]
            self._torn = bool(rest)
        self.lost += rest.count(b"\n")

    def _ready(self) -> bool:
        stuck = self._stuck_until and time.monotonic() < self._stuck_until
        poll = select.poll()  # a new one each time: an object in use by another thread raises
        poll.register(self._fd, select.POLLOUT)
        if poll.poll(0 if stuck else _WAIT_MS):
            self._stuck_until = 0.0
            return True
        self._stuck_until = self._stuck_until if stuck else time.monotonic() + _PAUSE
        return False


def _is_file(fd: int) -> bool:
    """Whether writing to a descriptor never waits for a reader."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
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
        write = FdWriter(stream.fileno(), stream).write
    except (AttributeError, io.UnsupportedOperation):
        return _StreamWriter(stream).write
    return stream.following(write) if isinstance(stream, LogFile) else write
