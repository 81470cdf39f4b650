"""A small internet: hosts in network namespaces, joined by bridges, with a router between them. Needs root.

    with Internet() as net:
        net.segment("front", ("10.25.0.1/24", "2001:db8:25::1/64"))
        mx = net.host("mx1.example.test", {"front": ("10.25.0.11/24", "2001:db8:25::11/64")})
        far = net.host("office.test", {"front": ("10.25.0.99/24",)}, networks=("192.0.2.0/24",))
        far.connect("192.0.2.7", ("10.25.0.11", 25))

- *segment*: a bridge; with addresses it is one that the router is on, which forwards between all those.
- *host*: network, host name and mount namespaces: its own loopback, /etc/hosts and /etc/resolv.conf.
- *networks*: what lies behind a host. The router leads there, and the host takes every address of it as its
  own, so that a client really comes from whichever is wanted.
- *link*: a host's cable to a segment, which can be pulled (`cut`) and put back (`heal`).

All of it, and all processes that run on hosts, are in one process namespace whose first process waits for
this one: when this one is gone, however it went, so is the internet. On the machine nothing is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from parts.base import Part, PartError, wait_until
from parts.namespace import IP_FREEBIND, IPV6_FREEBIND

Outcome = TypeVar("Outcome")
Server = TypeVar("Server", bound=Part)
# linux/sched.h; Python names them from 3.12 on only.
CLONE_FS, CLONE_NEWNS, CLONE_NEWUTS = 0x00000200, 0x00020000, 0x04000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
SPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNET

# `read` returns when the last writer of the pipe is gone; with this first process the kernel ends all others.
ROUTER = """\
set -e
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
touch {directory}/up
read -r _ <{directory}/alive
"""
HOST = """\
set -e
hostname {name}
for file in hosts resolv.conf; do mount --bind {directory}/$file /etc/$file; done
ip link set lo up
touch {directory}/up
exec sleep infinity
"""


def missing() -> str:
    """Why there can be no such internet here; empty when there can."""
    if os.geteuid() != 0:
        return "network namespaces and the mail servers in them need root"
    for tool in ("unshare", "ip", "mount"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    if not Path("/proc/sys/net/ipv6").exists():
        return "the kernel has no IPv6"
    test = "ip link add name bridge0 type bridge && ip link add name one type veth peer name two"
    spaces = ["--net", "--uts", "--mount", "--pid", "--fork", "--mount-proc"]
    tried = subprocess.run(["unshare", *spaces, "sh", "-c", test], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"namespaces are not permitted here: {tried.stderr.strip()}"


def interface(address: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """An address with the length of its network."""
    return ipaddress.ip_interface(address)


class Place(Part):
    """Namespaces that a thread of this process can step into."""

    def inner(self) -> int:
        """The process whose namespaces they are."""
        return self.pid

    def run(self, function: Callable[[], Outcome]) -> Outcome:
        """Call `function` here and return what it returns.

        It runs in a thread, and what it starts or opens stays here when the thread is gone. It cannot start
        threads: the kernel refuses them to one whose children belong to another process namespace.
        """
        outcome: Future[Outcome] = Future()

        def inside() -> None:
            try:
                _enter(self.inner())
                outcome.set_result(function())
            except BaseException as error:  # handed over, not swallowed
                outcome.set_exception(error)

        threading.Thread(target=inside, daemon=True).start()
        return outcome.result()

    def command_line(self, *words: str | Path, stdin: str = "", check: bool = True) -> str:
        """Run a command here and return its output; PartError with what it said when it fails and `check`."""
        done = self.run(lambda: subprocess.run(words, input=stdin, capture_output=True, text=True))
        if check and done.returncode:
            raise PartError(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def make_socket(self, family: int, kind: int) -> socket.socket:
        """A socket of this network, for use by this process."""
        return self.run(lambda: socket.socket(family, kind))


def _enter(pid: int) -> None:
    """Step into the namespaces of a process; this thread only."""
    kernel = ctypes.CDLL(None, use_errno=True)
    handle = os.pidfd_open(pid)
    try:
        # The working directory is shared by threads, and cannot be while one of them changes what is mounted.
        if kernel.unshare(CLONE_FS) or kernel.setns(handle, SPACES):
            raise PartError(f"namespaces of {pid}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)


class Host(Place):
    """A machine of the internet; made by `Internet.host`."""

    def __init__(self, net: Internet, name: str, resolver: str) -> None:
        super().__init__()
        self.net, self.name = net, name
        self.addresses: list[ipaddress.IPv4Interface | ipaddress.IPv6Interface] = []
        self.segments: list[str] = []
        (self.directory / "resolv.conf").write_text(
            f"nameserver {resolver}\noptions timeout:2 attempts:2\n" if resolver else ""
        )
        self.write_hosts()

    def write_hosts(self) -> None:
        """Let /etc/hosts have this host's own name, as long as that is all it needs without DNS."""
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        lines += [f"{address.ip} {self.name} {self.short}" for address in self.addresses]
        (self.directory / "hosts").write_text("\n".join(lines) + "\n")

    @property
    def short(self) -> str:
        """The first label of its name."""
        return self.name.partition(".")[0]

    def command(self) -> list[str]:
        script = HOST.format(name=self.name, directory=self.directory)
        return ["unshare", "--net", "--uts", "--mount", "--propagation", "private", "sh", "-c", script]

    def ready(self) -> bool:
        return (self.directory / "up").exists()

    def address(self, version: int = 4, segment: int = 0) -> str:
        """Its address of an IP version, on its first segment or a later one."""
        return [str(one.ip) for one in self.addresses if one.version == version][segment]

    def connect(self, source: str, target: tuple[str, int], timeout: float = 30.0) -> socket.socket:
        """A TCP connection from one of the addresses here, or of the networks behind."""
        six = ":" in source
        connection = self.make_socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            level, option = (socket.IPPROTO_IPV6, IPV6_FREEBIND) if six else (socket.IPPROTO_IP, IP_FREEBIND)
            connection.setsockopt(level, option, 1)
            connection.bind((source, 0))
            connection.connect(target)
        except OSError:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def serving(self, server: Server) -> Iterator[Server]:
        """Run a part on this host."""
        with contextlib.ExitStack() as stack:
            # Pushed first, so that a start that is interrupted leaves nothing behind.
            stack.push(server.__exit__)
            self.run(server.__enter__)
            yield server

    def cut(self, segment: str) -> None:
        """Pull the cable to a segment: nothing arrives, nothing is refused."""
        self.net.command_line("ip", "link", "set", self.net.cable(self, segment), "down")

    def heal(self, segment: str) -> None:
        """Put the cable back."""
        self.net.command_line("ip", "link", "set", self.net.cable(self, segment), "up")


