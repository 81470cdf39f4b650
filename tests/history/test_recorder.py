"""From the workers to the history: exactly what happened, once, whoever is killed on the way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from hybridgrey.history import ledger as ledger_module
from hybridgrey.history import recorder
from hybridgrey.history.layout import Step
from hybridgrey.history.ledger import Ledger
from hybridgrey.history.reader import Reader
from hybridgrey.history.recorder import Chronicler
from hybridgrey.history.view import Chronicle, Terms
from hybridgrey.metrics.meter import Meter
from hybridgrey.metrics.ring import packed
from hybridgrey.metrics.shared import Shared
from hybridgrey.outcome import Outcome
from hybridgrey.store.connection import Store, StoreError
from parts.base import wait_until
from parts.redisserver import Redis

RULES = [("blocklists", "reject"), ("the rest", "greylist")]
ZONES = [("bl.test", "bl.test"), ("wl.test", "wl.test")]
TERMS = Terms("mx1", "enforce", {"rules": "1", "greylist": "1"}, verdicts=7 * 86400)
EVENT = {"client": "192.0.2.7", "sender": "a@example.org", "outcome": "rejected", "mx": "mx1"}
FAR = 10 * 366 * 86400
EVER = 1e11


class Reports:
    """Takes reports and remembers what is in trouble."""

    def __init__(self) -> None:
        self.failures: dict[str, dict[str, object]] = {}

    def failing(self, kind: str, **detail: object) -> None:
        self.failures[kind] = detail

    def recovered(self, kind: str) -> None:
        self.failures.pop(kind, None)


@pytest.fixture
def server() -> Iterator[Redis]:
    with Redis() as part:
        yield part


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """In-process chroniclers look and write several times a second."""
    monkeypatch.setattr(recorder, "TICK", 0.1)
    monkeypatch.setattr(recorder, "FLUSH", 0.2)
    monkeypatch.setattr(recorder, "SHIP", 0.2)


class Host:
    """A keeper's chronicler in this process, and a worker's end of the counters."""

    def __init__(self, server: Redis, terms: Terms = TERMS, shared: Shared | None = None) -> None:
        self.shared = shared or Shared.create(RULES, ZONES)
        self.meter: Meter = self.shared.meter(0)
        self.store = Store.open(server.unix_url, 0.5)
        self.reports = Reports()
        self.chronicle = Chronicle(Reader(Store.open(server.unix_url, 5.0)), terms)
        self._stop = threading.Event()
        task = Chronicler(self.chronicle, self.shared, self.store, self.reports)
        self._thread = threading.Thread(target=task.run, args=(self._stop,))
        self._thread.start()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self.store.close()

    def reject(self, number: int = 1) -> None:
        """Count rejected recipients and leave their records."""
        ring = self.shared.rings.writer(0)
        assert ring is not None
        for _ in range(number):
            self.meter.decided("blocklists", "reject", Outcome.REJECTED, 0.0)
            ring.write(packed(EVENT | {"t": time.time(), "mx": self.chronicle.host}))


def rejected(reader: Reader | Chronicle, step: Step = Step.DAY) -> int:
    """All recipients that the history has as rejected."""
    now = time.time()
    return sum(reader.counts(now - 3600, now + 60, step).get("outcome:reject:enforced", {}).values())


def kinds(reader: Reader | Chronicle) -> list[str]:
    """The kinds of all marks."""
    return [mark.kind for mark in reader.marks(0, time.time() + FAR)]


@pytest.fixture
def reader(server: Redis) -> Iterator[Reader]:
    with contextlib.closing(Reader(Store.open(server.unix_url, 5.0))) as made:
        yield made


def test_counts_reach_the_store_and_the_page_at_once(server: Redis, reader: Reader) -> None:
    """The page sees what is counted before the store has it, and never twice."""
    with Host(server) as host:
        host.reject(3)
        while (seen := rejected(host.chronicle)) < 3:
            assert seen in (0, 3)
        wait_until(lambda: rejected(reader) == 3, "the store has it")
        assert rejected(host.chronicle) == 3
        host.reject(2)
        wait_until(lambda: rejected(reader) == 5, "the store has that too")
    assert rejected(reader, Step.MINUTE) == rejected(reader, Step.HOUR) == 5
    assert len(reader.latest()) == 5
    assert reader.tops(time.time(), time.time())["network/reject"] == [("192.0.2.0/24", 5)]
    assert kinds(reader) == ["start"]


def test_the_end_writes_what_is_left(server: Redis, reader: Reader) -> None:
    """What is counted just before the end is in the store after it."""
    with Host(server) as host:
        wait_until(lambda: kinds(reader) == ["start"], "the start")
        host.reject(4)
    assert rejected(reader) == 4
    assert len(reader.latest()) == 4


def test_nothing_to_say_is_no_write(server: Redis, reader: Reader) -> None:
    """An idle daemon leaves the store alone."""
    with Host(server), server.client() as client:
        wait_until(lambda: kinds(reader) == ["start"], "the start")
        time.sleep(0.5)
        before = client.info("commandstats")
        time.sleep(1.5)
        after = client.info("commandstats")
        written = {
            name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"]
            for name in after
            if name not in ("cmdstat_info", "cmdstat_client|setinfo")
        }
    assert not any(written.values()), written


def test_a_store_that_was_killed(server: Redis, reader: Reader) -> None:
    """Redis killed and back: what was counted meanwhile appears, none twice, and the outage is marked."""
    with Host(server) as host:
        host.reject(2)
        wait_until(lambda: rejected(reader) == 2, "the store has it")
        server.kill()
        host.reject(3)
        wait_until(lambda: host.chronicle.ledger.state.down, "the outage is noticed")
        host.reject(4)
        with pytest.raises(StoreError):
            rejected(host.chronicle)
        wait_until(lambda: len(host.chronicle.latest()) == 9, "its own are shown still")
        server.start()
        wait_until(lambda: rejected(reader) == 9, "all is written")
        wait_until(lambda: kinds(reader) == ["start", "store_down", "store_back"], "the marks")
    assert rejected(reader) == 9
    assert len(reader.latest()) == 9


def test_counts_of_an_outage_keep_their_minutes(server: Redis, reader: Reader) -> None:
    """What was counted while the store was away is found under the minutes in which it was."""
    minute = int(time.time()) // 60 * 60
    book = Ledger("w")
    for ago, total in ((5, 1.0), (4, 3.0), (3, 6.0)):
        book.count([(7, ("s7",))], {7: total}.__getitem__, minute - ago * 60 + 30)
    shared = Shared.create(RULES, ZONES)
    assert shared.journal.claim()
    shared.journal.load()
    book.state.policy, book.state.mode = dict(TERMS.policy), TERMS.mode
    shared.journal.save(book.dump())
    with Host(server, shared=shared):
        pass
    found = reader.counts(minute - 600, minute + 60, Step.MINUTE)["s7"]
    assert found == {minute - 300: 1, minute - 240: 2, minute - 180: 3}


def test_a_frozen_store_is_no_end(server: Redis, reader: Reader) -> None:
    """A server that takes calls and never answers: its batch is not counted twice when it goes on."""
    with Host(server) as host:
        host.reject(2)
        wait_until(lambda: rejected(reader) == 2, "the store has it")
        server.freeze()
        host.reject(3)
        wait_until(lambda: host.chronicle.ledger.state.failing_since, "the outage is noticed", 30)
        server.thaw()
        wait_until(lambda: rejected(reader) == 5, "all is written")
    assert rejected(reader) == 5


def test_a_refusal_of_the_history_alone_is_told(server: Redis, reader: Reader) -> None:
    """Without the right to these keys the history waits and says why; the store counts as well."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~hg1:{*", "~hg1:probe")
        with Host(server) as host:
            host.reject(2)
            wait_until(lambda: "history" in host.reports.failures, "the trouble is told")
            assert "permi" in str(host.reports.failures["history"]["error"]).lower()
            assert not host.chronicle.ledger.state.failing_since
            client.execute_command("ACL", "SETUSER", "default", "allkeys")
            wait_until(lambda: rejected(reader) == 2, "all is written")
            wait_until(lambda: not host.reports.failures, "the trouble is over")
    assert kinds(reader) == ["start"]


