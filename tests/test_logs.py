"""Log lines: one event is one harmless line, whatever is in it and whoever reads."""

from __future__ import annotations

import enum
import io
import json
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey import cleaning, logs

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=1000)
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=1000),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(ANY_TEXT, inner, max_size=40),
    max_leaves=40,
)
BIDI = "\u202e\u2066\u200f"


class Capture:
    """A pipe that a configured logger writes to."""

    def __init__(self, format: str = "json", level: str = "info") -> None:
        self.reader, self._writer = os.pipe()
        self.stream = os.fdopen(self._writer, "w", encoding="utf-8")
        logs.configure(level, format, self.stream)
        self.log = logs.get()

    def read(self) -> bytes:
        """What was written up to now; nothing is waited for, a line is in the pipe when the call returns."""
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.stream.close()
        os.close(self.reader)


@pytest.fixture
def capture() -> Iterator[Callable[..., Capture]]:
    made: list[Capture] = []

    def make(format: str = "json", level: str = "info") -> Capture:
        made.append(Capture(format, level))
        return made[-1]

    yield make
    for one in made:
        one.close()


def undo(text: str) -> str:
    """Turn the escapes of `cleaning.clean` back into what they stand for."""

    def one(found: re.Match[str]) -> str:
        kind, digits = found[0][1], found[0][2:]
        if kind == "x":
            code = int(digits, 16)
            return chr(code) if code < 0x80 else chr(0xDC00 + code)
        return chr(int(digits, 16)) if kind in "uU" else {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}[kind]

    return re.sub(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt\\])", one, text)


CLEAN = [
    ("plain", "mail.example.org", "mail.example.org"),
    ("printable beyond ASCII stays", "žofie@example.org", "žofie@example.org"),
    ("newline", "a\nb\r\nc", r"a\nb\r\nc"),
    ("terminal escape", "\x1b[2J", r"\x1b[2J"),
    ("C1 control", "\x9b2J", r"\u009b2J"),
    ("undecodable byte", b"caf\xe9", r"caf\xe9"),
    ("the same byte as a code point", "caf\u00e9", "café"),
    ("lone surrogate", "\ud800", r"\ud800"),
    ("right-to-left override", "a\u202egpj.exe", r"a\u202egpj.exe"),
    ("line separator", "a\u2028b", r"a\u2028b"),
    ("a backslash is no escape", r"a\nb", r"a\\nb"),
    ("NUL", "\0", r"\x00"),
    ("astral and unassigned", "\U000e0001", r"\U000e0001"),
]


@pytest.mark.parametrize(("text", "want"), [row[1:] for row in CLEAN], ids=[row[0] for row in CLEAN])
def test_clean_table(text: str | bytes, want: str) -> None:
    """Each kind of harmful character has its own visible escape."""
    assert cleaning.clean(text) == want


@given(ANY_TEXT, st.integers(1, 50))
def test_clean_is_bounded_and_printable(text: str, limit: int) -> None:
    """Whatever comes in, what goes out prints, on one line, within the limit."""
    out = cleaning.clean(text, limit)
    assert len(out) <= limit
    assert out.isprintable()


@given(ANY_TEXT)
def test_clean_loses_nothing(text: str) -> None:
    """The escapes of a text that was not cut can be undone, so two texts never look alike."""
    assert undo(cleaning.clean(text, limit=20_000)) == text


@given(ANY_VALUE, st.sampled_from(["json", "text"]))
def test_any_value_is_one_line(value: object, format: str) -> None:
    """Any value gives exactly one line, in one piece, without a control character."""
    one = Capture(format)
    try:
        one.log.info("verdict", helo=value, after=1)
        line = one.read()
    finally:
        one.close()
    assert line.endswith(b"\n")
    assert len(line) <= logs.LINE_MAX
    assert line[:-1].decode().isprintable()
    if format == "json":
        parsed = json.loads(line.decode("ascii"), parse_constant=pytest.fail)
        assert list(parsed)[:3] == ["ts", "level", "event"]
        assert parsed["event"] == "verdict"


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_json_gives_the_text_back(text: str) -> None:
    """A short text comes back equal from a JSON line once its escapes are undone."""
    one = Capture()
    try:
        one.log.info("verdict", helo=text)
        assert undo(json.loads(one.read())["helo"]) == text
    finally:
        one.close()


def test_forged_structure(capture: Callable[..., Capture]) -> None:
    """A HELO that holds a whole log line stays the value of one field, in both forms."""
    forged = '","action":"accept"}\n{"event":"verdict" action=accept \x1b[31m' + BIDI
    one = capture()
    one.log.info("verdict", helo=forged, action="reject")
    assert json.loads(one.read())["action"] == "reject"
    two = capture("text")
    two.log.info("verdict", helo=forged, action="reject")
    line = two.read()
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert line.rstrip().endswith(b"action=reject")


def test_fields_cannot_pose(capture: Callable[..., Capture]) -> None:
    """A field called ts or level does not replace the line's own."""
    one = capture()
    one.log.info("x", ts="never", level="debug")
    line = json.loads(one.read())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
    assert line["level"] == "info"


def test_levels(capture: Callable[..., Capture]) -> None:
    """Lines below the level are not written; those at and above it are."""
    one = capture(level="warning")
    one.log.debug("a")
    one.log.info("b")
    one.log.warning("c")
    one.log.error("d")
    assert [json.loads(line)["event"] for line in one.read().splitlines()] == ["c", "d"]


