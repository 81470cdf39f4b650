"""Trouble is told once: by several processes, out of phase, in bad order and in garbage."""

from __future__ import annotations

import io
import json
import os
import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey import logs
from hybridgrey.trouble import collector as collectors
from hybridgrey.trouble import reporter
from hybridgrey.trouble.collector import Collector, Direct
from hybridgrey.trouble.reporter import Channel, Message, Reporter, decode, encode


def message(source: int, what: str, kind: str = "store", failures: int = 1, **detail: object) -> bytes:
    return encode(Message(source, kind, what == "fail", failures, detail))


# (seconds, process, "fail" | "ok" | "gone" | "-" for a bare tick, failures)
Step = tuple[float, int, str, int]

COLLECTOR: list[tuple[str, list[Step], list[str]]] = [
    ("nothing", [(0, 1, "-", 0), (1000, 1, "-", 0)], []),
    ("one failure", [(0, 1, "fail", 1)], ["0 store failing"]),
    ("many failures are one line", [(t, 1, "fail", 9) for t in range(0, 60, 10)], ["0 store failing"]),
    ("three workers are one line", [(t, t, "fail", 1) for t in range(3)], ["0 store failing"]),
    (
        "failed and recovered",
        [(0, 1, "fail", 1), (5, 1, "ok", 41), (6, 1, "-", 0), (7, 1, "-", 0), (9, 1, "-", 0)],
        ["0 store failing", "7 store recovered failures=42 seconds=7.0"],
    ),
    (
        "the last of two workers decides",
        [
            (0, 1, "fail", 1),
            (1, 2, "fail", 1),
            (8, 1, "ok", 0),
            (11, 1, "-", 0),
            (12, 2, "ok", 0),
            (14, 1, "-", 0),
        ],
        ["0 store failing", "14 store recovered failures=2 seconds=14.0"],
    ),
    (
        "a worker without mail does not hold the recovery up for long",
        [(0, 1, "fail", 1), (1, 2, "fail", 1), (8, 1, "ok", 0), (15, 1, "-", 0), (16, 1, "-", 0)],
        ["0 store failing", "16 store recovered failures=2 seconds=16.0"],
    ),
    (
        "a worker that goes on failing holds it up",
        [(0, 1, "fail", 1), (0, 2, "fail", 1), (8, 1, "ok", 0)]
        + [(t, 2, "fail", 1) for t in range(10, 60, 10)],
        ["0 store failing"],
    ),
    (
        "a blip within the hold is no news",
        [(0, 1, "fail", 1), (1, 1, "ok", 0), (2, 1, "fail", 1), (30, 1, "-", 0)],
        ["0 store failing"],
    ),
    (
        "still failing, every five minutes",
        [(t, 1, "fail", 5) for t in range(0, 700, 10)],
        [
            "0 store failing",
            "300 store still failing failures=155 seconds=300.0",
            "600 store still failing failures=305 seconds=600.0",
        ],
    ),
    ("no summary without failures", [(0, 1, "fail", 1), (400, 1, "-", 0)], ["0 store failing"]),
    (
        "nobody says anything any more",
        [(0, 1, "fail", 1), (1799, 1, "-", 0), (1800, 1, "-", 0), (1900, 1, "-", 0)],
        ["0 store failing", "1800 store no longer reported as failing failures=1 seconds=1800.0"],
    ),
    (
        "the only witness died",
        [(0, 1, "fail", 1), (5, 1, "gone", 0), (64, 1, "-", 0), (65, 1, "-", 0)],
        ["0 store failing", "65 store no longer reported as failing failures=1 seconds=65.0"],
    ),
    (
        "an old trouble is not over because the daemon reloads or ends",
        [(0, 1, "fail", 1), (0, 2, "fail", 1), (200, 1, "gone", 0), (210, 2, "gone", 0)]
        + [(t, 3, "-", 0) for t in (269, 270)],
        ["0 store failing", "270 store no longer reported as failing failures=2 seconds=270.0"],
    ),
    (
        "nor when the next one sees it, too",
        [(0, 1, "fail", 1), (200, 1, "gone", 0), (240, 2, "fail", 1), (400, 2, "-", 0)],
        ["0 store failing", "400 store still failing failures=2 seconds=400.0"],
    ),
    (
        "the next worker goes on where the dead one was",
        [(0, 1, "fail", 1), (5, 1, "gone", 0), (6, 2, "fail", 1), (7, 2, "ok", 0), (9, 2, "-", 0)],
        ["0 store failing", "9 store recovered failures=2 seconds=9.0"],
    ),
    (
        "a success from before the last failure is no recovery from it",
        [(0, 1, "fail", 1), (1, 2, "fail", 1), (2, 1, "ok", 0), (5, 2, "fail", 1), (6, 2, "gone", 0)]
        + [(t, 1, "-", 0) for t in range(7, 67)],
        ["0 store failing", "66 store no longer reported as failing failures=3 seconds=66.0"],
    ),
    ("a recovery of nothing", [(0, 1, "ok", 0), (9, 1, "-", 0)], []),
    (
        "again after a long time is news again",
        [(0, 1, "fail", 1), (1, 1, "ok", 0), (3, 1, "-", 0), (700, 1, "fail", 1)],
        ["0 store failing", "3 store recovered failures=1 seconds=3.0", "700 store failing"],
    ),
]


