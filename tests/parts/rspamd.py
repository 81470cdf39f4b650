"""A real rspamd with hardly any rules: what it needs to answer, and to know GTUBE."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from parts.base import LOOPBACK, Part, accepts, free_port, wait_until

PATIENCE = 110.0
CONFIG = """\
options {{
  pidfile = "{folder}/pid";
  tempdir = "{folder}";
  cache_file = "{folder}/cache";
  filters = "";
  gtube_patterns = "all";
  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; }}
worker "normal" {{ bind_socket = "{address}:{port}"; count = 1; }}
actions {{ reject = 15; }}
"""


def missing() -> str:
    """Why rspamd cannot be run here; empty when it can."""
    if os.geteuid() != 0:
        return "rspamd needs root"
    return "" if shutil.which("rspamd") else "rspamd is not installed"


class Rspamd(Part):
    """One normal worker on a TCP port; it takes a minute to start where it compiles its patterns."""

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.spec = f"rspamd:http://{LOOPBACK}:{self.port}"
        self.directory.chmod(0o777)
        self.config = self.directory / "rspamd.conf"
        self.config.write_text(CONFIG.format(folder=self.directory, address=LOOPBACK, port=self.port))

    def command(self) -> list[str | Path]:
        return ["rspamd", "-f", "-u", "nobody", "-g", "nogroup", "-c", self.config]

    def await_ready(self) -> None:
        wait_until(lambda: not self.running or self.ready(), "rspamd is ready", PATIENCE)
        super().await_ready()

    def ready(self) -> bool:
        return accepts((LOOPBACK, self.port))
