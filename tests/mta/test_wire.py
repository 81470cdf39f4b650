"""What real MTAs send a milter, command by command: seen from between them and the daemon."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from mta.conftest import MTAS, require
from mta.talk import opened
from parts.base import wait_until
from parts.daemon import Daemon
from parts.redisserver import Redis

pytestmark = pytest.mark.mta

CLIENT, OTHER = "192.0.2.20", "192.0.2.21"


class Between:
    """A socket for the MTA; what comes in is noted by connection, as letters, and handed on."""

    def __init__(self, folder: Path, target: str) -> None:
        self.path = folder / "between.sock"
        self.target = target
        self.connections: list[bytearray] = []
        self.open = 0
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(self.path))
        self.path.chmod(0o777)
        self._listening.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                mta, _ = self._listening.accept()
                milter = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                milter.connect(self.target)
                said = bytearray()
                self.connections.append(said)
                self.open += 1
                threading.Thread(target=self._pump, args=(mta, milter, said), daemon=True).start()
                threading.Thread(target=self._pump, args=(milter, mta, None), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, said: bytearray | None) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                if said is not None:
                    held += data
                    while len(held) >= 5 and len(held) >= 4 + (size := int.from_bytes(held[:4], "big")):
                        said.append(held[4])
                        held = held[4 + size :]
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if said is not None:
            self.open -= 1

    def close(self) -> None:
        self._listening.close()


@pytest.mark.parametrize("name", MTAS)
def test_no_mta_says_quit_nc(name):
    """Whatever a client does, an MTA ends a milter's connection with its client's, and never by QUIT_NC."""
    module, part = MTAS[name]
    require(module.missing())
    with Redis() as redis, contextlib.ExitStack() as stack:
        rules = [{"name": "all", "action": "accept"}]
        settings = {"store": {"url": redis.unix_url}, "rule": rules, "engine": "native"}
        daemon = stack.enter_context(Daemon(settings, unix=True))
        between = stack.enter_context(contextlib.closing(Between(daemon.directory, str(daemon.address))))
        mta = stack.enter_context(part(f"unix:{between.path}"))
        for address in (CLIENT, OTHER):
            with opened(mta, address) as client:
                for number in range(2):
                    client.transaction("a@y.example", [f"m{number}@x.example"])
                client.mail("a@y.example")
                client.rcpt("b@x.example")
                client.rset()
                client.ehlo("again.example")
                client.mail("a@y.example")
                client.quit()
        with opened(mta, CLIENT) as client:
            client.mail("a@y.example")
        wait_until(lambda: between.open == 0, "all connections have ended")
        letters = [bytes(said).replace(b"D", b"") for said in between.connections]
    spoken = [said for said in letters if b"R" in said]
    assert len(spoken) == 2
    assert all(said.startswith(b"O") for said in letters)
    assert not any(b"K" in said for said in letters)
    assert all(said.endswith(b"Q") for said in spoken)