def play(steps: list[Step]) -> list[str]:
    collector = Collector()
    lines = []
    for second, source, what, failures in steps:
        now = float(second)
        if what == "-":
            events = collector.tick(now)
        elif what == "gone":
            events = collector.gone(source, now)
        else:
            events = collector.feed(message(source, what, failures=failures), now)
        for _level, event, fields in events:
            lines.append(" ".join([f"{now:g}", event, *(f"{key}={value}" for key, value in fields.items())]))
    return lines


@pytest.mark.parametrize(("steps", "want"), [row[1:] for row in COLLECTOR], ids=[row[0] for row in COLLECTOR])
def test_collector_table(steps: list[Step], want: list[str]) -> None:
    """Each course of trouble gives exactly the lines it is worth."""
    assert play(steps) == want


@pytest.mark.parametrize("period", [pytest.param(1, marks=pytest.mark.slow), 4, 7, 15, 40])
def test_flapping_is_no_flood(period: int) -> None:
    """Four workers that flap out of phase for six hours give a line in some minutes, and no burst."""
    steps: list[Step] = []
    for now in range(6 * 3600):
        steps += [
            (now, worker, "ok" if (now // period + worker) % 2 else "fail", 1)
            for worker in range(4)
            if (now + worker) % period == 0
        ]
        steps.append((now, 0, "-", 0))
    lines = play(steps)
    assert 1 <= len(lines) <= 2 * 6 * 3600 / 300 + 20
    assert max(sum(f"{now} " == line[: len(f"{now} ")] for line in lines) for now in range(100)) <= 1


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3), st.sampled_from(["fail", "ok", "gone"]))))
def test_lines_alternate_and_the_end_is_right(moves: list[tuple[int, int, str]]) -> None:
    """Starts and ends of trouble alternate, and once every worker saw it work, it is told to be over."""
    steps: list[Step] = []
    now = 0.0
    for pause, source, what in moves:
        for _ in range(pause):
            now += 1
            steps.append((now, 0, "-", 0))
        steps.append((now, source, what, 1))
    steps += [(now + 1, source, "ok", 0) for source in (1, 2, 3)]
    steps += [(now + 2 + second, 0, "-", 0) for second in range(700)]
    turns = [line.split(" ", 2)[2].split(" failures")[0] for line in play(steps)]
    turns = [turn for turn in turns if turn != "still failing"]
    assert turns[0::2] == ["failing"] * len(turns[0::2])
    assert "failing" not in turns[1::2]
    assert len(turns) % 2 == 0


def test_kinds_are_told_apart() -> None:
    """A list's label is a field of its line, and each list has its own line."""
    collector = Collector()
    first = collector.feed(message(1, "fail", "zone:zen.spamhaus.org", error="SERVFAIL"), 0)
    second = collector.feed(message(1, "fail", "nameserver:127.0.0.1:53"), 0)
    assert first == [("warning", "zone failing", {"name": "zen.spamhaus.org", "error": "SERVFAIL"})]
    assert second == [("warning", "nameserver failing", {"name": "127.0.0.1:53"})]
    assert collector.failing() == ["zone:zen.spamhaus.org", "nameserver:127.0.0.1:53"]


def test_too_many_kinds() -> None:
    """Beyond the limit, kinds are one kind: other."""
    collector = Collector()
    events = [event for i in range(1000) for event in collector.feed(message(1, "fail", f"zone:{i}"), 0)]
    assert len(events) == reporter.KINDS_MAX + 1
    assert events[-1].event == "other failing"


GARBAGE = [
    b"",
    b"\xff\xfe",
    b"{}",
    b"[1]",
    b"[" * 2000,
    b'[1,"store",1,1,{}]',
    b'[1,"",true,1,{}]',
    b'["1","store",true,1,{}]',
    b'[1,"store",true,-5,{}]',
    b'[1,"store",true,1.5,{}]',
    b'[1,"store",true,1,[]]',
    encode(Message(1, "store", True, 1, {"a": "b" * 100}))[:-3],
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:20]))
def test_garbage_is_ignored(data: bytes) -> None:
    """A datagram that is no message changes nothing and is counted."""
    collector = Collector()
    assert collector.feed(data, 0) == []
    assert collector.ignored == 1
    assert collector.failing() == []


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_datagram(data: bytes) -> None:
    """No datagram raises."""
    Collector().feed(data, 0)


@given(
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=500),
    st.dictionaries(
        st.text(max_size=20), st.none() | st.integers() | st.floats() | st.text() | st.binary(), max_size=30
    ),
)
def test_messages_are_bounded(kind: str, detail: dict[str, object]) -> None:
    """Whatever the kind and details, a message fits a datagram and can be read."""
    data = encode(Message(1, kind, True, 3, detail))
    assert len(data) <= reporter.MESSAGE_MAX
    found = decode(data)
    assert found is not None
    assert (found.source, found.failing, found.failures) == (1, True, 3)


