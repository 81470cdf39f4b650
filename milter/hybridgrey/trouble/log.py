"""What the children report, as lines of the log: the end of the channel, its collector and its clock."""

from __future__ import annotations

import time

from hybridgrey import logs
from hybridgrey.trouble.collector import Collector, write
from hybridgrey.trouble.reporter import Channel


class Troubles:
    """The master's end of the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._collector = Collector()

    def fileno(self) -> int:
        """What to watch for reading."""
        return self._channel.fileno()

    def receive(self) -> None:
        """Take in what has arrived."""
        for data in self._channel.receive():
            write(logs.get(), self._collector.feed(data, time.monotonic()))

    def tick(self) -> None:
        """Say what is due; call it about once a second."""
        write(logs.get(), self._collector.tick(time.monotonic()))

    def gone(self, pid: int) -> None:
        """Note that a child has ended."""
        write(logs.get(), self._collector.gone(pid, time.monotonic()))