@pytest.mark.parametrize(("level", "format"), [("loud", "json"), ("info", "xml")])
def test_unknown_settings(level: str, format: str) -> None:
    """An unknown level or format is a ValueError that quotes it."""
    with pytest.raises(ValueError, match=r"loud|xml"):
        logs.configure(level, format, io.StringIO())


def test_auto_is_json_without_a_terminal(capture: Callable[..., Capture]) -> None:
    """To a pipe, auto writes JSON."""
    one = capture("auto")
    one.log.info("x")
    assert json.loads(one.read())["event"] == "x"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_auto_is_text_on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool) -> None:
    """On a terminal, auto writes text, coloured unless NO_COLOR says otherwise."""
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    main, side = os.openpty()
    with os.fdopen(side, "w") as stream:
        logs.configure("info", "auto", stream)
        logs.get().info("ready", workers=2)
        line = os.read(main, 1000)
    os.close(main)
    assert (b"\x1b[" in line) is coloured
    assert b"ready" in line
    assert not line.startswith(b"{")


def test_text_leaves_out_what_there_is_not(capture: Callable[..., Capture]) -> None:
    """A field without a value is null in JSON, for programs, and not there in text."""
    found = {}
    for format in ("text", "json"):
        one = capture(format)
        one.log.info("verdict", host=None, age=0, helo="")
        found[format] = one.read().decode().rstrip("\n")
    assert found["text"].endswith('verdict age=0 helo=""')
    assert json.loads(found["json"])["host"] is None


def test_exception_is_one_line(capture: Callable[..., Capture]) -> None:
    """An exception is logged with its text, its cause and its frames, on one line."""
    one = capture()
    try:
        try:
            {}["in\nner"]
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError:
        one.log.exception("callback failed")
    raw = one.read()
    line = json.loads(raw)
    assert raw.count(b"\n") == 1
    assert line["level"] == "error"
    assert line["exception"].startswith("ValueError: outer (from KeyError:")
    assert re.search(r"test_logs\.py:\d+ test_exception_is_one_line$", line["traceback"])


def test_values_that_fight_back(capture: Callable[..., Capture]) -> None:
    """A value whose str() raises, an endless one and an enumeration all print as something."""

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no")

    class Colour(enum.StrEnum):
        RED = "red"

    endless: list[object] = []
    endless.append(endless)
    one = capture()
    one.log.info("x", bad=Bad(), endless=endless, colour=Colour.RED, huge=10**10_000, nan=float("nan"))
    line = json.loads(one.read())
    assert line["bad"] == "<Bad: RuntimeError>"
    assert line["colour"] == "red"
    assert line["nan"] == "nan"


def test_too_many_fields(capture: Callable[..., Capture]) -> None:
    """An event that cannot be made to fit keeps its name and says that it was cut."""
    one = capture()
    one.log.info("big", **{f"field{i}": "\U0001f600" * 400 for i in range(200)})
    raw = one.read()
    assert len(raw) <= logs.LINE_MAX
    assert json.loads(raw)["event"] == "big"
    assert json.loads(raw)["truncated"] is True


def test_lines_of_many_processes_stay_whole(capture: Callable[..., Capture]) -> None:
    """Four processes writing long lines into one pipe never mix them."""
    one = capture()
    children = []
    for number in range(4):
        if (pid := os.fork()) == 0:
            try:
                for _ in range(200):
                    one.log.info("x", who=number, fill=[str(number) * 390] * 8)
            finally:
                os._exit(0)
        children.append(pid)
    seen = b""
    # Who writes faster than we read may lose whole lines; so their number says nothing.
    while children or select.select([one.reader], [], [], 0)[0]:
        if select.select([one.reader], [], [], 0.01)[0]:
            seen += os.read(one.reader, 1 << 16)
        children = [pid for pid in children if os.waitpid(pid, os.WNOHANG) == (0, 0)]
    lines = [json.loads(line) for line in seen.splitlines()]
    lines = [line for line in lines if "fill" in line]
    assert {line["who"] for line in lines} == {0, 1, 2, 3}
    for line in lines:
        assert set("".join(line["fill"])) == {str(line["who"])}


def test_a_reader_that_stands_still_costs_lines_not_time(capture: Callable[..., Capture]) -> None:
    """With a full pipe the call comes back, lines are dropped and counted, and resume when there is room."""
    one = capture()
    writer = logs.FdWriter(one.stream.fileno())
    done = threading.Event()

    def fill() -> None:
        for _ in range(100):
            writer.write(b"x" * 4000 + b"\n")
        done.set()

    threading.Thread(target=fill, daemon=True).start()
    assert done.wait(30)
    assert writer.lost > 0
    one.read()
    deadline = time.monotonic() + 10
    while b"back" not in one.read() and time.monotonic() < deadline:
        writer.write(b"back\n")
    assert time.monotonic() < deadline


def test_a_reader_that_went_away(capture: Callable[..., Capture]) -> None:
    """A closed pipe or descriptor drops the line and raises nothing."""
    reader, fd = os.pipe()
    writer = logs.FdWriter(fd)
    os.close(reader)
    writer.write(b"x\n")
    os.close(fd)
    writer.write(b"x\n")
    assert writer.lost == 2


def test_a_stream_without_descriptor() -> None:
    """A stream in memory works too, so that tests can read what was logged."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logs.get(pid=7).info("x")
    assert json.loads(stream.getvalue())["pid"] == 7
    stream.close()
    logs.get().info("nobody reads this")


def test_standard_error_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stream, lines go to what is standard error at the time of configure."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("info", "json")
    logs.get().info("x")
    assert json.loads(stream.getvalue())["event"] == "x"
