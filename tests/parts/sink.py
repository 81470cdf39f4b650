"""An SMTP server that takes every message and keeps it: where the MTAs under test deliver to."""

from __future__ import annotations

import email
import email.message
import email.policy
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

from parts.base import LOOPBACK, free_port, wait_until


@dataclass(frozen=True, slots=True)
class Mail:
    """One delivered message with its envelope."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes

    @property
    def message(self) -> email.message.Message:
        return email.message_from_bytes(self.data, policy=email.policy.compat32)

    def header(self, name: str) -> list[str]:
        """All values of a header, unfolded."""
        values = self.message.get_all(name) or []
        return [" ".join(str(value).split()) for value in values]


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        sink = cast("_Server", self.server).sink
        self._say("220 sink.test ESMTP")
        sender, recipients = "", list[str]()
        while line := self.rfile.readline():
            text = line.decode("utf-8", "surrogateescape").strip()
            verb = text[:4].upper()
            if verb == "MAIL":
                sender, recipients = self._path(text), []
            elif verb == "RCPT":
                recipients.append(self._path(text))
            elif verb == "DATA":
                self._say("354 go on")
                sink.deliver(Mail(sender, tuple(recipients), self._content()))
            elif verb == "EHLO":
                self._say("250-sink.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000")
                continue
            self._say("221 bye" if verb == "QUIT" else "250 ok")
            if verb == "QUIT":
                return

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    @staticmethod
    def _path(text: str) -> str:
        return text.partition("<")[2].rpartition(">")[0]

    def _content(self) -> bytes:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) and line != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    sink: Sink


class Sink:
    """The server; `mails` has everything in its order. `make_socket` may open it in another namespace."""

    def __init__(
        self,
        *,
        address: tuple[str, int] | None = None,
        make_socket: Callable[[int, int], socket.socket] = socket.socket,
    ) -> None:
        self.mails: list[Mail] = []
        self.host, self.port = address or (LOOPBACK, free_port())
        self._server = _Server((self.host, self.port), _Session, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = make_socket(socket.AF_INET, socket.SOCK_STREAM)
        self._server.server_bind()
        self._server.server_activate()
        self._server.sink = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def deliver(self, mail: Mail) -> None:
        """Take one message."""
        self.mails.append(mail)

    def wait(self, recipient: str, number: int = 1) -> Mail:
        """The message number `number` that came for a recipient; waits until it is there."""

        def found() -> list[Mail]:
            return [mail for mail in list(self.mails) if recipient in mail.recipients]

        wait_until(lambda: len(found()) >= number, f"mail {number} for {recipient}")
        return found()[number - 1]
