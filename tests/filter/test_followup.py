"""What follows a verdict: told once, in order, at once or a moment later, whatever else goes wrong."""

from __future__ import annotations

import io
import json
import threading
import time

import pytest

from hybridgrey import logs
from hybridgrey.clientaddress import ClientReader
from hybridgrey.envelope import read
from hybridgrey.filter import followup
from hybridgrey.filter.reply import Reply
from hybridgrey.filter.screen import Client, Decision
from hybridgrey.greylist.triplets import State, Touch
from hybridgrey.policy.conditions import UNKNOWN, Spf
from hybridgrey.policy.judge import Action, Answer, Facts, Rule, Verdict
from parts.base import wait_until

RULE = Rule("the rest", Action.GREYLIST)
LATER = Reply("450", "4.2.0", "Later")
CODE = bytes([127, 0, 0, 2])


class Counts:
    """Notes its calls; `fails` makes one of them fail."""

    records = True

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events: list[dict[str, object]] = []
        self.fails = ""

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fails:
            raise RuntimeError(call)

    def decided(self, client, decision, outcome, reason):
        self._note(f"decided {client.address}")

    def recorded(self, event, written, at):
        self.events.append({**event, "at": at})

    def opened(self):
        self._note("opened")

    def left(self, client):
        self._note(f"left {client.address}")

    def closed(self):
        self._note("closed")


class Reports:
    def __init__(self) -> None:
        self.failed: list[str] = []

    def failing(self, kind, **detail):
        self.failed.append(f"{kind} {detail['error']}")

    def recovered(self, kind):
        raise AssertionError


class Zone:
    """A list as `events` sees it."""

    label = "bl"


@pytest.fixture
def stream():
    made = io.StringIO()
    logs.configure("info", "json", made)
    return made


@pytest.fixture
def counts():
    return Counts()


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
def told(stream, counts, reports):
    return followup.Events(counts, {"bl.test": Zone()}, reports, logged=True, enforced=True)


def client(address="192.0.2.1"):
    return Client(ClientReader().read(address), None, Facts(0, 0))


def judged(at, of=None, **more):
    decision = Decision(
        Verdict(RULE), Reply("450", "4.2.0", "Later"), Touch(State.NEW, 300, 0), waited=0.0126
    )
    fields = {
        "answers": {"bl.test": Answer((CODE,)), "wl.test": Answer()},
        "queue_id": "4bX1",
        "helo": "mail.example.org",
        "sender": read("<a@example.org>"),
        "recipient": read("<b@example.net>"),
        "decision": decision,
    }
    return followup.Judged(at=at, client=of or client(), **(fields | more))


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_event(told, stream, counts):
    told.judged(judged(1_000_000_000.25), followup.CROWD)
    [line] = lines(stream)
    assert line == {
        "ts": "2001-09-09T01:46:40.250Z",
        "level": "info",
        "event": "verdict",
        "queue_id": "4bX1",
        "client": "192.0.2.1",
        "host": None,
        "helo": "mail.example.org",
        "sender": "a@example.org",
        "recipient": "b@example.net",
        "rule": "the rest",
        "action": "greylist",
        "outcome": "greylisted",
        "reason": "new",
        "lists": {"bl": ["127.0.0.2"]},
        "state": "new",
        "age": 0,
        "wait_ms": 12.6,
        "enforced": True,
        "reply": "450 4.2.0 Later",
    }
    [event] = counts.events
    assert event["at"] == 1_000_000_000.25
    assert event["sender"] == "a@example.org"


def test_one_that_comes_alone_is_told_at_once(told, stream):
    told.judged(judged(100.0), followup.CROWD)
    assert len(lines(stream)) == 1
    told.judged(judged(100.0 + followup.PAUSE), followup.CROWD)
    assert len(lines(stream)) == 2


def test_of_few_sessions_each_is_told_at_once(told, stream, counts):
    for number in range(5):
        told.opened(followup.CROWD - 1)
        assert counts.calls[-1] == "opened"
        told.judged(judged(100.0), followup.CROWD - 1)
        assert len(lines(stream)) == number + 1
        told.closed(followup.CROWD - 1)
        assert counts.calls[-1] == "closed"


def test_a_clock_that_was_set_back(told, stream):
    told.judged(judged(100.0), followup.CROWD)
    told.judged(judged(50.0), followup.CROWD)
    assert len(lines(stream)) == 2


