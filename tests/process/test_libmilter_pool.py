"""libmilter's pool of threads does not sleep on its work: a session that waits keeps no other waiting."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
import time

from hybridgrey.process.libmilter_pool import Pool
from parts.baredaemon import children, title
from parts.base import wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import NEGOTIATE, framed
from parts.redisserver import Redis

ABORT = b"\0\0\0\1A"
MANY = 20
SHARE = 2
DAEMON = {
    "workers": 1,
    "rule": [
        {"name": "bl", "dns": ["bl.test"], "action": "reject"},
        {"name": "the rest", "action": "accept"},
    ],
}


def connect(number):
    return framed(b"Cmail.example\x004" + struct.pack("!H", 25) + b"198.51.100.%d\0" % number)


RECIPIENT = framed(b"Hmail.example\0") + framed(b"M<a@example.org>\0") + framed(b"R<b@example.net>\0")


def answered(peers):
    """Those that have something to read now, within a moment."""
    return select.select(peers, [], [], 0.05)[0]


def negotiated(stack, daemon, count):
    """Connections on which libmilter has answered the negotiation."""
    peers = [stack.enter_context(socket.create_connection(daemon.address, timeout=5)) for _ in range(count)]
    for peer in peers:
        peer.sendall(NEGOTIATE)
        assert peer.recv(4096)
    return peers


@contextlib.contextmanager
def stopped(daemon):
    """What is sent meanwhile is there all at once for the pool, which has then more than its idle thread."""
    (worker,) = [pid for pid in children(daemon.pid) if "hg-worker" in title(pid)]
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_sessions_do_not_wait_with_one_that_waits():
    """Clients that come while others wait for a silent list are all attended to before the first of those."""
    with FakeDns() as dns, Redis() as redis, contextlib.ExitStack() as stack:
        dns.zone("bl.test", silent=True)
        settings = {**DAEMON, "store": {"url": redis.unix_url}}
        settings["dns"] = {"nameservers": [dns.address], "timeout": "10s"}
        daemon = stack.enter_context(Daemon(settings))
        for turn in range(3):
            first = turn * 2 * MANY
            waiting = negotiated(stack, daemon, MANY)
            for number, peer in enumerate(waiting):
                peer.sendall(connect(first + number))
                assert peer.recv(4096)
            new = negotiated(stack, daemon, MANY)
            with stopped(daemon):
                for number, (one, other) in enumerate(zip(waiting, new, strict=True)):
                    one.sendall(RECIPIENT)
                    other.sendall(connect(first + MANY + number))
            left = set(new)
            wait_until(
                lambda left=left: left.difference_update(answered(list(left))) or not left,
                f"the last {MANY} are answered",
                timeout=30,
            )
            assert not answered(waiting)


def test_half_packets_hold_nobody_for_long():
    """What the pool cannot be seen to wait for, the rest of a packet, does not hold up others for ever."""
    with Redis() as redis, contextlib.ExitStack() as stack:
        settings = {**DAEMON, "store": {"url": redis.unix_url}, "rule": DAEMON["rule"][1:]}
        daemon = stack.enter_context(Daemon(settings))
        peers = negotiated(stack, daemon, MANY)
        with stopped(daemon):
            for number, peer in enumerate(peers):
                peer.sendall(connect(number)[: 9 if number % SHARE == 0 else None])
        left = {peer for number, peer in enumerate(peers) if number % SHARE}
        wait_until(
            lambda: left.difference_update(answered(list(left))) or not left,
            "all whole ones are answered",
            timeout=60,
        )


class Listener:
    """Stands for libmilter: takes the pool's connection and counts what comes on it."""

    def __init__(self, folder):
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(folder / "socket"))
        self.listening.listen(1)
        self.pool = Pool()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self.listening.getsockname())
        self.pool.attach(connection)
        self.peer, _ = self.listening.accept()
        self.peer.setblocking(False)

    def stirs(self):
        """How often the pool was stirred since the last call."""
        with contextlib.suppress(BlockingIOError):
            data = self.peer.recv(65536)
            assert data == ABORT * (len(data) // len(ABORT))
            return len(data) // len(ABORT)
        return 0


def silent_poll():
    """A poll whose descriptor says nothing until its other end is written to; that end."""
    reading, writing = os.pipe()
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    return poll, writing


def test_wait_stirs_until_there_is_something(tmp_path):
    """Nobody is stirred for what is there, and less and less often while nobody else waits."""
    made = Listener(tmp_path)
    poll, writing = silent_poll()
    made.pool.wait(poll, 300)
    # After 5, 15, 35, 75, … ms
    assert 1 < made.stirs() <= 10
    os.write(writing, b"x")
    made.pool.wait(poll, 10_000)
    assert made.stirs() == 0


def test_one_stirs_for_all(tmp_path):
    """Of several that wait one stirs, and the next when that one has done waiting."""
    made = Listener(tmp_path)
    (poll, writing), (other, _) = silent_poll(), silent_poll()
    first = threading.Thread(target=made.pool.wait, args=(poll, 30_000))
    first.start()
    wait_until(lambda: made.stirs() > 0, "the first stirs")
    os.write(writing, b"x")
    first.join()
    made.stirs()
    made.pool.wait(other, 100)
    assert made.stirs() > 0


def test_without_a_pool(tmp_path):
    """Not attached, or libmilter gone: a wait is a wait, and a stir is nothing."""
    poll, writing = silent_poll()
    lonely = Pool()
    lonely.stir()
    begun = time.monotonic()
    lonely.wait(poll, 50)
    assert time.monotonic() - begun >= 0.05
    made = Listener(tmp_path)
    made.peer.close()
    made.listening.close()
    made.pool.wait(poll, 50)
    made.pool.stir()
    os.write(writing, b"x")
    made.pool.wait(poll, 10_000)


def test_stirring_blocks_nobody(tmp_path):
    """A libmilter that reads nothing for hours does not stop the one who stirs."""
    made = Listener(tmp_path)
    for _ in range(100_000):
        made.pool.stir()
