"""The master's event loop, restarts and notifications: small parts that need no daemon."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from hybridgrey.process.backoff import Backoff
from hybridgrey.process.loop import Loop
from hybridgrey.process.systemd import Notifier


@pytest.fixture
def loop():
    """A loop whose signal handlers are undone afterwards."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    made = Loop()
    yield made
    made.leave_in_child()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_and_timers_are_served_in_order(loop):
    """Signals sent before the loop runs are not lost, and timers fire by their time."""
    seen = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("usr1"))
    loop.on_signal(signal.SIGUSR2, lambda: seen.append("usr2"))
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.later(0.03, lambda: (seen.append("late"), loop.stop()))
    loop.later(0.02, lambda: seen.append("early"))
    loop.run()
    assert seen == ["usr1", "usr2", "early", "late"]


def test_forgotten_descriptor_is_not_served(loop):
    """A descriptor that a handler of the same round has closed is left alone."""
    pipes = [os.pipe() for _ in range(2)]
    seen = []

    def first_come(mine, other):
        seen.append(mine)
        loop.forget(other)
        os.close(other)

    (one, _), (two, _) = pipes
    loop.on_readable(one, lambda: first_come(one, two))
    loop.on_readable(two, lambda: first_come(two, one))
    for _, write_end in pipes:
        os.write(write_end, b"x")
    loop.later(0.0, loop.stop)
    loop.run()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("lives", "waits"),
    [
        ([100.0], [0.0]),
        ([0.1, 0.1, 0.1, 0.1], [0.0, 1.0, 2.0, 4.0]),
        ([0.0] * 9, [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]),
        ([1.0, 1.0, 60.0, 1.0], [0.0, 1.0, 0.0, 1.0]),
    ],
)
def test_backoff(lives, waits):
    """At once, then ever later up to 30 s; a minute of life makes good for what was before."""
    backoff = Backoff()
    assert [backoff.died(lived) for lived in lives] == waits


def test_a_long_crash_loop_does_not_overflow():
    """After days of restarts the wait is still 30 s."""
    backoff = Backoff()
    assert [backoff.died(0.0) for _ in range(5000)][-1] == 30.0


def test_notifier_without_a_manager_is_silent():
    """Without NOTIFY_SOCKET nothing is sent and nothing fails."""
    notifier = Notifier({})
    notifier.ready("x")
    assert notifier.watchdog_interval == 0.0


@pytest.mark.parametrize(
    ("pid", "interval"), [("", 15.0), (str(os.getpid()), 15.0), ("1", 0.0)], ids=["any", "this", "another"]
)
def test_watchdog_is_for_the_process_it_names(pid, interval):
    """WATCHDOG_PID of another process is not ours to answer; half of the time is left as a margin."""
    environ = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": pid}
    assert Notifier(environ).watchdog_interval == interval
    assert not environ


def test_manager_that_went_away_does_not_matter(tmp_path):
    """A notification to a socket that nobody reads any more is lost in silence."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
    Notifier({"NOTIFY_SOCKET": path}).ready("x")


def test_long_start_asks_for_patience(tmp_path):
    """While data are loaded systemd is told to wait, and the watchdog is fed."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        Notifier({"NOTIFY_SOCKET": path}).busy("loading")
        assert set(manager.recv(1000).decode().split("\n")) == {
            "WATCHDOG=1",
            "EXTEND_TIMEOUT_USEC=30000000",
            "STATUS=loading",
        }
