"""Learning behind the mail: what is queued, what is told, what ends it; the store waits for the test."""

from __future__ import annotations

import threading
from typing import NamedTuple

import pytest

from hybridgrey import envelope
from hybridgrey.filter import learning
from hybridgrey.filter.learning import Learner
from hybridgrey.hand.correspondents import Correspondents
from hybridgrey.store.connection import StoreError
from parts.base import wait_until

ANN, BOB = envelope.read("ann@example.org"), envelope.read("bob@example.net")


class Terms(NamedTuple):
    lifetime: int = 600
    max_recipients: int = 3
    max_daily: int = 5


class Mail:
    """What of a transaction counts here."""

    def __init__(self, sender=ANN):
        self.sender = sender
        self.recipients = 0
        self.written = []


class Held:
    """A store in which everybody is known, once it may answer; or that fails with `error`."""

    def __init__(self):
        self.open = threading.Event()
        self.calls = 0
        self.threads = set()
        self.error = None

    def run(self, _script, _keys, _args, _seconds=None):
        self.open.wait(20)
        self.calls += 1
        self.threads.add(threading.current_thread())
        if self.error is not None:
            raise self.error
        return [1]


class Told:
    def __init__(self):
        self.lines = []

    def failing(self, kind, **detail):
        self.lines.append((kind, detail["error"]))

    def recovered(self, kind):
        self.lines.append((kind, ""))


@pytest.fixture
def store():
    made = Held()
    yield made
    made.open.set()


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def learner(store, told):
    made = Learner(Correspondents(Terms()), store, told)
    yield made
    store.open.set()
    made.close()


def message(learner, *recipients, sender=ANN):
    mail = Mail(sender)
    for recipient in recipients:
        mail.recipients += 1
        learner.note(mail, recipient, "smtp")
    learner.learn(mail)
    return mail


def test_no_mail_waits_for_the_store(learner, store):
    """The step is over while the store holds its answer; one thread does it, in order."""
    threads = [threading.Thread(target=message, args=(learner, BOB)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.calls == 0
    store.open.set()
    wait_until(lambda: store.calls == 20, "all are learnt")
    assert len(store.threads) == 1


def test_nothing_to_learn_costs_no_thread(learner):
    """A mailing, of which nothing is kept; a bounce; a message to nobody."""
    assert message(learner, *[BOB] * 4).written == []
    assert message(learner, BOB, sender=envelope.NULL).written == []
    message(learner)
    assert learner._thread is None
    assert message(learner, *[BOB] * 3).written == [BOB] * 3
    assert learner._thread is not None


def test_a_full_queue_is_told(learner, store, told):
    """And holds nothing up."""
    for _ in range(learning.MOST_WAITING + 2):
        message(learner, BOB)
    assert {error for _, error in told.lines} == {"more messages than the store takes"}
    store.open.set()
    wait_until(lambda: store.calls >= learning.MOST_WAITING, "the others are learnt")


@pytest.mark.parametrize("error", [StoreError("away"), ValueError("a bug")])
def test_failures_end_nothing(learner, store, told, error):
    """They are told, and the next message is learnt."""
    store.error = error
    store.open.set()
    message(learner, BOB)
    wait_until(lambda: told.lines, "it is told")
    store.error = None
    message(learner, BOB)
    wait_until(lambda: told.lines[-1] == ("correspondents", ""), "it is over")
    assert str(error) in told.lines[0][1]


def test_the_end_waits_for_what_is_queued(learner, store):
    """What has been handed over is learnt before the store is let go."""
    for _ in range(50):
        message(learner, BOB)
    store.open.set()
    learner.close()
    assert store.calls == 50
