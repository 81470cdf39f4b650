"""Who speaks to the milter socket need not be an MTA: garbage, wrong order, huge frames, silence."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct

import pytest

from parts.baredaemon import children, title
from parts.base import accepts, wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import NEGOTIATE, MilterPeer, framed
from parts.redisserver import Redis

CONNECT = b"Cmail.example\x004" + struct.pack("!H", 25) + b"192.0.2.1\0"
COMMANDS = [CONNECT, b"Hmail.example\0", b"M<a@example.org>\0", b"R<b@example.net>\0", b"A", b"T", b"E", b"N"]
COMMANDS += [b"DCj\0mx\0", b"DR", b"K", b"U\0", b"Lx\0y\0", b"Bbody", b"Q"]


@pytest.fixture(scope="module")
def daemon(engine):
    with FakeDns() as dns, Redis() as redis:
        dns.zone("bl.test", listed={"192.0.2.99": "127.0.0.2"})
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
            "rule": [
                {"name": "bl", "dns": ["bl.test"], "action": "reject"},
                {"name": "the rest", "action": "greylist"},
            ],
        }
        with Daemon(settings) as made:
            yield made


def workers(daemon):
    return {pid for pid in children(daemon.pid) if "hg-worker" in title(pid)}


def send(daemon, data, *, read=True):
    """Say something and hang up, whatever the answer."""
    with socket.create_connection(daemon.address, timeout=5) as peer, contextlib.suppress(OSError):
        peer.sendall(data)
        if read:
            peer.settimeout(0.05)
            peer.recv(4096)


def serves(daemon):
    """Whether an MTA is served as it should be."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("unknown", "192.0.2.99")
        peer.helo()
        peer.mail()
        return peer.rcpt().code == "554"


def garbage(chance):
    """Bytes of chance, with and without a right beginning."""
    noise = chance.randbytes(chance.choice((1, 5, 40, 3000)))
    return chance.choice((b"", NEGOTIATE, NEGOTIATE + framed(CONNECT))) + noise


def wrong_order(chance):
    """Right commands in an order of chance, some of them cut."""
    words = [framed(chance.choice(COMMANDS)) for _ in range(chance.randint(1, 12))]
    data = (NEGOTIATE if chance.random() < 0.8 else b"") + b"".join(words)
    return data[: chance.randint(0, len(data))] if chance.random() < 0.3 else data


def bent(chance):
    """A good session with some bytes changed."""
    good = bytearray(NEGOTIATE + b"".join(framed(c) for c in COMMANDS[:4]) + framed(b"Q"))
    for _ in range(chance.randint(1, 6)):
        good[chance.randrange(len(good))] = chance.randrange(256)
    return bytes(good)


@pytest.mark.parametrize("make", [garbage, wrong_order, bent])
def test_nonsense_harms_nobody(daemon, make):
    """Whatever is said, no worker dies, nothing unexpected is logged, and the next MTA is served."""
    chance = random.Random(make.__name__)
    before = workers(daemon)
    for _ in range(300):
        send(daemon, make(chance), read=chance.random() < 0.3)
    assert serves(daemon)
    assert workers(daemon) == before
    assert not [one for one in daemon.events() if one["level"] == "error"]


@pytest.mark.parametrize("size", [0, 1, 65536, 1 << 20, (1 << 31) - 1, (1 << 32) - 1])
def test_frame_lengths(daemon, size):
    """A frame that is empty, huge or a lie ends at most its own connection, and costs no memory."""
    before = workers(daemon)
    send(daemon, NEGOTIATE + struct.pack("!I", size) + b"C" + bytes(min(size, 1 << 20)))
    assert serves(daemon)
    assert workers(daemon) == before
    for pid in before:
        with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
            assert int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") < 300 << 20


def test_long_texts(daemon):
    """Texts as long as the protocol allows are judged, logged in a bounded line, and answered."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("h" * 30000, "192.0.2.2")
        peer.helo("e" * 60000)
        peer.mail("<" + "a" * 60000 + "@example.org>")
        assert peer.rcpt("<" + "b" * 60000 + "@example.net>").code == "450"
    assert max(map(len, daemon.log_text().split("\n"))) < 20000


def test_silent_and_half_closed_peers(daemon):
    """A hundred peers that say nothing, or have closed their sending half, keep nobody else waiting."""
    with contextlib.ExitStack() as stack:
        for number in range(100):
            peer = stack.enter_context(socket.create_connection(daemon.address, timeout=5))
            if number % 4 == 1:
                peer.sendall(NEGOTIATE)
            elif number % 4 == 2:
                peer.sendall(NEGOTIATE[:7])
            elif number % 4 == 3:
                peer.sendall(NEGOTIATE + framed(CONNECT))
                peer.shutdown(socket.SHUT_WR)
        for _ in range(20):
            assert serves(daemon)


class Poor(Daemon):
    """A daemon with few descriptors."""

    def command(self):
        return ["sh", "-c", 'ulimit -n 80 && exec "$@"', "sh", *super().command()]


def test_descriptors_run_out(daemon):
    """With no descriptor left new connections wait; when some are free again all is as before."""
    poor = Poor()
    poor.configure({**daemon.settings, "listen": poor.spec, "workers": 1})
    with poor:
        before = workers(poor)
        with contextlib.ExitStack() as stack:
            for _ in range(150):
                peer = stack.enter_context(socket.create_connection(poor.address, timeout=5))
                peer.sendall(NEGOTIATE + framed(CONNECT))
        wait_until(lambda: accepts(poor.address) and serves(poor), "it serves again", timeout=30)
        assert serves(poor)
        assert workers(poor) == before