def test_what_follows_quickly_is_told_soon(told, stream, counts):
    told.start()
    one = client()
    told.opened(followup.CROWD)
    told.judged(judged(100.0, one), followup.CROWD)
    told.judged(judged(100.001, one), followup.CROWD)
    told.left(one)
    told.closed(followup.CROWD)
    wait_until(lambda: "closed" in counts.calls, "all is told")
    assert counts.calls == ["opened", "decided 192.0.2.1", "decided 192.0.2.1", "left 192.0.2.1", "closed"]
    assert len(lines(stream)) == 2


def test_the_end_tells_the_rest(told, stream, counts):
    told.judged(judged(100.0), followup.CROWD)
    told.judged(judged(100.001), followup.CROWD)
    told.closed(followup.CROWD)
    told.settle()
    assert len(lines(stream)) == 2
    assert counts.calls[-1] == "closed"


@pytest.mark.parametrize("fails", ["opened", "decided 192.0.2.1", "left 192.0.2.1", "closed"])
def test_an_error_costs_nothing_else(told, stream, counts, reports, fails):
    counts.fails = fails
    told.opened(followup.CROWD)
    told.judged(judged(100.0), followup.CROWD)
    told.judged(judged(100.001, client("192.0.2.2")), followup.CROWD)
    told.left(client())
    told.closed(followup.CROWD)
    told.settle()
    assert counts.calls == ["opened", "decided 192.0.2.1", "decided 192.0.2.2", "left 192.0.2.1", "closed"]
    assert reports.failed == [f"events RuntimeError({fails!r})"]


def test_many_threads(told, stream, counts):
    """Each verdict is told once, in the order of its own thread, whoever tells it."""
    told.start()

    def load(number: int) -> None:
        for n in range(200):
            told.judged(judged(time.time(), client(f"{number}.{n}")), followup.CROWD)
            told.closed(followup.CROWD)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.settle()
    clients = [line["client"] for line in lines(stream)]
    assert len(clients) == len(set(clients)) == 1600
    for number in range(8):
        assert [c for c in clients if c.startswith(f"{number}.")] == [f"{number}.{n}" for n in range(200)]
    assert counts.calls.count("closed") == 1600


def test_a_verdict_is_not_told_in_vain(stream, reports):
    counts = Counts()
    counts.records = False
    told = followup.Events(counts, {}, reports, logged=False, enforced=True)
    assert not told.told
    told.judged(judged(100.0), followup.CROWD)
    assert counts.calls == ["decided 192.0.2.1"]
    assert lines(stream) == []


def test_lines_stay_whole_in_a_pipe(monkeypatch, stream):
    """Several lines are written at once, but never more than a pipe keeps in one piece."""
    written: list[str] = []
    monkeypatch.setattr(stream, "write", written.append)
    made = logs.Lines()
    for number in range(100):
        made.add("info", "verdict", {"number": number, "text": "x" * 300}, 0.0)
    made.flush()
    assert max(map(len, written)) <= logs.LINE_MAX
    assert len(written) < 20
    assert all(piece.endswith("\n") for piece in written)
    assert [json.loads(line)["number"] for line in "".join(written).splitlines()] == list(range(100))
    made.flush()
    assert len("".join(written).splitlines()) == 100


@pytest.mark.parametrize(
    ("decision", "wanted"),
    [
        ({}, {}),
        ({"spf": UNKNOWN, "correspondent": UNKNOWN}, {}),
        ({"spf": Spf("fail")}, {"spf": "fail", "proved": False}),
        (
            {"spf": Spf("pass", "a.example"), "correspondent": False},
            {"spf": "pass", "proved": True, "correspondent": False},
        ),
    ],
)
def test_what_was_asked_for(told, stream, decision, wanted):
    """What nobody has asked, or nobody could learn, is not there."""
    told.judged(judged(100.0, decision=Decision(Verdict(RULE), **decision)), followup.CROWD)
    [line] = lines(stream)
    assert {key: line[key] for key in ("spf", "proved", "correspondent") if key in line} == wanted


def test_the_pools_of_a_client(told, stream):
    """By their domains, in order; a client that is in none has no such field."""
    of = Client(ClientReader().read("192.0.2.1"), None, Facts(0, 0), frozenset({"b.example", "a.example"}))
    told.judged(judged(100.0, of), followup.CROWD)
    told.judged(judged(101.0), followup.CROWD)
    assert [line.get("pools") for line in lines(stream)] == [["a.example", "b.example"], None]
