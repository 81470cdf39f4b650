"""Memory of the daemon's processes, at rest, after load, and with many open sessions."""

from __future__ import annotations

import resource
import socket
import struct
from typing import Any

from bench import accounts, rig, tables
from bench.milterload import NEGOTIATE, packet


def run(report: tables.Report, *, full: bool) -> None:
    """All tables."""
    with rig.stage({"workers": 2}) as stage:
        rows = _rows(stage, "at rest")
        stage.measure(seconds=20.0 if full else 4.0)
        rows += _rows(stage, "after load")
        report.table(
            "Memory: two workers, the sample rules, MiB",
            rows,
            "private: what is this process's alone (USS). The workers share the rest with the master.",
        )
    rows = []
    for engine in rig.ENGINES.values():
        with rig.stage({"engine": engine}) as stage:
            rows += [{"engine": engine, **row} for row in _idle(stage, full=full)]
    report.table("Memory: one worker with open sessions that say nothing after CONNECT", rows)


def _rows(stage: rig.Stage, when: str) -> list[dict[str, Any]]:
    rows = []
    for pid in sorted(stage.daemon.own()):
        memory = accounts.memory(pid)
        master = " (master)" if pid == stage.daemon.pid else ""
        rows.append(
            {
                "process": accounts.name(pid) + master,
                "when": when,
                "resident": memory["rss"] / 1024,
                "proportional": memory["pss"] / 1024,
                "private": memory["uss"] / 1024,
                "descriptors": accounts.descriptors(pid),
            }
        )
    return rows


def _idle(stage: rig.Stage, *, full: bool) -> list[dict[str, Any]]:
    (worker,) = stage.daemon.workers()
    allow_files(12000)
    sessions: list[socket.socket] = []
    rows: list[dict[str, Any]] = []
    before = 0
    for count in (0, 1000, 5000) if full else (0, 500, 2000):
        sessions += [opened(str(stage.daemon.address), number) for number in range(len(sessions), count)]
        # Once under load first: threads and caches are not the sessions' memory.
        figures = stage.measure(seconds=2.0)
        resident = accounts.memory(worker)["rss"]
        before = before or resident
        rows.append(
            {
                "open sessions": count,
                "resident MiB": resident / 1024,
                "MiB for 1,000": (resident - before) / 1024 / count * 1000 if count else 0.0,
                "CPU µs for a decision beside them": figures["workers µs"],
                "other load": figures["other load"],
            }
        )
    for sock in sessions:
        sock.close()
    return rows


def allow_files(count: int) -> None:
    """Raise this process's limit of open files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def opened(address: str, number: int) -> socket.socket:
    """A session that has said CONNECT and then nothing."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(address)
    sock.sendall(NEGOTIATE)
    steps = struct.unpack("!I", sock.recv(4096)[13:17])[0]
    client = f"33.200.{number >> 8}.{number & 255}"
    data = b"Cunknown\x004" + struct.pack("!H", 40000) + client.encode() + b"\0"
    sock.sendall(packet(b"DC", "{client_addr}", client) + struct.pack("!I", len(data)) + data)
    if not steps & 0x1000:
        sock.recv(4096)
    return sock
