"""Examples of the documentation, tried: a folder that stands for the root, and a running daemon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hybridgrey.history.layout import Step
from hybridgrey.history.records import Batch
from hybridgrey.history.writer import Writer
from hybridgrey.store.connection import Store
from parts.base import free_port
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.redisserver import Redis

LISTS = ("bl.mailspike.net", "zen.spamhaus.org", "rep.mailspike.net", "list.dnswl.org")


@contextlib.contextmanager
def running() -> Iterator[Daemon]:
    """A daemon with a store and the well-known lists, none of which has anybody."""
    with Redis() as redis, FakeDns() as dns:
        for name in LISTS:
            dns.zone(name)
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address], "timeout": "300ms"},
            "metrics": {"listen": f"127.0.0.1:{free_port()}"},
        }
        daemon = Daemon(settings)
        daemon.configure({**settings, "pid_file": str(daemon.directory / "pid")})
        _history(redis)
        with daemon:
            yield daemon


def _history(redis: Redis) -> None:
    """What a daemon of an hour ago has left in the store."""
    now = int(time.time())
    store = Store.open(redis.unix_url, 5.0)
    counts = {(step, (now - 3600) // step * step): {"outcome:accept:enforced": 5} for step in Step}
    Writer(store, "mx1.example.org", "before").write(1, Batch(counts=counts), now)
    store.close()


class World:
    """Paths below the root, programs that are not of this house, and a shell."""

    def __init__(self, root: Path, daemon: Daemon) -> None:
        self.root = root
        self.daemon = daemon
        self.metrics = f"http://{daemon.settings['metrics']['listen']}"
        for folder in ("etc/hybridgrey", "etc/postfix", "etc/postgrey", "etc/bash_completion.d", "var/log"):
            (root / folder).mkdir(parents=True)
        for folder in ("var/lib/postgrey", "var/lib/sqlgrey", "var/lib/milter-greylist", "bin"):
            (root / folder).mkdir(parents=True)
        (root / "usr/local/share/zsh/site-functions").mkdir(parents=True)
        (root / "etc/fish/completions").mkdir(parents=True)
        self._files()
        self._programs()

    def _files(self) -> None:
        root = self.root
        for name in ("etc/hybridgrey/hybridgrey.toml", "hybridgrey.toml"):
            shutil.copy(self.daemon.config, root / name)
        shutil.copy(Path(__file__).parents[1] / "maincf/02-debian.cf", root / "etc/postfix/main.cf")
        (root / "etc/postgrey/whitelist_clients").write_text("example.org\n")
        (root / "var/log/hybridgrey.log").write_text(self._verdict())
        (root / "var/log/hybridgrey.log.1.gz").write_bytes(
            subprocess.run(["gzip"], input=self._verdict().encode(), capture_output=True, check=True).stdout
        )
        for name in ("mail.log", "mail.log.1"):
            (root / "var/log" / name).write_text(self._mail())
        now = int(time.time())
        head = "VERSION=3\nformat=print\ntype=btree\nHEADER=END\n"
        (root / "dump").write_text(f"{head} 192.0.2.0/a@b/c@d\n {now - 900},{now}\nDATA=END\n")
        database = root / "var/lib/postgrey/postgrey.db"
        subprocess.run(["db_load", "-f", root / "dump", database], check=True)
        _sqlgrey(root / "var/lib/sqlgrey/sqlgrey.db", now)
        (root / "var/lib/milter-greylist/greylist.db").write_text(
            f"192.0.2.1\t<a@b>\t<c@d>\t{now + 9} AUTO\n"
        )

    @staticmethod
    def _verdict() -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        event: dict[str, object] = {"ts": now, "event": "verdict", "action": "reject", "rule": "blocklists"}
        event |= {"client": "192.0.2.1", "host": None, "helo": "x", "sender": "a@b", "recipient": "c@d"}
        event["lists"] = {}
        return json.dumps(event) + "\n"

    @staticmethod
    def _mail() -> str:
        now = time.strftime("%b %e %H:%M:%S", time.localtime(time.time() - 600))
        said = "554 5.7.1 no; from=<a> to=<b> proto=SMTP helo=<x>"
        return f"{now} mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.1]: {said}\n"

    def _programs(self) -> None:
        """The command itself, and programs that need a system around them."""
        hybridgrey = Path(sys.executable).with_name("hybridgrey")
        # Before the command, so that a -c of an example's own counts.
        default = self.root / "etc/hybridgrey/hybridgrey.toml"
        self._program("hybridgrey", f'exec {hybridgrey} -c {default} "$@"')
        self._program("journalctl", f"cat {self.root}/var/log/hybridgrey.log")
        self._program("postconf", f"cat {self.root}/etc/postfix/main.cf")

    def _program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run an example as a shell would, paths being below the root."""
        text = re.sub(r"(?<![\w.:/])/(?=(etc|var|usr)/)", f"{self.root}/", line)
        text = re.sub(r"http://mx\d:9893", self.metrics, text)
        shutil.copy(self.daemon.config, self.root / "new.toml")
        environment = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        command = ["bash", "-o", "pipefail", "-c", text]
        asks = "greylist forget" in line
        if asks:  # and only on a terminal
            command = ["script", "-qec", shlex.join(command), "/dev/null"]
        return subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            # Else none, not an empty one: a pipe would be read.
            **({"input": "y\n"} if asks else {"stdin": subprocess.DEVNULL}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def _sqlgrey(path: Path, now: int) -> None:
    """A database of sqlgrey's with one sender that has passed."""
    with sqlite3.connect(path) as database:
        for table, columns in (
            ("connect", "sender_name, sender_domain, src, rcpt, first_seen"),
            ("from_awl", "sender_name, sender_domain, src, first_seen, last_seen"),
            ("domain_awl", "sender_domain, src, first_seen, last_seen"),
        ):
            database.execute(f"CREATE TABLE {table} ({columns})")
        database.execute("INSERT INTO from_awl VALUES ('a', 'b', '192.0.2', ?, ?)", (now, now))