def test_a_successor_goes_on(server: Redis, reader: Reader) -> None:
    """Each reload's keeper writes what the one before has not; a change of policy or mode is marked."""
    with Host(server) as host:
        host.reject(2)
    shared = host.shared.renewed(RULES, ZONES)
    with Host(server, TERMS, shared) as second:
        second.reject(3)
        wait_until(lambda: rejected(reader) == 5, "both are added up")
    assert kinds(reader) == ["start"], "a reload without a change is none"
    changed = replace(TERMS, policy={"rules": "2", "greylist": "1"}, mode="observe")
    with Host(server, changed, shared):
        wait_until(lambda: len(kinds(reader)) == 3, "the marks")
    marks = reader.marks(0, time.time() + 1)
    assert [(mark.kind, mark.text) for mark in marks[1:]] == [
        ("reload", "changed: rules"),
        ("mode", "observe"),
    ]
    assert rejected(reader) == 5


def test_another_mode_after_a_restart_is_marked(server: Redis, reader: Reader) -> None:
    """A daemon that starts in another mode than it had before says so; other hosts' modes do not matter."""
    with Host(server):
        pass
    with Host(server, replace(TERMS, host="mx2", mode="observe")):
        pass
    assert kinds(reader) == ["start", "start"]
    with Host(server, replace(TERMS, mode="observe")):
        pass
    assert [(mark.kind, mark.host) for mark in reader.marks(0, time.time() + 1)][2:] == [
        ("start", "mx1"),
        ("mode", "mx1"),
    ]


