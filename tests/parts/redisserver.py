"""A real Redis (or Valkey) on a unix socket, a TCP port and, when asked, a TLS port.

`Redis()` is empty at its start and keeps an append-only file, so that stop() or kill() and start() again is a
restart with its data. freeze() and thaw() make it a server that accepts connections and never answers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from parts.base import LOOPBACK, Part, PartError, free_port


def server_binary() -> str:
    """The path of redis-server or valkey-server."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    raise PartError("neither redis-server nor valkey-server is installed")


def make_certificate(directory: Path) -> tuple[Path, Path, Path]:
    """(CA, certificate, key) for 127.0.0.1 and localhost, made by openssl in `directory`.

    With the extensions of RFC 5280, to which Python 3.13 holds certificates.
    """
    ca, ca_key = directory / "ca.crt", directory / "ca.key"
    certificate, key, request = directory / "server.crt", directory / "server.key", directory / "server.csr"
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    commands: list[list[str | Path]] = [
        ["req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=tests", "-days", "2"],
        ["req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2"],
    ]
    commands[0] += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    commands[2] += ["-extfile", extensions, "-out", certificate]
    for command in commands:
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return ca, certificate, key


class Redis(Part):
    """A private server; `url` is its TCP address, `unix_url` and `tls_url` the others."""

    def __init__(self, *, tls: bool = False, user: str = "", password: str = "") -> None:
        super().__init__()
        self.port = free_port()
        self.socket = self.directory / "redis.sock"
        self.user, self.password = user, password
        self.tls_port = free_port() if tls else 0
        self.ca: Path | None = None
        self._arguments = self._configure(tls)

    def _configure(self, tls: bool) -> list[str | Path]:
        arguments: list[str | Path] = ["--bind", LOOPBACK, "--port", str(self.port)]
        arguments += ["--unixsocket", self.socket, "--unixsocketperm", "777", "--dir", self.directory]
        arguments += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"]
        # A replica gets its copy at once; else a primary waits five seconds whether another one comes.
        arguments += ["--repl-diskless-sync-delay", "0"]
        if tls:
            self.ca, certificate, key = make_certificate(self.directory)
            arguments += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            arguments += [
                "--tls-cert-file",
                certificate,
                "--tls-key-file",
                key,
                "--tls-ca-cert-file",
                self.ca,
            ]
        if self.user:
            acl = self.directory / "users.acl"
            acl.write_text(f"user default off\nuser {self.user} on >{self.password} ~* &* +@all\n")
            arguments += ["--aclfile", acl]
        elif self.password:
            arguments += ["--requirepass", self.password]
        return arguments

    def command(self) -> list[str | Path]:
        return [server_binary(), *self._arguments]

    def ready(self) -> bool:
        if not self.socket.exists():
            return False
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            return bool(self.client().ping())
        return False

    @property
    def _credentials(self) -> str:
        return f"{self.user}:{self.password}@" if self.password else ""

    @property
    def url(self) -> str:
        return f"redis://{self._credentials}{LOOPBACK}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self._credentials}{self.socket}"

    @property
    def tls_url(self) -> str:
        """Needs the CA: `?ssl_ca_certs=` with `ca`, or the environment's SSL_CERT_FILE."""
        return f"rediss://{self._credentials}{LOOPBACK}:{self.tls_port}/0"

    def client(self) -> redis.Redis:
        """A client of the tests' own, on the unix socket."""
        return redis.Redis(
            unix_socket_path=str(self.socket),
            username=self.user or None,
            password=self.password or None,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )

    def keys(self) -> list[bytes]:
        """All keys, sorted."""
        with self.client() as client:
            return sorted(client.scan_iter(count=1000))

    def shift_expiry(self, seconds: int) -> None:
        """Bring the expiry of every key that has one `seconds` nearer, as if that time had gone by."""
        with self.client() as client:
            for key in client.scan_iter(count=1000):
                left = client.pttl(key)
                if left > 0:
                    client.pexpire(key, max(1, left - seconds * 1000))

    def freeze(self) -> None:
        """Stop answering while connections are still accepted by the kernel."""
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after freeze()."""
        self.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Not by SIGTERM, which a frozen server does not see, and one that waits for its replica delays.

        A replica refuses it soon after it has begun to follow: "Writing initial AOF, can't exit".  Nobody
        reads the folder any more, and the child that writes there is of the server's process group.
        """
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
        super().close()
