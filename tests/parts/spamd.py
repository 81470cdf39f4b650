"""SpamAssassin's spamd: Debian's own with local rules only, and a scripted one that gives what a test wants.

with Spamd() as scanner: ... {"content": {"scanner": scanner.spec}} ...
with ScriptedSpamd() as scanner:
    scanner.answer = 7.5          # a score, or the bytes to send; None: never
    ... scanner.requests[-1] ...
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import socketserver
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from parts.base import LOOPBACK, Part, accepts, free_port

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
"""What every scanner takes for spam (https://spamassassin.apache.org/gtube/)."""
# The head of a request, of spamc's or over HTTP.
_HEAD = re.compile(rb".*?\ncontent-length: (\d+)\r\n(?:[^\r\n]+\r\n)*\r\n", re.DOTALL | re.IGNORECASE)


def missing() -> str:
    """Why spamd cannot be run here; empty when it can."""
    if os.geteuid() != 0:
        return "spamd needs root"
    return "" if shutil.which("spamd") else "spamd is not installed"


class Spamd(Part):
    """The real one, on a TCP port."""

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.spec = f"spamd:inet:{self.port}@{LOOPBACK}"
        self.directory.chmod(0o755)

    def command(self) -> list[str | Path]:
        where = ["--listen", f"{LOOPBACK}:{self.port}", "--username", "nobody", "--max-children", "2"]
        return ["spamd", "--local", "--nouser-config", *where, "--syslog", "stderr"]

    def ready(self) -> bool:
        return accepts((LOOPBACK, self.port))


class _Scan(socketserver.BaseRequestHandler):
    """One request and what the script has for it."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, ScriptedSpamd)
        data, wanted = b"", None
        while (wanted is None or len(data) < wanted) and (piece := self.request.recv(65_536)):
            data += piece
            if wanted is None and (head := _HEAD.match(data)):
                wanted = head.end() + int(head[1])
        server.requests.append(data)
        answer = server.answer
        if answer is None:
            server.over.wait(60)
        elif isinstance(answer, bytes):
            self.request.sendall(answer)
        else:
            self.request.sendall(f"SPAMD/1.1 0 EX_OK\r\nSpam: True ; {answer} / 5.0\r\n\r\n".encode())


class ScriptedSpamd(socketserver.ThreadingTCPServer):
    """A spamd that scores as it is told; `requests` is what it was sent."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: float | bytes | None = 0.0) -> None:
        super().__init__((LOOPBACK, free_port()), _Scan)
        self.answer = answer
        self.requests: list[bytes] = []
        self.over = threading.Event()
        self.spec = f"spamd:inet:{self.server_address[1]}@{LOOPBACK}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, _request: object, _address: object) -> None:
        """The client has gone, as it may."""

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        with contextlib.suppress(OSError):
            super().shutdown_request(request)
