"""The internet that the tests of the field stand on, shown to work by itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mta.conftest import require
from parts import internet
from parts.base import PartError, wait_until
from parts.internet import Internet

TESTS = Path(__file__).parents[1]
VICTIM = """
import sys
from parts.internet import Internet
with Internet() as net:
    net.segment("front", ("10.25.0.1/24",))
    host = net.host("mx1.test", {"front": ("10.25.0.11/24",)})
    host.command_line("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &")
    print(net.inner(), host.pid, net.directory, host.directory, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def net():
    require(internet.missing())
    with Internet() as running:
        running.segment("front", ("10.25.0.1/24", "2001:db8:25::1/64"))
        running.segment("wan", ("10.1.0.1/24", "2001:db8:1::1/64"))
        running.segment("back")
        running.host(
            "mx1.example.test", {"front": ("10.25.0.11/24", "2001:db8:25::11/64"), "back": ("10.6.0.11/24",)}
        )
        running.host("store.example.test", {"back": ("10.6.0.21/24",)})
        running.host(
            "office.test",
            {"wan": ("10.1.0.11/24", "2001:db8:1::11/64")},
            networks=("192.0.2.0/24", "2001:db8:a::/48"),
        )
        yield running


@pytest.fixture
def door(net):
    """A listening socket on mx1."""
    with net.hosts["mx1"].make_socket(socket.AF_INET6, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("::", 25))
        listening.listen()
        listening.settimeout(30)
        yield listening


@pytest.mark.parametrize(
    ("source", "target", "seen"),
    [
        ("192.0.2.7", "10.25.0.11", "::ffff:192.0.2.7"),
        ("192.0.2.255", "10.25.0.11", "::ffff:192.0.2.255"),
        ("2001:db8:a:4711::25", "2001:db8:25::11", "2001:db8:a:4711::25"),
    ],
)
def test_clients_come_from_the_address_they_took(net, door, source, target, seen):
    """Any address of a network is a client's real one, as the server sees it."""
    with net.hosts["office"].connect(source, (target, 25)), door.accept()[0] as accepted:
        assert accepted.getpeername()[0] == seen


def test_a_cut_cable_is_silence_and_a_healed_one_works(net, door):
    """Without its cable nothing comes to a host and nothing is refused; the other cable does not suffer."""
    host, office, store = (net.hosts[name] for name in ("mx1", "office", "store"))
    host.cut("front")
    with pytest.raises((TimeoutError, OSError)) as error:
        office.connect("192.0.2.7", ("10.25.0.11", 25), timeout=1)
    assert not isinstance(error.value, ConnectionRefusedError)
    with store.connect("10.6.0.21", ("10.6.0.11", 25)), door.accept()[0]:
        pass
    host.heal("front")

    def reached():
        try:
            office.connect("192.0.2.7", ("10.25.0.11", 25), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(reached, "the host is back", 30)


def test_segments_are_apart(net):
    """A segment that the router is not on cannot be reached from elsewhere, nor the machine from inside."""
    for address in ("10.6.0.21", "127.0.0.1"):
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            net.hosts["office"].connect("192.0.2.7", (address, 22), timeout=1)
    with pytest.raises(PartError):
        net.hosts["mx1"].command_line("ip", "link", "show", "mx1-front")  # that end is the router's
    names = {name: host.command_line("hostname").strip() for name, host in net.hosts.items()}
    assert names == {"mx1": "mx1.example.test", "store": "store.example.test", "office": "office.test"}
    assert socket.gethostname() not in names.values()


def test_all_of_it_ends_with_its_maker():
    """After kill -9 of the process that made it no other is left, not even one with a session of its own."""
    require(internet.missing())
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    maker = subprocess.Popen(
        [sys.executable, "-c", VICTIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    with maker:
        first, host, *folders = maker.stdout.readline().split()
        inside = [entry for entry in Path("/proc").glob("[0-9]*") if _in(entry, int(first))]
        assert Path(f"/proc/{host}") in inside
        assert len(inside) >= 3
        maker.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(entry.exists() for entry in inside), "all is gone", 30)
    for folder in folders:  # a killed process cannot tidy up
        subprocess.run(["rm", "-r", folder], check=True)


def _in(entry: Path, first: int) -> bool:
    """Whether a process is in the process namespace of another."""
    try:
        return (entry / "ns/pid").readlink() == Path(f"/proc/{first}/ns/pid").readlink()
    except OSError:
        return False
