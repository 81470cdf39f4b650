"""Clean machines with systemd, and our daemon in one that has none."""

from __future__ import annotations

import pytest

from parts.base import LOOPBACK, PartError
from parts.cleanroot import CleanRoot
from parts.milterpeer import MilterPeer

PATIENCE = 60.0
PID_FILE = "/run/test.pid"
LOG = "/var/log/test.log"


def with_systemd() -> CleanRoot:
    """A machine that systemd starts; skips the test where it cannot."""
    try:
        return CleanRoot("systemd")
    except PartError as error:
        if "cgroup2" in str(error):
            pytest.skip(str(error))
        raise


def start(machine: CleanRoot, user: str, program: str, *words: str) -> str:
    """Run a program as a user of its own, what it says in `LOG`; its process id."""
    command = ["start-stop-daemon", "--start", "--background", "--make-pidfile", "--pidfile", PID_FILE]
    machine.run(*command, "--output", LOG, "--chuid", user, "--startas", program, "--", *words)
    return machine.path(PID_FILE).read_text().strip()


def serves(machine: CleanRoot, port: int = 8893) -> bool:
    """Whether a client is judged."""

    def session() -> str:
        with MilterPeer((LOOPBACK, port), timeout=PATIENCE) as peer:
            peer.connect()
            peer.helo()
            peer.mail()
            return peer.rcpt().code

    try:
        return machine.within(session) == "450"
    except ConnectionError:
        return False