def test_details_cannot_pose() -> None:
    """Details named like the logger's own arguments are left out."""
    data = json.dumps([1, "store", True, 1, {"event": "x", "self": "y", "no name": 1, "ok": 2}]).encode()
    found = decode(data)
    assert found is not None
    assert found.detail == {"ok": 2}


@dataclass
class Wire:
    """A sender whose room can run out, and a clock that is turned by hand."""

    room: bool = True
    now: float = 100.0

    def __post_init__(self) -> None:
        self.sent: list[Message] = []
        self.reporter = Reporter(self.send, lambda: self.now)

    def send(self, data: bytes) -> None:
        if not self.room:
            raise BlockingIOError
        found = decode(data)
        assert found is not None
        self.sent.append(found)

    def said(self) -> list[tuple[str, bool, int]]:
        return [(found.kind, found.failing, found.failures) for found in self.sent]


def test_only_changes_are_sent() -> None:
    """A thousand failures in a row are one message; the rest is in the count of the recovery."""
    wire = Wire()
    for _ in range(1000):
        wire.reporter.failing("store", error="x")
    wire.reporter.recovered("store")
    wire.reporter.recovered("store")
    assert wire.said() == [("store", True, 1), ("store", False, 999)]


def test_refresh() -> None:
    """While it goes on, the count is sent every ten seconds."""
    wire = Wire()
    for second in range(25):
        wire.now = 100.0 + second
        wire.reporter.failing("store")
    assert wire.said() == [("store", True, 1), ("store", True, 10), ("store", True, 10)]


def test_no_room_is_no_loss() -> None:
    """What found no room goes out with the next call, so neither counts nor the last state are lost."""
    wire = Wire(room=False)
    wire.reporter.failing("store")
    wire.reporter.recovered("store")
    assert wire.reporter.dropped == 2
    wire.room = True
    wire.reporter.failing("store")
    wire.room = False
    wire.reporter.recovered("store")
    wire.room = True
    wire.reporter.recovered("store")
    assert wire.said() == [("store", True, 2), ("store", False, 0)]


def test_reporter_bounds_its_kinds() -> None:
    """A reporter's memory is bounded too."""
    wire = Wire()
    for i in range(2000):
        wire.reporter.failing(f"zone:{i}")
    assert len({found.kind for found in wire.sent}) == reporter.KINDS_MAX + 1


def test_values_that_fight_back() -> None:
    """A detail whose str() raises is still a report."""

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no")

    wire = Wire()
    wire.reporter.failing("store", error=Bad(), huge=10**10_000)
    assert wire.sent[0].detail["error"] == "<Bad: RuntimeError>"
    assert wire.sent[0].detail["huge"] == "<int: ValueError>"


def test_threads_lose_no_failure() -> None:
    """Eight threads of one process count every failure."""
    wire = Wire()

    def fail() -> None:
        for _ in range(500):
            wire.reporter.failing("store")

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wire.reporter.recovered("store")
    assert sum(found.failures for found in wire.sent) == 4000


def test_channel_between_processes() -> None:
    """What four real processes report is one warning line with all their failures behind it."""
    channel = Channel()
    children = []
    for _ in range(4):
        if (pid := os.fork()) == 0:
            try:
                reporter = channel.reporter()
                for _ in range(100):
                    reporter.failing("store", error="connection refused")
                reporter.recovered("store")
            finally:
                os._exit(0)
        children.append(pid)
        os.waitpid(pid, 0)
    collector = Collector()
    arrived = channel.receive()
    channel.close()
    events = [event for data in arrived for event in collector.feed(data, 0.0)]
    assert [event.event for event in events] == ["store failing"]
    assert {found.source for data in arrived if (found := decode(data))} == set(children)
    last = collector.tick(collectors.HOLD)
    assert [(event.event, event.fields["failures"]) for event in last] == [("store recovered", 400)]


def test_a_full_channel_does_not_block() -> None:
    """When the master does not read, a reporter drops and goes on."""
    channel = Channel()
    reporter = channel.reporter()
    for i in range(200):
        reporter.failing(f"zone:{i}", **{f"field{j}": "x" * 130 for j in range(12)})
    arrived = []
    while more := channel.receive():
        arrived += more
    channel.close()
    assert reporter.dropped > 0
    assert len(arrived) + reporter.dropped == 200


def test_a_closed_channel_does_not_raise() -> None:
    """After the master is gone a report is dropped."""
    channel = Channel()
    reporter = channel.reporter()
    channel.close()
    reporter.failing("store")
    assert reporter.dropped == 1


def test_direct() -> None:
    """A single process logs one line when trouble starts and one at once when it ends."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    direct = Direct(logs.get())
    for _ in range(5):
        direct.failing("store", error="no\nroute")
    direct.recovered("store")
    direct.recovered("store")
    first, last = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["event"], first["error"]) == ("warning", "store failing", r"no\nroute")
    assert (last["level"], last["event"], last["failures"]) == ("info", "store recovered", 5)
