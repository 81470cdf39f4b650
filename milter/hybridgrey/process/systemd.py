"""What systemd is told about the daemon: sd_notify(3) without libsystemd.

Without NOTIFY_SOCKET in the environment every call does nothing.  The variables are taken out of the
environment, so that no child speaks in its name.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

EXTENSION = 30
"""Seconds until the next sign of life after `Notifier.busy`."""
PATIENCE = 0.1
"""Seconds that a message may wait for room in the manager's queue."""


class Notifier:
    """One datagram to the service manager for each change of state."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._path = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = usec.isdecimal() and pid in ("", str(os.getpid()))
        self.watchdog_interval = int(usec) / 2e6 if ours else 0.0
        """Seconds between two calls of `alive`, half of what the manager allows; 0: it does not watch."""

    def ready(self, status: str) -> None:
        """The daemon takes mail."""
        self._send("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """A reload began; `ready` ends it.  The time stamp is needed by Type=notify-reload."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon drains and will end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The master's loop still turns."""
        self._send("WATCHDOG=1")

    def busy(self, status: str) -> None:
        """Something takes long, but goes on: neither the start's time limit nor the watchdog may end it."""
        self._send("WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}", f"STATUS={status}")

    def _send(self, *lines: str) -> None:
        if not self._path:
            return
        path = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            # A manager that does not read must not hold up the master.
            sock.settimeout(PATIENCE)
            try:
                sock.sendto("\n".join(lines).encode(), path)
            except OSError:
                # The manager is restarting or the socket is gone.  Mail does not depend on it, and the
                # manager itself says so when a READY=1 or WATCHDOG=1 stays away.
                return
