"""Debian's postgrey and sqlgrey, asked through the Postfix policy protocol."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

from parts.base import LOOPBACK, Part, accepts, free_port


class _Policy(Part):
    """A policy server; `ask` is one RCPT."""

    address: str | tuple[str, int] = ""

    def ready(self) -> bool:
        return accepts(self.address)

    def ask(self, client: str, sender: str, recipient: str, name: str = "mail.example.org") -> str:
        """The action for a recipient."""
        attributes = {
            "request": "smtpd_access_policy",
            "protocol_state": "RCPT",
            "protocol_name": "ESMTP",
            "helo_name": name,
            "client_address": client,
            "client_name": name,
            "sender": sender,
            "recipient": recipient,
            "instance": str(time.time_ns()),
            "etrn_domain": "",
        }
        request = "".join(f"{key}={value}\n" for key, value in attributes.items()) + "\n"
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(20)
            connection.connect(self.address)
            connection.sendall(request.encode())
            return connection.recv(4096).decode().strip()


class Postgrey(_Policy):
    """postgrey with a delay of one second and options of its own; its databases are in `database`."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options
        self.database = self.directory / "db"
        self.database.mkdir()
        self.address = str(self.directory / "socket")

    def command(self) -> list[str | Path]:
        options = [f"--unix={self.address}", f"--dbdir={self.database}", "--delay=1"]
        return ["/usr/sbin/postgrey", *options, *self._options, "--user=root", "--group=root"]


class Sqlgrey(_Policy):
    """sqlgrey on SQLite without a delay; `database` is its file."""

    def __init__(self) -> None:
        super().__init__()
        self.database = self.directory / "sqlgrey.db"
        port = free_port()
        self.address = (LOOPBACK, port)
        lists = self.directory / "lists"
        shutil.copytree("/etc/sqlgrey", lists)
        self._config = self.directory / "sqlgrey.conf"
        self._config.write_text(
            f"conf_dir = {lists}\nuser = root\ngroup = root\ninet = {LOOPBACK}:{port}\n"
            f"pidfile = {self.directory}/pid\nreconnect_delay = 0\ngroup_domain_level = 2\n"
            f"db_type = SQLite\ndb_name = {self.database}\n"
        )

    def command(self) -> list[str | Path]:
        return ["/usr/sbin/sqlgrey", "-f", self._config]