class Internet(Place):
    """The router and all that hangs on it."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[str, Host] = {}
        self.routed: dict[str, tuple[str, ...]] = {}
        self._alive = self.directory / "alive"
        os.mkfifo(self._alive, 0o600)
        # Opened for both, so that neither side waits for the other.
        self._hold = os.open(self._alive, os.O_RDWR)
        self._stack = contextlib.ExitStack()

    def command(self) -> list[str]:
        script = ROUTER.format(directory=self.directory)
        spaces = ["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return ["unshare", *spaces, "sh", "-c", script]

    def ready(self) -> bool:
        return (self.directory / "up").exists()

    def inner(self) -> int:
        """unshare's child: the first process inside."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def close(self) -> None:
        try:
            self._stack.close()
        finally:
            os.close(self._hold)
            super().close()

    def segment(self, name: str, addresses: Sequence[str] = ()) -> None:
        """Add a segment; `addresses`: the router's on it, with the lengths of their networks."""
        self.routed[name] = tuple(addresses)
        lines = [f"link add name {name} type bridge", f"link set {name} up"]
        lines += [f"address add {one} dev {name} {_at_once(one)}" for one in addresses]
        self.command_line("ip", "-batch", "-", stdin="\n".join(lines))

    def host(
        self,
        name: str,
        links: Mapping[str, Sequence[str]],
        *,
        networks: Sequence[str] = (),
        resolver: str = "",
    ) -> Host:
        """Add a host; `links`: its addresses on each segment; `resolver`: what its resolv.conf names."""
        host = Host(self, name, resolver)
        host.addresses = [interface(one) for addresses in links.values() for one in addresses]
        host.segments = list(links)
        host.write_hosts()
        self.run(host.__enter__)
        self._stack.push(host.__exit__)
        self.hosts[host.short] = host
        self._join(host, links)
        self._lead(host, links, networks)
        return host

    def _join(self, host: Host, links: Mapping[str, Sequence[str]]) -> None:
        inside = _inner_pid(host.pid)
        lines: list[str] = []
        for segment in links:
            cable = self.cable(host, segment)
            lines.append(f"link add name {cable} type veth peer name {segment} netns {inside}")
            lines += [f"link set {cable} master {segment}", f"link set {cable} up"]
        self.command_line("ip", "-batch", "-", stdin="\n".join(lines))
        lines = []
        for segment, addresses in links.items():
            lines.append(f"link set {segment} up")
            lines += [f"address add {one} dev {segment} {_at_once(one)}" for one in addresses]
            versions = {interface(one).version for one in addresses}
            lines += [
                f"route add default via {interface(router).ip}"
                for router in self.routed[segment]
                if interface(router).version in versions
            ]
        host.command_line("ip", "-batch", "-", stdin="\n".join(lines))

    def _lead(self, host: Host, links: Mapping[str, Sequence[str]], networks: Sequence[str]) -> None:
        """Let the router lead to the networks behind a host, and the host take all their addresses."""
        if not networks:
            return
        here = {
            interface(one).version: interface(one).ip for addresses in links.values() for one in addresses
        }
        versions = {network: ipaddress.ip_network(network).version for network in networks}
        ways = [f"route add {network} via {here[version]}" for network, version in versions.items()]
        self.command_line("ip", "-batch", "-", stdin="\n".join(ways))
        own = [f"route add local {network} dev lo" for network in networks]
        host.command_line("ip", "-batch", "-", stdin="\n".join(own))
        # Who asks for the router's hardware address does so in its own name, not in that of a client.
        host.command_line("sh", "-c", "echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce")

    @staticmethod
    def cable(host: Host, segment: str) -> str:
        """The name of the bridge's end of a link; at most 15 characters."""
        return f"{host.short}-{segment}"


def _at_once(address: str) -> str:
    """IPv6 addresses are usable when their duplicate detection is over, unless there is none."""
    return "nodad" if ":" in address else ""


def _inner_pid(pid: int) -> int:
    """The process id that a process has in the innermost of its process namespaces."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise PartError("the kernel has no process namespaces")


def await_route(host: Host, source: str, target: tuple[str, int]) -> None:
    """Return when `target` can be reached from `source` on a host."""

    def reached() -> bool:
        with contextlib.suppress(OSError), host.connect(source, target, timeout=1):
            return True
        return False

    wait_until(reached, f"{target[0]} port {target[1]} is reached from {source}", 30)
