"""The event loop: on every kind of poller the same."""

from __future__ import annotations

import os
import select
import selectors
import socket
import threading
import time

import pytest

from hybridgrey.eventloop import READ, WRITE, Loop, Selected

POLLERS = {
    "epoll": getattr(select, "epoll", Selected),
    "selector": Selected,
    "poll": lambda: Selected(selectors.PollSelector()),
    "select": lambda: Selected(selectors.SelectSelector()),
}


@pytest.fixture(params=POLLERS)
def loop(request):
    return Loop(POLLERS[request.param]())


class Watched:
    """One end of a pair; notes what it is told."""

    def __init__(self, loop, ready=None):
        self.sock, self.peer = socket.socketpair()
        self.sock.setblocking(False)
        self.told = []
        self.errors = []
        self.then = ready
        loop.watch(self.sock.fileno(), self)

    def ready(self, events):
        self.told.append(events)
        if self.then is not None:
            self.then(self)

    def failed(self, error):
        self.errors.append(error)


def test_reading_and_writing(loop):
    """Who watches is told of what it watches for as long as it is so, and of nothing when it wants none."""
    one = Watched(loop)
    loop.turn(0)
    assert one.told == []
    one.peer.send(b"x")
    loop.turn(5)
    loop.turn(5)
    assert one.told == [READ, READ]
    loop.change(one.sock.fileno(), 0)
    loop.turn(0)
    assert one.told == [READ, READ]
    loop.change(one.sock.fileno(), WRITE)
    loop.turn(5)
    assert one.told[2:] == [WRITE]
    loop.change(one.sock.fileno(), READ)
    loop.turn(5)
    assert one.told[3:] == [READ]


def test_a_hang_up_is_told(loop):
    """The end of the other side is something to read."""
    one = Watched(loop)
    one.peer.close()
    loop.turn(5)
    assert one.told[0] & READ
    assert one.sock.recv(1) == b""


def test_a_number_is_not_used_again_in_its_turn(loop):
    """Events of a descriptor that was let go of in the same turn never reach who gets its number next."""
    made = []
    opened = []

    def let_go(one):
        for other in made:
            if other is not one:
                loop.release(other.sock.fileno(), other.sock.close)
        made[:] = [one]
        opened.append(Watched(loop))

    made += [Watched(loop, let_go) for _ in range(3)]
    for one in list(made):
        one.peer.send(b"x")
    loop.turn(5)
    assert len(opened) == 1
    assert opened[0].told == []
    assert sum(len(one.told) for one in made) == 1


def test_a_watcher_that_fails_fails_alone(loop):
    """An exception goes to the watcher that has raised it; the others are told what there is."""
    good = Watched(loop)
    bad = Watched(loop, lambda _one: 1 / 0)
    for one in (bad, good):
        one.peer.send(b"x")
    loop.turn(5)
    assert [type(error) for error in bad.errors] == [ZeroDivisionError]
    assert good.told == [READ]


def test_timers_in_their_order(loop):
    """Timers come in the order of their times, those of one moment in the order in which they were set."""
    now, fired = time.monotonic(), []
    for number, after in enumerate([0.03, 0.01, 0.01, 0.02]):
        loop.at(now + after, fired.append, number)
    while len(fired) < 4:
        loop.turn(5)
    assert fired == [1, 2, 3, 0]
    assert time.monotonic() - now >= 0.03


def test_what_fails_beside_a_watcher():
    """A timer or a call that fails is told, and the others come; without somebody to tell, all ends."""
    told, done = [], []
    loop = Loop(broken=told.append)
    for call in (lambda: 1 / 0, lambda: done.append("soon")):
        loop.soon(call)
        loop.at(0.0, lambda _number, call=call: call())
    loop.turn(0)
    assert [type(error) for error in told] == [ZeroDivisionError] * 2
    assert done == ["soon", "soon"]
    alone = Loop()
    alone.soon(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        alone.turn(0)


def test_soon_is_this_turn(loop):
    """What is to be done soon is done before the turn ends, also what that leads to; then the turn's end."""
    done = []
    loop.each_turn(lambda: done.append("end"))
    loop.soon(lambda: (done.append(1), loop.soon(lambda: done.append(2))))
    loop.turn(5)
    assert done == [1, 2, "end"]


def test_other_threads_hand_over(loop):
    """A sleeping loop wakes for what another thread posts, and does all of it."""
    done = []

    def post():
        for number in range(1000):
            loop.post(lambda number=number: done.append((number, threading.get_ident())))

    thread = threading.Thread(target=post)
    thread.start()
    while len(done) < 1000:
        loop.turn(5)
    thread.join()
    assert done == [(number, threading.get_ident()) for number in range(1000)]


def test_posting_blocks_nobody(loop):
    """A loop that does not turn for long does not stop those who post to it."""
    done = []
    for _ in range(100_000):
        loop.post(lambda: done.append(1))
    while len(done) < 100_000:
        loop.turn(5)
    assert os.get_blocking(loop.wake_fd) is False