def test_a_suspended_list_is_marked(server: Redis, reader: Reader) -> None:
    """A list that loses its vote, and gets it back, is a mark each; over a reload it is none again."""
    with Host(server) as host:
        host.shared.flags.set("bl.test", True)
        wait_until(lambda: kinds(reader) == ["start", "suspended"], "the mark")
        host.shared.flags.set("bl.test", False)
        wait_until(lambda: kinds(reader) == ["start", "suspended", "restored"], "the mark")
    assert {mark.text for mark in reader.marks(0, time.time() + 1) if mark.kind != "start"} == {"bl.test"}


def test_with_a_key_secret_no_address_reaches_the_store(server: Redis, reader: Reader) -> None:
    """Counts and marks are written, clients and senders are not; this host's page knows them still."""
    private = replace(TERMS, private=True, verdicts=0)
    with Host(server, private) as host:
        host.reject(3)
        wait_until(lambda: rejected(reader) == 3, "the store has the counts")
        wait_until(lambda: len(host.chronicle.latest()) == 3, "the page has the verdicts")
        now = time.time()
        assert host.chronicle.tops(now, now)["domain/reject"] == [("example.org", 3)]
    shared = host.shared
    with Host(server, private, shared) as second:
        wait_until(lambda: len(second.chronicle.latest()) == 3, "they are known after a reload")
    # A reload without the secret: what was judged before it stays out of the store for good.
    with Host(server, TERMS, shared) as third:
        wait_until(lambda: third.chronicle.ledger.writer, "the journal is read")
        third.reject(1)
        wait_until(lambda: len(reader.latest()) == 1, "the new one is there")
    assert rejected(reader) == 4
    assert reader.tops(now, now)["network/reject"] == [("192.0.2.0/24", 1)]
    assert len(reader.latest()) == 1


