"""A host of one's own: network, mount and host name namespaces in which test addresses are local. Needs root.

In it are only the loopback interface, a resolver at 127.0.0.1 that the test provides, and a host name with a
dot. The documentation networks (RFC 5737, RFC 3849) are routed to loopback, so a client can really come from
192.0.2.1. Sockets opened with `make_socket()` live inside although the test's process stays outside.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from parts.base import Part, PartError

NETWORKS = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
NETWORK6 = "2001:db8::/32"
CLONE_NEWNET = 0x40000000
IPV6_FREEBIND = 78  # linux/in6.h; Python has no name for it
IP_FREEBIND = 15
SCRIPT = """\
set -e
ip link set lo up
for network in {networks}; do ip route add local $network dev lo; done
ip -6 route add local {network6} dev lo || true
hostname {host}
mount --bind {directory}/resolv.conf /etc/resolv.conf
mount --bind {directory}/hosts /etc/hosts
touch {directory}/up
exec sleep infinity
"""


def missing() -> str:
    """Why namespaces cannot be made here; empty when they can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    for tool in ("unshare", "nsenter", "ip"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    test = ["unshare", "--net", "--uts", "--mount", "true"]
    return "" if subprocess.run(test, capture_output=True).returncode == 0 else "unshare is not permitted"


class Namespace(Part):
    """The namespaces; they last as long as this part and what runs in them."""

    def __init__(self, host: str = "mx.example.test") -> None:
        super().__init__()
        self.host = host
        (self.directory / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
        (self.directory / "hosts").write_text(f"127.0.0.1 localhost {host}\n::1 localhost\n")

    def command(self) -> list[str]:
        script = SCRIPT.format(
            networks=" ".join(NETWORKS), network6=NETWORK6, host=self.host, directory=self.directory
        )
        return ["unshare", "--net", "--uts", "--mount", "--propagation", "private", "sh", "-c", script]

    def ready(self) -> bool:
        return (self.directory / "up").exists()

    def inside(self, command: Sequence[str | Path]) -> list[str | Path]:
        """The command line that runs `command` inside; it keeps the process id."""
        spaces = ["--net", "--uts", "--mount", "--root"]
        return ["nsenter", "--target", str(self.pid), *spaces, "--", *command]

    def make_socket(self, family: int, kind: int) -> socket.socket:
        """A socket of the inner network, for use by this process."""
        made: list[socket.socket] = []

        def make() -> None:
            # setns() moves only the calling thread, so a short-lived one is sent.
            with Path(f"/proc/{self.pid}/ns/net").open() as network:
                if ctypes.CDLL(None).setns(network.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket(family, kind))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise PartError("setns() into the namespace failed")
        return made[0]

    def connect_from(self, source: str, target: tuple[str, int], timeout: float = 30.0) -> socket.socket:
        """A TCP connection inside, from the address `source`."""
        six = ":" in source
        connection = self.make_socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        level, option = (socket.IPPROTO_IPV6, IPV6_FREEBIND) if six else (socket.IPPROTO_IP, IP_FREEBIND)
        connection.setsockopt(level, option, 1)
        connection.bind((source, 0))
        connection.connect(target)
        return connection