def test_verdicts_wait_for_the_store(server: Redis, reader: Reader) -> None:
    """While it is away they wait, over a reload too; then all are there, each once, and nobody was told."""
    with Host(server) as host:
        host.reject(3)
        wait_until(lambda: len(reader.latest()) == 3, "the store has them")
        server.kill()
        host.reject(700)
        wait_until(lambda: host.chronicle.ledger.state.failing_since, "the outage is seen")
        wait_until(lambda: len(host.chronicle.ledger.latest) == 703, "the rings are read")
    with Host(server, TERMS, host.shared) as second:
        wait_until(lambda: second.chronicle.ledger.chunks, "the chunk waits")
        second.reject(4)
        server.start()
        wait_until(lambda: len(list(reader.verdicts(0, EVER))) == 707, "the store has all", 60.0)
        wait_until(lambda: second.shared.board.verdicts[1] == 707, "what is kept is known")
        assert "verdicts for the store" not in second.reports.failures
    assert len(list(reader.verdicts(0, EVER))) == 707
    (kept,) = reader.kept().values()
    assert (kept.size.number, second.shared.board.verdicts) == (707, tuple(kept.size))


def test_an_outage_that_is_too_long(server: Redis, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are dropped, which is told once and counted; the newest get there."""
    monkeypatch.setattr(ledger_module, "WAITING_MAX", 4000)
    with Host(server) as host:
        wait_until(lambda: kinds(reader) == ["start"], "the start")
        server.kill()
        for _ in range(5):
            host.reject(400)
            time.sleep(0.1)  # so many a ring has room for
        wait_until(lambda: host.shared.board.dropped, "some are dropped", 60.0)
        told = host.reports.failures["verdicts for the store"]
        assert told["error"] == "the store was away too long"
        server.start()
        board = host.shared.board
        wait_until(
            lambda: len(list(reader.verdicts(0, EVER))) == 2000 - board.dropped, "the rest is there", 60.0
        )
        wait_until(lambda: not host.reports.failures, "all is well")


def test_no_more_verdicts(server: Redis, reader: Reader) -> None:
    """With keep_verdicts = "0", or a new key_secret, those in the store go; other hosts' stay."""
    with Host(server, replace(TERMS, host="mx2")) as other, Host(server) as host:
        other.reject(2)
        host.reject(3)
        wait_until(lambda: len(reader.latest()) == 5, "the store has them")
    with Host(server, replace(TERMS, verdicts=0), host.shared) as second:
        wait_until(lambda: len(reader.latest()) == 2, "they are gone")
        second.reject(1)
        wait_until(lambda: rejected(reader) == 6, "counts are written")
    assert {str(one["mx"]) for one in reader.latest()} == {"mx2"}


def test_without_a_history_nothing_is_written(server: Redis) -> None:
    """With history = false the store sees nothing of it, and the page has what there was since the start."""
    with Host(server, replace(TERMS, kept=False, verdicts=0)) as host:
        host.reject(3)
        wait_until(lambda: rejected(host.chronicle) == 3, "the page has it")
        assert host.chronicle.hosts() == ["mx1"]
        assert kinds(host.chronicle) == ["start"]
        wait_until(lambda: len(host.chronicle.latest()) == 3, "the verdicts")
    assert server.keys() == []


def test_two_hosts_and_their_latest(server: Redis) -> None:
    """Each host's page has the verdicts of both, each once, the newest first."""
    with Host(server) as one, Host(server, replace(TERMS, host="mx2")) as two:
        one.reject(3)
        two.reject(2)
        for host in (one, two):
            wait_until(lambda host=host: len(host.chronicle.latest()) == 5, "all verdicts")
            wait_until(lambda host=host: rejected(host.chronicle) == 5, "all counts")
            found = host.chronicle.latest()
            times = [float(str(event["t"])) for event in found]
            assert times == sorted(times, reverse=True)
            assert Counter(event["mx"] for event in found) == {"mx1": 3, "mx2": 2}
        assert {event["mx"] for event in one.chronicle.latest(["mx2"])} == {"mx2"}
        assert host.chronicle.hosts() == ["mx1", "mx2"]
